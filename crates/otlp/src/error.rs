//! What is wrong with a variable.

/// What a variable says that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value} cannot be used: {problem}")]
pub struct EnvironmentError {
    variable: String,
    value: String,
    problem: String,
}

impl EnvironmentError {
    /// Names the variable, its value, and what to give instead.
    pub fn new(variable: &str, value: &str, problem: impl Into<String>) -> Self {
        Self { variable: variable.to_owned(), value: value.to_owned(), problem: problem.into() }
    }
}
