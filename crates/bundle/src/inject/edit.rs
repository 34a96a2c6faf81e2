//! Lines put into a manifest, and taken out of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::manifest::{Lookup as _, Place};
use ferry_config::yaml::{Node, Value};
use ferry_config::{Problem, ValueError};

/// Edits of a text, by its lines as they were.
#[derive(Default)]
pub(super) struct Edits {
    /// Lines to be put behind the line with this number.
    behind: BTreeMap<usize, Vec<String>>,
    removed: Vec<Range<usize>>,
}

impl Edits {
    pub(super) fn apply(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (at, line) in text.split_inclusive('\n').enumerate() {
            if self.removed.iter().any(|lines| lines.contains(&at)) {
                continue;
            }
            out += line;
            for more in self.behind.get(&at).into_iter().flatten() {
                if !out.ends_with('\n') {
                    out.push('\n');
                }
                out += more;
                out.push('\n');
            }
        }
        out
    }

    pub(super) fn remove(&mut self, lines: Range<usize>) {
        self.removed.push(lines);
    }

    /// Puts items in front of those of a list, which is made if need be. `items` is a list in YAML, not indented.
    pub(super) fn add_items(&mut self, of: &Place<'_>, key: &str, items: &str) -> Result<(), Vec<Problem>> {
        let column = block_column(of)?;
        match of.at(&[key]) {
            None => self.add_lines(of, [format!("{}{key}:", blank(column))].into_iter().chain(indented(items, column))),
            Some(list) => self.add_lines(&list, indented(items, block_column(&list)?)),
        }
    }

    /// Takes out a key that has nothing: no value, or empty brackets. Whether there was one.
    pub(super) fn drop_empty(&mut self, of: &Place<'_>, path: &[&str]) -> bool {
        let line = of.at(path).filter(|place| is_empty(place.value)).and_then(|place| place.key_line);
        line.inspect(|line| self.remove(*line..line + 1)).is_some()
    }

    /// Takes items out of a list by their names, and the list if none is left.
    pub(super) fn remove_items(&mut self, of: &Place<'_>, key: &str, names: &[&str]) -> Result<(), Vec<Problem>> {
        let Some(list) = of.at(&[key]) else { return Ok(()) };
        let is_ours = |item: &Value| {
            item.value.get("name").and_then(|(_, name)| name.value.as_text()).is_some_and(|name| names.contains(&name))
        };
        let items = of.items(key);
        let ours: Vec<_> = items.iter().filter(|item| is_ours(item)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        block_column(&list)?;
        for item in &ours {
            self.remove(of.line(item.referenced.line())..of.line(last_line(item)) + 1);
        }
        if let Some(line) = list.key_line.filter(|_| ours.len() == items.len()) {
            self.remove(line..line + 1);
        }
        Ok(())
    }

    /// Gives a key a value in the mapping that `path` leads to; what is missing of it is made.
    pub(super) fn set(&mut self, of: &Place<'_>, path: &[&str], key: &str, value: &str) -> Result<(), Vec<Problem>> {
        let Some((first, rest)) = path.split_first() else {
            let line = format!("{}{key}: {value}", blank(block_column(of)?));
            return self.add_lines(of, [line]);
        };
        let column = block_column(of)?;
        match of.at(&[first]) {
            None => {
                let keys = path.iter().map(|key| format!("{key}:")).chain([format!("{key}: {value}")]);
                self.add_lines(of, keys.enumerate().map(|(depth, line)| format!("{}{line}", blank(column + 2 * depth))))
            }
            Some(place) => self.set(&place, rest, key, value),
        }
    }

    /// Takes a key out again, and what is empty without it.
    pub(super) fn unset(&mut self, of: &Place<'_>, path: &[&str], key: &str) -> Result<(), Vec<Problem>> {
        for depth in (0..=path.len()).rev() {
            let Some(place) = of.at(&path[..depth]) else { return Ok(()) };
            let name = path.get(depth).copied().unwrap_or(key);
            block_column(&place)?;
            if let Some(entry) = place.at(&[name]) {
                let line = entry.key_line.unwrap_or_default();
                self.remove(line..line + 1);
            }
            if !matches!(&place.value.value, Node::Map(entries) if entries.len() == 1) {
                break;
            }
        }
        Ok(())
    }

    /// Puts lines behind the key of a mapping or list.
    fn add_lines(&mut self, of: &Place<'_>, lines: impl IntoIterator<Item = String>) -> Result<(), Vec<Problem>> {
        let Some(line) = of.key_line else {
            return Err(vec![of.problem("metadata", ValueError::new("is missing", "give the object a name"))]);
        };
        self.behind.entry(line).or_default().extend(lines);
        Ok(())
    }
}

/// The column, counted from 0, that the entries of a mapping or list begin at. It must be in block style: one entry a line.
fn block_column(place: &Place<'_>) -> Result<usize, Vec<Problem>> {
    let refused = |message: &str| {
        let hint = "write it in block style, one entry a line; `kubectl create --dry-run=client -o yaml -f FILE` does";
        Err(vec![place.problem("", ValueError::new(message, hint))])
    };
    let at = place.value.referenced;
    let is_alias = at != place.value.defined;
    let column = usize::try_from(at.column()).unwrap_or_default().saturating_sub(1);
    match &place.value.value {
        _ if is_alias => refused("an alias, whose mapping is written elsewhere"),
        Node::Map(entries) if !entries.is_empty() && at.span().is_empty() => Ok(column),
        Node::List(items) if !items.is_empty() && at.span().is_empty() => match place.dash(&items[0]) {
            Some(dash) => Ok(dash),
            None => refused("a list whose items do not begin with a dash"),
        },
        Node::Map(_) | Node::List(_) => refused("written in brackets, in one piece"),
        _ => refused("not a mapping"),
    }
}

fn is_empty(value: &Value) -> bool {
    match &value.value {
        Node::Null => true,
        Node::List(items) => items.is_empty(),
        Node::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

/// The last line that a value has something on, as far as its parts begin there.
fn last_line(value: &Value) -> u64 {
    let own = value.referenced.line();
    match &value.value {
        Node::List(items) => items.iter().map(last_line).max().unwrap_or(own).max(own),
        Node::Map(entries) => {
            let last = entries.iter().map(|(key, value)| key.referenced.line().max(last_line(value))).max();
            last.unwrap_or(own).max(own)
        }
        _ => own,
    }
}

fn indented(text: &str, column: usize) -> impl Iterator<Item = String> {
    let lines: Vec<_> = text.lines().map(|line| format!("{}{line}", blank(column))).collect();
    lines.into_iter()
}

fn blank(column: usize) -> String {
    " ".repeat(column)
}
