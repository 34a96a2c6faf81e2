//! Reads typed values out of an untyped tree and collects what is wrong, instead of stopping at the first problem.
//!
//! A reader that fails has added the reason to the [`Problems`] and gives `None`, or a stand-in where that is easier:
//! once there is a problem, nothing that was read is used.
//!
//! Public because the blueprint of a bundle is read in the same way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::report::{Problem, ValueError, quoted};
use crate::yaml::{Node, Value};

/// All problems of a document.
#[derive(Debug, Default)]
pub struct Problems {
    problems: RefCell<Vec<Problem>>,
    /// How many more there were than are kept.
    more: Cell<usize>,
}

/// A position in the document.
#[derive(Clone, Debug)]
pub struct Position {
    path: String,
    line: u64,
    column: u64,
}

/// A value that was read, and the position that it was read from.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub position: Position,
}

/// A value that is yet to be read.
#[derive(Clone, Debug)]
pub struct Field<'d> {
    /// Where it stands.
    pub position: Position,
    node: &'d Node,
    problems: &'d Problems,
}

/// The values of a mapping, which are taken from it by key.
#[derive(Debug)]
pub struct Fields<'d> {
    position: Position,
    entries: BTreeMap<&'d str, Field<'d>>,
    known: Vec<&'static str>,
    problems: &'d Problems,
}

impl Problems {
    /// The most problems that are kept: more are of no use.
    const MAX_KEPT: usize = 200;

    /// Takes a problem with the value at `position`.
    pub fn add(&self, position: &Position, error: ValueError) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < Self::MAX_KEPT {
            problems.push(position.problem(error));
        } else {
            self.more.set(self.more.get() + 1);
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The problems, in the order of the document.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if self.more.get() > 0 {
            let message = format!("{} more problems", self.more.get());
            problems.push(Problem::of_document(ValueError::new(message, "")));
        }
        problems
    }
}

impl Position {
    /// This position, as where a problem is.
    pub fn problem(&self, error: ValueError) -> Problem {
        Problem {
            path: self.path.trim_end_matches(": ").to_owned(),
            message: error.message,
            hint: error.hint,
            line: Some(self.line),
            column: Some(self.column),
        }
    }

