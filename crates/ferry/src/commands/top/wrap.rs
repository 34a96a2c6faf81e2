//! Text in lines of a width.

use ratatui::text::Span;

/// The columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Breaks a text between its words; a word that is wider than a line is broken, too.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last().map_or(0, |line| width(line));
        if line > 0 && line + 1 + width(word) <= columns {
            push(&mut lines, &format!(" {word}"));
            continue;
        }
        if line > 0 {
            lines.push(String::new());
        }
        let mut rest = word;
        while width(rest) > columns {
            let end = fitting(rest, columns);
            push(&mut lines, &rest[..end]);
            lines.push(String::new());
            rest = &rest[end..];
        }
        push(&mut lines, rest);
    }
    lines
}

/// The text, or its beginning with an ellipsis.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    match columns {
        0 => String::new(),
        _ => format!("{}…", &text[..end_of(text, columns - 1)]),
    }
}

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Where what fits ends, behind the first character at least.
fn fitting(text: &str, columns: usize) -> usize {
    end_of(text, columns).max(text.chars().next().map_or(0, char::len_utf8))
}

fn end_of(text: &str, columns: usize) -> usize {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    ends.take_while(|end| width(&text[..*end]) <= columns).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_wider_than_they_may_be() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable it", 4), ["unbr", "eaka", "ble", "it"]);
        assert_eq!(wrap("接続できません", 4), ["接続", "でき", "ませ", "ん"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("接", 1), ["接", ""], "what is wider than any line is not lost");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(["short", "longer", "接続接続"].map(|text| cut(text, 5)), ["short", "long…", "接続…"]);
        assert_eq!(cut("a", 0), "");
    }
}
