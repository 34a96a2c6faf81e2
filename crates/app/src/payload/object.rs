//! A payload as a tree.
//!
//! Not `serde_json`'s own reader: that one takes some keys of an object, such as `$serde_json::private::RawValue`, for
//! signs of its own, and what is under them for JSON to be read once more.

use jiter::{Jiter, JiterError, Peek};
use serde_json::{Number, Value};

use super::{Object, PayloadError};

/// Reads a checked text; its depth bounds this function's.
pub(super) fn read(text: &[u8]) -> Result<Object, PayloadError> {
    let mut json = Jiter::new(text);
    let first = json.peek().map_err(not_json)?;
    match value(&mut json, first)? {
        Value::Object(object) => Ok(object),
        _ => Err(PayloadError::NotAnObject("no object")),
    }
}

fn value(json: &mut Jiter<'_>, first: Peek) -> Result<Value, PayloadError> {
    Ok(match first {
        Peek::Object => Value::Object(object(json)?),
        Peek::Array => Value::Array(array(json)?),
        Peek::String => Value::String(json.known_str().map_err(not_json)?.to_owned()),
        Peek::True | Peek::False => Value::Bool(json.known_bool(first).map_err(not_json)?),
        Peek::Null => {
            json.known_null().map_err(not_json)?;
            Value::Null
        }
        _ => Value::Number(number(json.known_number_bytes(first).map_err(not_json)?)?),
    })
}

fn object(json: &mut Jiter<'_>) -> Result<Object, PayloadError> {
    let mut object = Object::new();
    let mut key = json.known_object().map_err(not_json)?.map(str::to_owned);
    while let Some(name) = key {
        let first = json.peek().map_err(not_json)?;
        object.insert(name, value(json, first)?);
        key = json.next_key().map_err(not_json)?.map(str::to_owned);
    }
    Ok(object)
}

fn array(json: &mut Jiter<'_>) -> Result<Vec<Value>, PayloadError> {
    let mut array = Vec::new();
    let mut next = json.known_array().map_err(not_json)?;
    while let Some(first) = next {
        array.push(value(json, first)?);
        next = json.array_step().map_err(not_json)?;
    }
    Ok(array)
}

fn number(text: &[u8]) -> Result<Number, PayloadError> {
    let text = String::from_utf8_lossy(text);
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Ok(number.into());
    }
    text.parse().ok().and_then(Number::from_f64).ok_or(PayloadError::HugeNumber)
}

fn not_json(error: JiterError) -> PayloadError {
    PayloadError::NotJson(error.to_string())
}
