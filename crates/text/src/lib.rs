//! Makes untrusted text safe to show in a log, in a status or on a terminal.

use std::fmt::{self, Display, Write};

/// Characters shown of a text; a longer one is cut.
pub const MAX_SHOWN: usize = 200;

/// Shows untrusted text on one line, bounded, without anything that a terminal would interpret.
///
/// Characters without a glyph are escaped as in Rust: control characters, line ends, ESC, marks that change the direction
/// of writing. A backslash is escaped too, so that an escape cannot be forged; quotes are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign<'a>(pub &'a str);

impl Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.chars();
        for shown in rest.by_ref().take(MAX_SHOWN) {
            match shown {
                '"' | '\'' => f.write_char(shown)?,
                _ => shown.escape_debug().fmt(f)?,
            }
        }
        match rest.as_str().len() {
            0 => Ok(()),
            more => write!(f, "… ({more} more bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_shown_as_it_is() {
        for text in ["", "can't connect: \"refused\"", "größer als 1 MiB", "接続できません"] {
            assert_eq!(Foreign(text).to_string(), text);
        }
    }

    #[test]
    fn nothing_forges_a_line_or_drives_a_terminal() {
        let shown = Foreign("a\nINFO b\r\u{1b}[2J\u{7}\u{9b}31m\t\0").to_string();
        assert_eq!(shown, r"a\nINFO b\r\u{1b}[2J\u{7}\u{9b}31m\t\0");
        for turn in ['\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200f}', '\u{61c}', '\u{2028}', '\u{feff}'] {
            let shown = Foreign(&format!("a{turn}b")).to_string();
            assert!(shown.is_ascii(), "{turn:?} is shown as {shown}");
        }
        assert_eq!(Foreign(r"a\nb").to_string(), r"a\\nb", "an escape cannot be forged");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let shown = Foreign(&"é".repeat(500_000)).to_string();
        assert_eq!(shown, format!("{}… (999600 more bytes)", "é".repeat(MAX_SHOWN)));
    }
}