    /// Another file, which is read in addition to the document.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self { path: format!("{}: ", path.display()), line: 1, column: 1 }
    }

    /// What comes between this path and a key in it.
    fn separator(&self) -> &'static str {
        if self.path.is_empty() || self.path.ends_with(' ') { "" } else { "." }
    }

    fn key(&self, key: &str, at: &Value) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = match key.len() <= 60 && !key.is_empty() && key.chars().all(plain) {
            true => key.to_owned(),
            false => quoted(key),
        };
        Self::of(format!("{}{}{key}", self.path, self.separator()), at)
    }

    fn of(path: String, at: &Value) -> Self {
        Self { path, line: at.referenced.line(), column: at.referenced.column() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl<'d> Field<'d> {
    /// The document as a whole.
    pub fn root(value: &'d Value, problems: &'d Problems) -> Self {
        Self { position: Position::of(String::new(), value), node: &value.value, problems }
    }

    /// Another document as a whole, whose problems are at `position`.
    pub(crate) fn root_at(position: Position, value: &'d Value, problems: &'d Problems) -> Self {
        Self { position, node: &value.value, problems }
    }

    /// Reads text.
    pub fn text<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<Located<T>> {
        match self.node {
            Node::Text(text) => self.checked(read(text)),
            Node::Integer(_) | Node::Other(_) => self.unexpected("text", "put it in quotes"),
            _ => self.unexpected("text", ""),
        }
    }

    /// Reads text or a number, which `read` gets as text too: it has the better hint.
    pub fn scalar<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<Located<T>> {
        match self.node {
            Node::Text(text) | Node::Other(text) => self.checked(read(text)),
            Node::Integer(number) => self.checked(read(&number.to_string())),
            _ => self.unexpected("a single value", ""),
        }
    }

    /// Reads a number within `range`.
    pub fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let located = self.scalar(|text| {
            text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
                let hint = format!("write a whole number from {} to {}", range.start(), range.end());
                ValueError::new(format!("{} is not such a number", quoted(text)), hint)
            })
        });
        located.map(|located| located.value)
    }

    /// The items of a list; none if it is no list.
    pub fn items(&self) -> Vec<Self> {
        let Node::List(items) = self.node else {
            self.unexpected::<()>("a list", "put each item on a line of its own, after `- `");
            return Vec::new();
        };
        let item = |(i, value): (usize, &'d Value)| Field {
            position: Position::of(format!("{}[{i}]", self.position), value),
            node: &value.value,
            problems: self.problems,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// Whether this is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.node, Node::Map(_))
    }

    /// The values of a mapping by keys that are the user's own; none if it is no mapping.
    pub fn entries(&self) -> Vec<(&'d str, Self)> {
        self.fields().map(|fields| fields.entries.into_iter().collect()).unwrap_or_default()
    }

    /// Whether this is a list without items.
    pub fn is_empty_list(&self) -> bool {
        matches!(self.node, Node::List(items) if items.is_empty())
    }

    /// The fields of a mapping.
    pub fn fields(&self) -> Option<Fields<'d>> {
        let Node::Map(map) = self.node else {
            return self.unexpected("a mapping", "write `key: value` lines");
        };
        let mut entries = BTreeMap::new();
        for (key, value) in map {
            let field =
                Field { position: self.position.key(&key.value, value), node: &value.value, problems: self.problems };
            let position = field.position.clone();
            if entries.insert(key.value.as_str(), field).is_some() {
                self.problems.add(&position, ValueError::new("the key is given twice", "keep one of them"));
            }
        }
        Some(Fields { position: self.position.clone(), entries, known: Vec::new(), problems: self.problems })
    }

    /// Reports what is wrong with this value.
    pub fn problem<T>(&self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.problems.add(&self.position, ValueError::new(message, hint));
        None
    }

    fn unexpected<T>(&self, expected: &str, hint: &str) -> Option<T> {
        self.problem(format!("expected {expected}, found {}", self.node.kind()), hint)
    }

    fn checked<T>(&self, value: Result<T, ValueError>) -> Option<Located<T>> {
        match value {
            Ok(value) => Some(Located { value, position: self.position.clone() }),
            Err(error) => {
                self.problems.add(&self.position, error);
                None
            }
        }
    }
}

impl<'d> Fields<'d> {
    /// The value of `key`, if it has one: a key with nothing behind it counts as left out.
    pub fn optional(&mut self, key: &'static str) -> Option<Field<'d>> {
        self.known.push(key);
        self.entries.remove(key).filter(|field| !matches!(field.node, Node::Null))
    }

    /// The value of `key`, which must have one.
    pub fn required(&mut self, key: &'static str, hint: &str) -> Option<Field<'d>> {
        let field = self.optional(key);
        if field.is_none() {
            let path = format!("{}{}{key}", self.position, self.position.separator());
            let position = Position { path, ..self.position };
            self.problems.add(&position, ValueError::new("missing", hint));
        }
        field
    }

    /// Reads the value of `key`, or leaves `default` as it is.
    pub fn read<T>(&mut self, key: &'static str, default: &mut T, read: impl FnOnce(Field<'d>) -> Option<T>) {
        if let Some(value) = self.optional(key).and_then(read) {
            *default = value;
        }
    }

    /// Reports the keys that were not asked for.
    pub fn finish(self) {
        for (key, field) in &self.entries {
            let hint = match nearest(key, &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            self.problems.add(&field.position, ValueError::new("unknown key", hint));
        }
    }
}

/// The known key that `key` is most likely a slip of.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    // Far longer than any of ours: no slip, and not worth the time.
    if key.len() > 40 {
        return None;
    }
    known
        .iter()
        .map(|known| (strsim::levenshtein(key, known), *known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min()
        .map(|(_, known)| known)
}
