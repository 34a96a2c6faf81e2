//! Latency under an open loop: messages leave on schedule, whether or not the former ones came back.

use crate::load::App;
use crate::pair::{FILLING, Pair};
use crate::section::{Better, Common, Figure, OTHERS, Sample, Section, percentile};
use crate::tunnels::Tunnel;
use crate::usage::Window;
use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::thread::set_current_timer_slack;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Time for the path to get warm before it counts.
pub(crate) const WARM_UP: Duration = Duration::from_millis(250);

/// How long a message may take before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The median.
pub(crate) const P50: Figure = Figure { name: "p50 µs", better: Better::Less, digits: 0 };
/// What one in a hundred exceeds.
pub(crate) const P99: Figure = Figure { name: "p99 µs", better: Better::Less, digits: 0 };
/// What one in a thousand exceeds.
pub(crate) const P999: Figure = Figure { name: "p99.9 µs", better: Better::Less, digits: 0 };

/// The section's heading.
pub(crate) const TITLE: &str = "Latency";

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Messages a second.
    #[arg(long, default_value_t = 2000)]
    pub(crate) rate: u32,
    /// Bytes of a message; at least 16.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
}

/// Measures what was asked for.
///
/// # Errors
/// When an option is wrong; a tunnel's failure is a result.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let method = format!(
        "{} B there and back on one connection, {} times a second for {} s. A message's time counts from the moment at \
         which it was due, not from the one at which it could be sent, so that a stall counts for all messages that it \
         delayed.",
        options.size, options.rate, options.common.seconds,
    );
    let section = Section::new(TITLE, method, &[P50, P99, P999, OTHERS]);
    section.contest(&options.common, async |tunnel| measure(tunnel, options).await).await
}

/// One measurement of a tunnel.
///
/// # Errors
/// When it cannot be started, or a stream fails.
pub(crate) async fn measure(tunnel: &dyn Tunnel, options: &Options) -> Result<Vec<Sample>> {
    let app = App::start()?;
    let pair = Pair::start(tunnel, app.addr, None).await?;
    let pace = Pace { rate: options.rate, size: options.size, duration: options.common.duration() };
    let case = format!("{} B at {}/s", options.size, options.rate);
    block_in_place(|| pace.samples(&pair, &case)).with_context(|| pair.log_tails())
}

/// A schedule of messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Messages a second.
    pub(crate) rate: u32,
    /// Bytes of each.
    pub(crate) size: usize,
    /// For how long.
    pub(crate) duration: Duration,
}

impl Pace {
    /// Sends messages through a pair, and gives the percentiles of their times.
    ///
    /// # Errors
    /// When the connection ends, or something else comes back.
    pub(crate) fn samples(self, pair: &Pair, case: &str) -> Result<Vec<Sample>> {
        let family = || pair.pids();
        let window = Window::open(&family);
        let mut times = self.times(pair.addr)?;
        let others = Sample::new(case, OTHERS, window.close().others);
        Ok(percentiles(&mut times, case).chain([others]).collect())
    }

    /// Seconds from when each message was due until it was back.
    ///
    /// # Errors
    /// As [`samples`](Self::samples).
    pub(crate) fn times(self, near: SocketAddr) -> Result<Vec<f64>> {
        ensure!(self.size >= 16 && self.rate > 0, "a message has at least 16 bytes, and a second at least one message");
        let mut socket = TcpStream::connect(near)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let period = 1.0 / f64::from(self.rate);
        let count = |duration: Duration| (duration.as_secs_f64() * f64::from(self.rate)).round() as u64;
        let (warm_up, all) = (count(WARM_UP), count(WARM_UP + self.duration));
        let start = Instant::now();
        let due = |number: u64| start + Duration::from_secs_f64(number as f64 * period);
        let mut sender = socket.try_clone()?;
        let mut times = Vec::with_capacity((all - warm_up) as usize);
        thread::scope(|scope| {
            let sending = scope.spawn(move || -> Result<()> {
                // The kernel would else bundle wake-ups and be some 50 µs late for each.
                set_current_timer_slack(NonZeroU64::new(1))?;
                for number in 0..all {
                    thread::sleep(due(number).saturating_duration_since(Instant::now()));
                    sender.write_all(&self.message(number))?;
                }
                Ok(())
            });
            let mut message = vec![0; self.size];
            for number in 0..all {
                socket.read_exact(&mut message).with_context(|| format!("message {number} does not come back"))?;
                let time = due(number).elapsed().as_secs_f64();
                ensure!(message == self.message(number), "message {number} came back as something else");
                if number >= warm_up {
                    times.push(time);
                }
            }
            sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
        })?;
        Ok(times)
    }

    fn message(self, number: u64) -> Vec<u8> {
        let mut message = vec![FILLING; self.size];
        message[8..16].copy_from_slice(&number.to_le_bytes());
        message
    }
}

/// What messages took, from their times in seconds.
pub(crate) fn percentiles(times: &mut [f64], case: &str) -> impl Iterator<Item = Sample> {
    let figures = [(P50, 0.5), (P99, 0.99), (P999, 0.999)];
    figures
        .into_iter()
        .filter_map(move |(figure, share)| Some(Sample::new(case, figure, percentile(times, share)? * 1e6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_on_schedule_is_timed() {
        let app = App::start().unwrap();
        let pace = Pace { rate: 1000, size: 64, duration: Duration::from_millis(100) };
        assert_eq!(pace.times(app.addr).unwrap().len(), 100);
    }
}
