//! Wall-clock time as RFC 3339 text, for trails.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_rfc3339_millis;

/// The last second that RFC 3339 can express, since 1970.
const MAX_UNIX_TIME: Duration = Duration::from_secs(253_402_300_799);

/// Now, in UTC with milliseconds: `2025-06-01T12:00:00.000Z`.
pub(crate) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// A clock outside of the years that can be written is shown at their edge: a trail is for reading, and nothing is ordered
/// by it.
fn rfc3339(time: SystemTime) -> String {
    format_rfc3339_millis(time.clamp(UNIX_EPOCH, UNIX_EPOCH + MAX_UNIX_TIME)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_in_rfc_3339() {
        for (seconds, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, 7, "2024-02-29T00:00:00.007Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, 0, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis)), text);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_costs_no_message() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + 2 * MAX_UNIX_TIME), "9999-12-31T23:59:59.000Z");
    }
}
