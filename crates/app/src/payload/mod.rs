//! A payload: the text of one JSON object, checked once and then passed on as it is.
//!
//! A payload is not read into a tree, because most web-apps only pass it on: a tree takes many times the memory of its
//! text, and changes numbers that the machine cannot hold. Every payload, wherever it comes from, goes through
//! [`Payload::parse`], so that what one end accepts the other can take.

mod check;
mod object;

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON object as a tree: what [`Payload::to_object`] reads.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// The largest payload, in bytes of JSON.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// How deep objects and arrays may lie within each other, the payload's own object included. Common parsers stop at 128,
/// and `/output` wraps a payload in three levels of its own.
pub const MAX_PAYLOAD_DEPTH: usize = 100;
/// The longest number, in characters. Python reads no integer of more than 4,300 digits.
pub const MAX_NUMBER_LENGTH: usize = 4096;
/// How much of a repeated key an error quotes, in characters.
const MAX_QUOTED_KEY: usize = 100;

/// A JSON object as text, without whitespace between its parts; every number is as its sender wrote it. Cheap to clone.
#[derive(Clone)]
pub struct Payload(Arc<RawValue>);

/// Why a text is no payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Not JSON in UTF-8; with the place.
    #[error("something that is not JSON ({0})")]
    NotJson(String),
    /// JSON, but not an object; with what it is.
    #[error("{0}")]
    NotAnObject(&'static str),
    /// More than [`MAX_PAYLOAD_BYTES`].
    #[error("{0} bytes as JSON, where {MAX_PAYLOAD_BYTES} is the most; send less at a time")]
    TooLarge(usize),
    /// Deeper than [`MAX_PAYLOAD_DEPTH`].
    #[error("JSON that is nested more than {MAX_PAYLOAD_DEPTH} levels deep")]
    TooDeep,
    /// An object has this key twice, and readers disagree on which of the two counts.
    #[error("an object in which the key {0:?} is repeated; use each key once")]
    RepeatedKey(String),
    /// Longer than [`MAX_NUMBER_LENGTH`].
    #[error("JSON with a number of more than {MAX_NUMBER_LENGTH} characters; send it as a string")]
    LongNumber,
    /// Beyond what a double can hold, where many readers give up on all of the JSON.
    #[error("JSON with a number beyond 1.8e308; send it as a string")]
    HugeNumber,
}

impl Payload {
    /// Checks a text and keeps it.
    ///
    /// # Errors
    ///
    /// It is not JSON, not an object, or beyond a bound.
    pub fn parse(text: impl Into<Vec<u8>>) -> Result<Self, PayloadError> {
        let mut text = text.into();
        if text.len() > MAX_PAYLOAD_BYTES {
            return Err(PayloadError::TooLarge(text.len()));
        }
        check::check(&text)?;
        check::compact(&mut text);
        let text = String::from_utf8(text).map_err(|error| PayloadError::NotJson(error.to_string()))?;
        let raw = RawValue::from_string(text).map_err(|error| PayloadError::NotJson(error.to_string()))?;
        Ok(Self::stored(raw))
    }

    /// `null`, where something came that is no payload.
    pub(crate) fn none() -> Self {
        Self::stored(RawValue::NULL.to_owned())
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads it into a type of one's own.
    ///
    /// # Errors
    ///
    /// The payload does not fit the type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    /// A tree of it to look into. Its numbers are those of `serde_json`: what neither 64-bit integers nor doubles can hold
    /// is rounded in the tree, though not in the payload. To pass a payload on unchanged, return the payload.
    ///
    /// # Errors
    ///
    /// None that [`Payload::parse`] has let through.
    pub fn to_object(&self) -> Result<Object, PayloadError> {
        object::read(self.as_str().as_bytes())
    }

    /// What a store or a frame holds, which may have been accepted by an earlier version with other bounds: only to be
    /// shown and passed on.
    pub(crate) fn stored(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    pub(crate) fn len(&self) -> usize {
        self.as_str().len()
    }
}

impl TryFrom<&Object> for Payload {
    type Error = PayloadError;

    /// # Errors
    ///
    /// The object is beyond a bound.
    fn try_from(object: &Object) -> Result<Self, PayloadError> {
        let text = serde_json::to_vec(object).map_err(|error| PayloadError::NotJson(error.to_string()))?;
        Self::parse(text)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Payload {}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
