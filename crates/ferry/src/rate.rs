//! Formatting of rates.

use std::fmt;

use indicatif::HumanCount;

/// A rate per second with three significant digits at most, such as 14,700 or 0.25.
pub(crate) struct Rate(pub(crate) f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three significant digits; no decimals from 10 on.
        let rate = self.0.max(0.0);
        let rounded = |unit: f64| (rate / unit).round() * unit;
        match rate {
            _ if !self.0.is_finite() => f.write_str("–"),
            999.5.. => write!(f, "{}", HumanCount(rounded(10f64.powf((rate * 1.0005).log10().floor() - 2.0)) as u64)),
            9.95.. => write!(f, "{rate:.0}"),
            0.95.. => write!(f, "{}", short(format!("{rate:.1}"))),
            0.005.. => write!(f, "{}", short(format!("{rate:.2}"))),
            0.0 => f.write_str("0"),
            _ => f.write_str("<0.01"),
        }
    }
}

fn short(number: String) -> String {
    number.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_the_digits_that_mean_something() {
        for (rate, text) in [
            (14_711.669, "14,700"),
            (999_600.0, "1,000,000"),
            (1_234_567.0, "1,230,000"),
            (1000.0, "1,000"),
            (999.7, "1,000"),
            (372.6, "373"),
            (10.0, "10"),
            (9.96, "10"),
            (2.04, "2"),
            (2.57, "2.6"),
            (0.96, "1"),
            (0.25, "0.25"),
            (0.5, "0.5"),
            (0.001, "<0.01"),
            (0.0, "0"),
            (f64::INFINITY, "–"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(Rate(rate).to_string(), text, "{rate}");
        }
    }
}
