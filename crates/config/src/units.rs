//! Durations and sizes as people write them.

use std::time::Duration;

use crate::report::{ValueError, quoted};

const DURATION_HINT: &str = "write a whole number with a unit, such as `500ms`, `30s`, `10m` or `1h30m`";
const SIZE_HINT: &str = "write a whole number of bytes, or one with a unit: `512KiB`, `16MiB`, `64GiB` \
                         (1024s), `kB`, `MB`, `GB` (1000s)";

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, those first that a size is rendered in.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

/// Reads `30s`, `10m`, `500ms` or `1h30m`: whole numbers with a unit, largest unit first, each unit once.
///
/// # Errors
///
/// If it is anything else, a number without a unit too, or longer than a `u64` of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let refused = || ValueError::new(format!("{} is not a duration", quoted(text)), DURATION_HINT);
    let mut rest = text;
    let mut units = TIME_UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = leading_number(rest).ok_or_else(refused)?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(refused)?;
        total = number.checked_mul(units[at].1).and_then(|part| total.checked_add(part)).ok_or_else(refused)?;
        units = &units[at + 1..];
        rest = tail;
    }
    match text {
        "" => Err(refused()),
        _ => Ok(Duration::from_millis(total)),
    }
}

/// Writes a duration so that [`parse_duration`] reads it back; what is below a millisecond is cut off.
pub fn render_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in TIME_UNITS {
        let count = rest / u128::from(millis);
        rest %= u128::from(millis);
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads `1024`, `512KiB`, `16MiB` or `64GB` as bytes.
///
/// # Errors
///
/// If it is anything else, or more than a `u64` holds.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    leading_number(text)
        .and_then(|(number, unit)| {
            let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(*bytes)
        })
        .ok_or_else(|| ValueError::new(format!("{} is not a size", quoted(text)), SIZE_HINT))
}

/// Writes a size so that [`parse_size`] reads it back, in the largest binary unit that is exact.
pub fn render_size(bytes: u64) -> String {
    SIZE_UNITS[..4]
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}
