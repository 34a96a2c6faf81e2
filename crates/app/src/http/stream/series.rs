//! A series of triggers that continues on another connection.

use serde::Deserialize;

use crate::http::ApiError;

/// The name of a series, in characters.
const MAX_SERIES_NAME: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct StreamQuery {
    pub(super) key: Option<String>,
    pub(super) from: Option<u64>,
    pub(super) to: Option<String>,
}

/// A numbered series of triggers that can continue on another connection.
pub(super) struct Series {
    key: String,
    /// The number of the next trigger.
    next: u64,
}

impl Series {
    pub(super) fn from_query(StreamQuery { key, from, to: _ }: StreamQuery) -> Result<Option<Self>, ApiError> {
        let is_fit = |key: &String| {
            (1..=MAX_SERIES_NAME).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        match (key, from) {
            (Some(key), from) if is_fit(&key) => Ok(Some(Self { key, next: from.unwrap_or(1) })),
            (None, None) => Ok(None),
            _ => Err(ApiError::bad_request(format!(
                "?key= is the name of a series of triggers, 1 to {MAX_SERIES_NAME} characters of visible ASCII, and ?from= the \
                 number in it of the first one"
            ))),
        }
    }

    /// The idempotency key of the next trigger.
    pub(super) fn next_key(&mut self) -> String {
        let key = format!("{}-{}", self.key, self.next);
        self.next += 1;
        key
    }
}
