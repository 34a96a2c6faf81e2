//! Durations and sizes as people write them. One grammar for configuration files, command lines and HTTP queries.

use std::time::Duration;

/// What a text that is not a duration should have been.
pub const DURATION_HINT: &str = "write a number with a unit, such as `500ms`, `30s`, `10m` or `1h30m`; without a unit \
                                 it is seconds";
/// What a text that is not a size should have been.
pub const SIZE_HINT: &str = "write a whole number of bytes, or one with a unit: `512KiB`, `16MiB`, `64GiB` (1024s), \
                             `kB`, `MB`, `GB` (1000s)";

/// The units that a duration is rendered in, largest first, in nanoseconds.
const TIME_UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units without a fixed length. `M` is one too, and looks like a minute.
const CALENDAR_UNITS: [&str; 8] = ["M", "month", "months", "y", "yr", "yrs", "year", "years"];

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

/// Reads `30s`, `10m`, `500ms`, `1h30m` or `1h 30m`, in the units of `humantime` up to weeks. A whole number without a
/// unit is seconds.
///
/// `None` is for anything else; [`DURATION_HINT`] says what was expected.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let mut units = text.split(|c: char| !c.is_alphabetic());
    if units.any(|unit| CALENDAR_UNITS.contains(&unit)) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// Writes a duration so that [`parse_duration`] reads it back.
pub fn render_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in TIME_UNITS {
        let count = rest / nanos;
        rest %= nanos;
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads `1024`, `512KiB`, `16MiB` or `64GB` as bytes.
///
/// `None` is for anything else, and for more than a `u64` holds; [`SIZE_HINT`] says what was expected.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size so that [`parse_size`] reads it back, in the largest binary unit that is exact.
pub fn render_size(bytes: u64) -> String {
    SIZE_UNITS[..4]
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit_or_seconds() {
        let good = [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("90min", 5_400_000),
            ("2days", 172_800_000),
            ("0s", 0),
            ("0", 0),
            ("7", 7_000),
            ("1.5s", 1_500),
        ];
        for (text, millis) in good {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", " ", "s", "soon", "+1s", "-1s", "1S", "1m5", "99999999999999999999s", "99999999999999999999", "١s"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn units_without_a_fixed_length_are_refused() {
        for text in ["1M", "5M 3s", "1month", "2years", "1h1y"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_render_in_the_largest_units() {
        assert_eq!(render_duration(Duration::from_millis(5_400_500)), "1h30m500ms");
        assert_eq!(render_duration(Duration::from_nanos(1_002)), "1us2ns");
        assert_eq!(render_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn a_size_has_a_binary_or_decimal_unit() {
        let good = [
            ("1024", 1024),
            ("0", 0),
            ("7B", 7),
            ("512KiB", 512 << 10),
            ("16MiB", 16 << 20),
            ("64GiB", 64 << 30),
            ("2TiB", 2 << 40),
            ("3kB", 3_000),
            ("3MB", 3_000_000),
            ("3GB", 3_000_000_000),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "1K", "1k", "1kb", "1KB", "1mb", "1 MiB", "1.5GiB", "-1", "+1", "16777216TiB", "1MiB1"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(render_size(512 << 20), "512MiB");
        assert_eq!(render_size(1_000), "1000");
    }

    proptest! {
        #[test]
        fn durations_round_trip(nanos in any::<u64>(), seconds in any::<u32>()) {
            for duration in [Duration::from_nanos(nanos), Duration::new(seconds.into(), 999_999_999)] {
                prop_assert_eq!(parse_duration(&render_duration(duration)), Some(duration));
            }
        }

        #[test]
        fn sizes_round_trip(bytes in any::<u64>(), shift in 0..64_u32) {
            for bytes in [bytes, bytes << shift, bytes >> shift] {
                prop_assert_eq!(parse_size(&render_size(bytes)), Some(bytes));
            }
        }

        #[test]
        fn any_text_is_answered(text in "[0-9hmsdwµ. ]{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
