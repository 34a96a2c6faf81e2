//! Bytes and times as people read them at a glance.

/// Three digits and a unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && value < 99.5);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Two or three digits and a unit.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// `1 link`, `2 links`, `1,000 links`.
pub(crate) fn plural(count: u64, one: &str) -> String {
    format!("{} {one}{}", indicatif::HumanCount(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_counts_are_short() {
        assert_eq!([0, 999, 1000, 123_456, 99_960_000_000].map(size), ["0 B", "999 B", "1.0 kB", "123 kB", "100 GB"]);
        let times = [0.0004, 0.25, 1.0, 42.4, 600.0, 7200.0, 864_000.0].map(time);
        assert_eq!(times, ["0 ms", "250 ms", "1.0 s", "42 s", "10 min", "2 h", "10 days"]);
        assert_eq!([0, 1, 5000].map(|count| plural(count, "link")), ["0 links", "1 link", "5,000 links"]);
    }
}
