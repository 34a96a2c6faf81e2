//! Links with another congestion control than the host's default.

use std::io;

use ferry_config::CongestionControl;
use rustix::io::Errno;
use tracing::warn;

use crate::net::{Network, Stream};

/// Warns once, where the configuration comes into force, if the system does not let links have what it asks for.
pub(crate) fn check(network: &dyn Network, wanted: Option<&CongestionControl>) {
    if let Some(wanted) = wanted
        && let Err(error) = network.check_congestion_control(wanted.as_str())
    {
        warn!("`congestion: {wanted}` has no effect, links use the host's default: {}", advice(wanted, &error));
    }
}

/// Asks for it on a link's connection. One that does not get it has the host's default.
pub(super) fn apply(stream: &mut dyn Stream, wanted: Option<&CongestionControl>) {
    if let Some(wanted) = wanted {
        let _ = stream.set_congestion_control(wanted.as_str());
    }
}

fn advice(wanted: &CongestionControl, error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!(
            "the kernel does not have it; `modprobe tcp_{wanted}` on the host loads it, if it was built (a restart of \
             the tunnel or a reload looks again)"
        ),
        Some(Errno::PERM) => format!(
            "the kernel does not let this process use it; add {wanted} to net.ipv4.tcp_allowed_congestion_control on \
             the host"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_comes_with_what_to_do() {
        let advice = |errno: Errno| advice(&"bbr".parse().expect("a name"), &errno.into());
        assert!(advice(Errno::NOENT).contains("modprobe tcp_bbr"));
        assert!(advice(Errno::PERM).contains("tcp_allowed_congestion_control"));
    }
}
