//! The one pass over a text that decides whether it is a payload. It keeps no tree and does not recurse.

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};

use super::{MAX_NUMBER_LENGTH, MAX_PAYLOAD_DEPTH, MAX_QUOTED_KEY, PayloadError};

/// An array or object that the pass is inside of.
enum Container {
    Array,
    /// An object; its keys follow those of the objects around it, from here on.
    Object {
        first_key: usize,
    },
}

/// Checks that `text` is one JSON object within the bounds.
pub(super) fn check(text: &[u8]) -> Result<(), PayloadError> {
    let mut pass = Pass { json: Jiter::new(text), open: Vec::new(), keys: Vec::new() };
    if text.trim_ascii().is_empty() {
        return Err(PayloadError::NotAnObject("nothing"));
    }
    let first = pass.json.peek().map_err(|error| pass.not_json(&error))?;
    match pass.all(first) {
        result if first == Peek::Object => result,
        Ok(()) => Err(PayloadError::NotAnObject(name(first))),
        // Whether the rest is JSON is not known.
        Err(beyond) => Err(PayloadError::NotJson(beyond.to_string())),
    }
}

struct Pass<'a> {
    json: Jiter<'a>,
    open: Vec<Container>,
    /// The keys so far of all the objects that are open, the innermost object's last.
    keys: Vec<Box<str>>,
}

impl Pass<'_> {
    fn all(&mut self, first: Peek) -> Result<(), PayloadError> {
        self.value(first)?;
        while let Some(innermost) = self.open.last() {
            let next = match innermost {
                Container::Array => self.json.array_step(),
                Container::Object { .. } => match self.json.next_key() {
                    Ok(Some(key)) => {
                        self.keys.push(key.into());
                        self.json.peek().map(Some)
                    }
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                },
            };
            match next {
                Ok(Some(value)) => self.value(value)?,
                Ok(None) => self.close()?,
                Err(error) => return Err(self.not_json(&error)),
            }
        }
        self.json.finish().map_err(|error| self.not_json(&error))
    }

    /// Reads a value; of an array or an object only the beginning, with its first value.
    fn value(&mut self, mut value: Peek) -> Result<(), PayloadError> {
        loop {
            let inner = match value {
                Peek::Array => {
                    self.enter(Container::Array)?;
                    self.json.known_array()
                }
                Peek::Object => {
                    self.enter(Container::Object { first_key: self.keys.len() })?;
                    match self.json.known_object() {
                        Ok(Some(key)) => {
                            self.keys.push(key.into());
                            self.json.peek().map(Some)
                        }
                        Ok(None) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
                scalar => return self.scalar(scalar),
            };
            match inner {
                Ok(Some(first)) => value = first,
                Ok(None) => return self.close(),
                Err(error) => return Err(self.not_json(&error)),
            }
        }
    }

    fn scalar(&mut self, value: Peek) -> Result<(), PayloadError> {
        let read = match value {
            Peek::String => self.json.known_str().map(drop),
            Peek::True | Peek::False => self.json.known_bool(value).map(drop),
            Peek::Null => self.json.known_null(),
            _ => match self.json.known_number_bytes(value) {
                Ok(number) if number.len() > MAX_NUMBER_LENGTH => return Err(PayloadError::LongNumber),
                Ok(number) if is_huge(number) => return Err(PayloadError::HugeNumber),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
        };
        read.map_err(|error| self.not_json(&error))
    }

    fn enter(&mut self, open: Container) -> Result<(), PayloadError> {
        if self.open.len() == MAX_PAYLOAD_DEPTH {
            return Err(PayloadError::TooDeep);
        }
        self.open.push(open);
        Ok(())
    }

    /// Leaves an array or an object that has ended.
    fn close(&mut self) -> Result<(), PayloadError> {
        let Some(Container::Object { first_key }) = self.open.pop() else { return Ok(()) };
        let keys = &mut self.keys[first_key..];
        keys.sort_unstable();
        if let Some(same) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(PayloadError::RepeatedKey(same[0].chars().take(MAX_QUOTED_KEY).collect()));
        }
        self.keys.truncate(first_key);
        Ok(())
    }

    fn not_json(&self, error: &JiterError) -> PayloadError {
        match &error.error_type {
            // The parser gives up before the number's end is known.
            JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange) => PayloadError::LongNumber,
            _ => PayloadError::NotJson(error.description(&self.json)),
        }
    }
}

fn is_huge(number: &[u8]) -> bool {
    let may_be = number.len() > f64::MAX_10_EXP as usize || number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    may_be && std::str::from_utf8(number).is_ok_and(|text| text.parse().is_ok_and(f64::is_infinite))
}

fn name(value: Peek) -> &'static str {
    match value {
        Peek::Array => "an array",
        Peek::String => "a string",
        Peek::True | Peek::False => "a boolean",
        Peek::Null => "null",
        _ => "a number",
    }
}

/// Takes the whitespace between the parts of a JSON text out, so that it fits a line.
pub(super) fn compact(text: &mut Vec<u8>) {
    let (mut in_string, mut escaped) = (false, false);
    text.retain(|byte| {
        if !in_string {
            in_string = *byte == b'"';
            return !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        }
        match (escaped, byte) {
            (true, _) => escaped = false,
            (false, b'\\') => escaped = true,
            (false, b'"') => in_string = false,
            (false, _) => {}
        }
        true
    });
}
