//! TCP's congestion control by its name.

use std::fmt;
use std::str::FromStr;

use crate::report::{ValueError, quoted};

/// The most bytes of a name in Linux (`TCP_CA_NAME_MAX` with its NUL).
const MAX_LEN: usize = 15;

/// A congestion control that the kernel may have, such as `bbr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CongestionControl(Box<str>);

impl CongestionControl {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for CongestionControl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        let hint = "write a name that `sysctl net.ipv4.tcp_available_congestion_control` lists, such as `bbr`";
        Err(ValueError::new(format!("{} is not a congestion control", quoted(text)), hint))
    }
}
