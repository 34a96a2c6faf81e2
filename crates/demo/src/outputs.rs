//! What both web-apps show in `/output`, and whether it is what was sent.

use std::time::Duration;

use serde_json::Value;

use crate::check::{Findings, ensure, once_and_in_order};
use crate::topology::{AUTO_TRIGGER, Cluster, Topology};
use crate::traffic::{Account, Direction};
use ferry::client::{Arrival, Base, OutputReader, Read};

/// A result with its payload parsed.
pub(crate) type Received = Arrival<Value>;

/// The outputs of both ends.
pub(crate) struct Outputs {
    /// At the terminator: what the initiator's cluster sent.
    pub(crate) forward: Vec<Received>,
    /// At the initiator.
    pub(crate) backward: Vec<Received>,
}

impl Outputs {
    /// Reads them both to their end.
    pub(crate) async fn read(topology: &Topology) -> anyhow::Result<Self> {
        let (forward, backward) =
            tokio::try_join!(read(&topology.terminator.web_app), read(&topology.initiator.web_app))?;
        Ok(Self { forward, backward })
    }

    /// Checks them against what was sent.
    pub(crate) fn check(&self, topology: &Topology, account: &Account, findings: &mut Findings) {
        let (a, b) = (&topology.initiator, &topology.terminator);
        let (auto_trigger, telemetry) = self.forward.split_at(AUTO_TRIGGER.min(self.forward.len()));
        findings.note(
            format!("the {AUTO_TRIGGER} messages of the auto-trigger are the first in {}'s output, in order", b.id),
            numbered(auto_trigger),
        );
        let directions = [(a, b, &account.forward, telemetry), (b, a, &account.backward, &self.backward[..])];
        for (from, to, direction, results) in directions {
            findings.note(
                format!("{} messages from {} to {}: every one once and in order", direction.count(), from.id, to.id),
                delivered(direction, results),
            );
        }
        findings.note(
            "every result has both pods in its trail",
            trails(&self.forward, [a, b]).and_then(|()| trails(&self.backward, [b, a])),
        );
    }

    /// Bytes of payload that arrived at the terminator and at the initiator.
    pub(crate) fn payload_bytes(&self) -> (u64, u64) {
        let bytes = |results: &[Received]| results.iter().map(|result| result.payload.to_string().len() as u64).sum();
        (bytes(&self.forward), bytes(&self.backward))
    }
}

async fn read(base: &Base) -> anyhow::Result<Vec<Received>> {
    let mut output = OutputReader::new(base.clone(), None, None)?;
    let mut results = Vec::new();
    loop {
        match output.next().await? {
            Read::Results(page) if page.is_empty() => return Ok(results),
            Read::Results(page) => {
                for result in page {
                    results.push(serde_json::from_str(result.get())?);
                }
            }
            Read::Missed => anyhow::bail!("{base}/output dropped results while it was read"),
        }
    }
}

fn numbered(results: &[Received]) -> Result<(), String> {
    let got: Vec<_> = results.iter().map(|result| result.payload["n"].as_u64().unwrap_or_default()).collect();
    let expected: Vec<_> = (1..=AUTO_TRIGGER as u64).collect();
    ensure(got == expected, || format!("their numbers are {got:?}"))
}

/// The ids are those that the near web-app gave, and behind each is the message that it gave it for.
fn delivered(direction: &Direction, results: &[Received]) -> Result<(), String> {
    ensure(direction.refused.is_empty(), || direction.refused.join("; "))?;
    ensure(direction.ids.len() == direction.count(), || format!("{} were accepted", direction.ids.len()))?;
    let ids: Vec<_> = results.iter().map(|result| result.id.clone()).collect();
    once_and_in_order(&direction.ids, &ids)?;
    let numbers = results.iter().map(|result| result.payload["telemetry"].as_u64());
    let wrong = numbers.enumerate().find(|(i, number)| *number != Some(*i as u64));
    ensure(wrong.is_none(), || format!("the payloads do not match their ids, first at {wrong:?}"))?;
    ensure(direction.delivered == direction.count(), || format!("{} were confirmed", direction.delivered))
}

fn trails(results: &[Received], way: [&Cluster; 2]) -> Result<(), String> {
    let expected = way.map(|cluster| (cluster.pod.as_str(), cluster.id));
    let wrong = results
        .iter()
        .find(|result| !result.trail.iter().map(|hop| (hop.pod.as_str(), hop.cluster.as_str())).eq(expected));
    match wrong {
        None => Ok(()),
        Some(result) => Err(format!("{} came by {}", result.id, render_trail(result))),
    }
}

/// A trail on a line: `pod@cluster → pod@cluster`.
pub(crate) fn render_trail(result: &Received) -> String {
    let hops: Vec<_> = result.trail.iter().map(|hop| format!("{}@{}", hop.pod, hop.cluster)).collect();
    hops.join(" → ")
}

/// How long the way took by the clocks of the pods, which here are one clock; to the millisecond.
pub(crate) fn hop_time(result: &Received) -> Option<Duration> {
    let at = |index: usize| humantime::parse_rfc3339(&result.trail.get(index)?.at).ok();
    at(result.trail.len().checked_sub(1)?)?.duration_since(at(0)?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(id: usize, payload: Value) -> Received {
        let hop = |pod: &str, at: &str| json!({"pod": pod, "cluster": format!("in {pod}"), "at": at});
        let trail = json!([hop("p", "2025-01-01T00:00:00.998Z"), hop("q", "2025-01-01T00:00:01.001Z")]);
        serde_json::from_value(json!({"id": id.to_string(), "payload": payload, "trail": trail})).unwrap()
    }

    fn telemetry(numbers: &[usize]) -> Vec<Received> {
        numbers.iter().map(|n| result(*n, json!({"telemetry": n}))).collect()
    }

    #[test]
    fn only_what_was_sent_once_and_in_order_counts_as_delivered() {
        let direction = Direction::confirmed(&["0", "1", "2"]);
        let found = |results: Vec<Received>| delivered(&direction, &results).err().unwrap_or_default();
        assert_eq!(found(telemetry(&[0, 1, 2])), "");
        assert!(found(telemetry(&[0, 2])).contains("1 missing"));
        assert!(found(telemetry(&[0, 1, 1, 2])).contains("1 doubled"));
        assert!(found(telemetry(&[0, 2, 1])).contains("out of order"));
        let mut swapped = telemetry(&[0, 1, 2]);
        swapped[1].payload = json!({"telemetry": 2});
        assert!(found(swapped).contains("do not match their ids"));
    }

    #[test]
    fn the_auto_triggers_messages_are_recognised_by_their_numbers() {
        let results: Vec<_> = (1..=AUTO_TRIGGER).map(|n| result(n, json!({"n": n}))).collect();
        assert_eq!(numbered(&results), Ok(()));
        assert!(numbered(&results[1..]).is_err());
    }

    #[test]
    fn a_trail_is_shown_with_its_pods_and_its_time() {
        let result = result(0, json!({}));
        assert_eq!(render_trail(&result), "p@in p → q@in q");
        assert_eq!(hop_time(&result), Some(Duration::from_millis(3)));
    }
}
