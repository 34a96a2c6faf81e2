//! Whether the kernel's socket buffers hold what is on its way over a long path.

use std::fs;

/// What 1 Gbit/s over 100 ms needs, with the kernel's own share of a buffer.
const RECOMMENDED_TCP_BUFFER: u64 = 32 << 20;

/// The round trip of which the note speaks.
const LONG_PATH: f64 = 0.1;

/// Most bytes that one connection's buffers may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    send: u64,
    receive: u64,
}

/// Says that one stream over a long path will be slow for want of buffers, which is how kernels come: no fault of
/// anybody's, so no warning. Silent where the kernel does not tell.
pub(crate) fn check() {
    if let Some(note) = note() {
        tracing::info!("{note}");
    }
}

/// What the kernel's buffers cost one stream over a long path, and what to do; nothing if they are large enough, or the
/// kernel does not tell.
pub fn note() -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    Limits::parse(&read("tcp_wmem")?, &read("tcp_rmem")?)?.note()
}

impl Limits {
    /// From the two settings: least, initial and most bytes.
    fn parse(wmem: &str, rmem: &str) -> Option<Self> {
        let most = |text: &str| text.split_whitespace().nth(2)?.parse().ok();
        Some(Self { send: most(wmem)?, receive: most(rmem)? })
    }

    /// Mbit/s of one stream over the long path: of a receive buffer only half is advertised as a window, of a send
    /// buffer a tenth goes to the kernel's own headers.
    fn speed(self) -> f64 {
        let window = (self.send as f64 * 0.9).min(self.receive as f64 * 0.5);
        window * 8.0 / LONG_PATH / 1e6
    }

    /// What it costs that they are small, and what to do.
    fn note(self) -> Option<String> {
        let settings = [("net.ipv4.tcp_wmem", self.send), ("net.ipv4.tcp_rmem", self.receive)];
        let small: Vec<_> = settings.into_iter().filter(|(_, most)| *most < RECOMMENDED_TCP_BUFFER).collect();
        let named: Vec<_> = small.iter().map(|(name, most)| format!("{name} from {most}")).collect();
        (!small.is_empty()).then(|| {
            format!(
                "one stream carries at most about {:.0} Mbit/s over a round trip of 100 ms; for 1 Gbit/s raise the last \
                 number of {} to {RECOMMENDED_TCP_BUFFER} at both ends (in a bundle: `tcp_sysctls: true`)",
                (self.speed() / 10.0).round() * 10.0,
                named.join(" and of ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAISED: &str = "4096\t131072\t33554432\n";

    #[test]
    fn stock_buffers_are_named_with_what_they_cost() {
        let stock = Limits::parse("4096\t16384\t4194304\n", RAISED).and_then(Limits::note).expect("a note");
        assert!(stock.contains("about 300 Mbit/s"), "{stock}");
        assert!(
            stock.contains("the last number of net.ipv4.tcp_wmem from 4194304 to 33554432 at both ends"),
            "{stock}"
        );
        assert!(!stock.contains("tcp_rmem"), "what is large enough is not to be raised: {stock}");
        let window = Limits::parse(RAISED, "4096\t131072\t6291456\n").and_then(Limits::note).expect("a note");
        assert!(window.contains("about 250 Mbit/s"), "{window}");
    }

    #[test]
    fn raised_buffers_are_not_worth_a_word() {
        assert_eq!(Limits::parse(RAISED, RAISED).map(Limits::note), Some(None));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_guessed() {
        assert_eq!(Limits::parse("4096 16384", RAISED), None);
        assert_eq!(Limits::parse(RAISED, "many"), None);
    }
}
