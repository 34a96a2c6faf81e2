//! Lines of JSON from standard input.

use std::io::{self, BufRead};
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::mpsc;

use ferry_app::{MAX_PAYLOAD_BYTES, Payload};

/// The longest line, in bytes: the most that a web-app takes as a trigger.
const LINE_MAX: usize = MAX_PAYLOAD_BYTES;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Lines read ahead.
const AHEAD: usize = 256;

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// The JSON object in it, as it stands there; or what is wrong.
    pub(super) payload: anyhow::Result<String>,
}

/// Reads standard input on a thread of its own, which is not waited for: a terminal may never end.
pub(super) fn from_stdin() -> mpsc::Receiver<Line> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    thread::spawn(move || forward(io::stdin().lock(), &lines));
    receiver
}

fn forward(mut input: impl BufRead, lines: &mpsc::Sender<Line>) {
    for number in 1.. {
        let payload = match read_line(&mut input).context("cannot read standard input") {
            Ok(None) => return,
            Ok(Some(mut line)) => {
                // As at the start of a tunnel.yaml: some editors put it there.
                if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                    line.drain(..BYTE_ORDER_MARK.len());
                }
                if line.trim_ascii().is_empty() {
                    continue;
                }
                parse(line)
            }
            Err(error) => {
                let _ = lines.blocking_send(Line { number, payload: Err(error) });
                return;
            }
        };
        // An error means that nobody sends any more.
        if lines.blocking_send(Line { number, payload }).is_err() {
            return;
        }
    }
}

/// The next line without its end, or as much of it as shows that it is too long.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let room = (LINE_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

fn parse(line: Vec<u8>) -> anyhow::Result<String> {
    if line.len() > LINE_MAX {
        bail!("longer than {LINE_MAX} bytes, which is the most that a web-app takes; send less at a time");
    }
    let text = String::from_utf8(line).context("not UTF-8")?;
    // The web-app's own check, so that it refuses nothing that passes here.
    Payload::parse(text.as_str()).map_err(|error| anyhow!("not a JSON object: this is {error}"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Vec<(u64, Result<String, String>)> {
        let (sender, mut receiver) = mpsc::channel(100);
        forward(input, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|line| (line.number, line.payload.map_err(|error| error.to_string())))
            .collect()
    }

    #[test]
    fn good_lines_pass_and_bad_ones_keep_their_number() {
        let lines = read(b"{\"n\": 1}\n\n  {\"n\":2} \r\n[3]\n{\"n\":\n\xff\n{\"n\": 6}");
        let good: Vec<_> = lines.iter().filter_map(|(number, line)| Some((*number, line.clone().ok()?))).collect();
        assert_eq!(good, [(1, "{\"n\": 1}".into()), (3, "{\"n\":2}".into()), (7, "{\"n\": 6}".into())]);
        let bad: Vec<_> = lines.iter().filter_map(|(number, line)| Some((*number, line.clone().err()?))).collect();
        assert_eq!(bad[0], (4, "not a JSON object: this is an array".into()));
        assert_eq!(bad[1].0, 5);
        assert_eq!(bad[2], (6, "not UTF-8".into()));
    }

    #[test]
    fn a_byte_order_mark_in_front_of_the_first_line_does_not_count() {
        let lines = read(b"\xef\xbb\xbf{\"n\": 1}\n\xef\xbb\xbf{\"n\": 2}\n");
        assert_eq!(lines[0], (1, Ok("{\"n\": 1}".into())));
        assert!(lines[1].1.is_err());
        assert_eq!(read(b"\xef\xbb\xbf\n{}")[0].0, 2);
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_only() {
        let mut input = b"{\"n\": \"".to_vec();
        input.resize(3 * LINE_MAX, b'x');
        input.extend_from_slice(b"\"}\n{\"n\": 2}\n");
        let lines = read(&input);
        assert!(lines[0].1.as_ref().unwrap_err().contains("longer than 1048576 bytes"));
        assert_eq!(lines[1], (2, Ok("{\"n\": 2}".into())));
        assert_eq!(lines.len(), 2);
    }
}
