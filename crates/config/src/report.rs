//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;

/// One thing that is wrong, or that looks wrong (a warning).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the document: `peers[0].keys[1]`. Empty when it is about the document as a whole.
    pub path: String,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// Line of the value, counted from 1, where it is known.
    pub line: Option<u64>,
    /// Column of the value, counted from 1, where it is known.
    pub column: Option<u64>,
}

impl Problem {
    /// A problem of the document as a whole.
    pub fn of_document(error: ValueError) -> Self {
        Self { path: String::new(), message: error.message, hint: error.hint, line: None, column: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line, self.column) {
            ("", Some(line), Some(column)) => write!(f, "line {line}, column {column}: ")?,
            ("", ..) => {}
            (path, ..) => write!(f, "{path}: ")?,
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that keeps a configuration from being used; never empty.
///
/// Displays as one line per problem, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    source: String,
    problems: Vec<Problem>,
}

impl Report {
    /// A report of `problems` in the document called `source`.
    pub fn new(source: impl Into<String>, problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "a report without a problem");
        Self { source: source.into(), problems }
    }

    /// A report whose only problem is with the document as a whole.
    pub fn of_document(source: impl Into<String>, error: ValueError) -> Self {
        Self::new(source, vec![Problem::of_document(error)])
    }

    /// The name of the document, as it is put before each problem.
    pub fn source_name(&self) -> &str {
        &self.source
    }

    /// The problems, in the order of the document.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {problem}", self.source)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Why a text is not the value that it should be.
///
/// Displays as `message; hint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl ValueError {
    /// An error from its two parts.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ValueError {}

/// `text` as it may be shown in a message: in backquotes, escaped, and not longer than a line.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
