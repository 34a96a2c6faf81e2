//! What both tunnels say of the session between them, and whether that is what the demo claims.

use crate::check::{Findings, ensure};
use crate::outputs::Outputs;
use crate::status::{Session, Status};
use crate::topology::{Topology, WEB_APP};

/// The only key exchange that links use.
const KEY_EXCHANGE: &str = "X25519MLKEM768";

/// The sessions between the web-apps, as each end sees them.
pub(crate) struct Tunnels {
    /// At the initiator's tunnel.
    pub(crate) near: Vec<Session>,
    /// At the terminator's tunnel.
    pub(crate) far: Vec<Session>,
}

impl Tunnels {
    /// Asks both tunnels.
    pub(crate) async fn read(topology: &Topology) -> anyhow::Result<Self> {
        let (a, b) = (&topology.initiator, &topology.terminator);
        let (near, far) = tokio::try_join!(Status::read(a.admin), Status::read(b.admin))?;
        Ok(Self { near: near.sessions_of(WEB_APP, b.tunnel), far: far.sessions_of(WEB_APP, a.tunnel) })
    }

    /// Checks that what arrived came through them, and how it was protected.
    pub(crate) fn check(&self, outputs: &Outputs, findings: &mut Findings) {
        let ids = |sessions: &[Session]| sessions.iter().map(|session| session.id.clone()).collect::<Vec<_>>();
        let (near, far) = (ids(&self.near), ids(&self.far));
        findings.note(
            "one session carried all of it, and both tunnels know it by the same id",
            ensure(near.len() == 1 && near == far, || format!("cluster-a has {near:?}, cluster-b {far:?}")),
        );
        let exchanges: Vec<_> =
            self.near.iter().chain(&self.far).map(|session| session.key_exchange.as_str()).collect();
        findings.note(
            format!("its keys come from {KEY_EXCHANGE}, at both ends"),
            ensure(exchanges.len() >= 2 && exchanges.iter().all(|exchange| *exchange == KEY_EXCHANGE), || {
                format!("the tunnels say {exchanges:?}")
            }),
        );
        findings.note("every byte of payload went through the tunnels", self.covers(outputs));
    }

    /// Whether the sessions carried at least the payloads. They also carry the framing and the acknowledgements.
    fn covers(&self, outputs: &Outputs) -> Result<(), String> {
        let (forward, backward) = outputs.payload_bytes();
        let sum = |sessions: &[Session], bytes: fn(&Session) -> u64| sessions.iter().map(bytes).sum::<u64>();
        let counters = [
            ("cluster-a sent", sum(&self.near, |session| session.sent), forward),
            ("cluster-b received", sum(&self.far, |session| session.received), forward),
            ("cluster-b sent", sum(&self.far, |session| session.sent), backward),
            ("cluster-a received", sum(&self.near, |session| session.received), backward),
        ];
        let short = counters.iter().find(|(_, carried, payload)| carried < payload);
        match short {
            None => Ok(()),
            Some((what, carried, payload)) => {
                Err(format!("{what} {carried} bytes through its tunnel, but the payloads took {payload}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Screen;

    fn session(id: &str, key_exchange: &str, bytes: u64) -> Session {
        serde_json::from_value(serde_json::json!({
            "id": id, "peer": "p", "service": "s", "epoch": 1, "key_exchange": key_exchange, "cipher": "c", "key_age_seconds": 1.5,
            "sent": bytes, "received": bytes,
        }))
        .unwrap()
    }

    /// What the demo says if the tunnels say this after a payload of 7 bytes in each direction.
    fn verdict(near: Vec<Session>, far: Vec<Session>) -> String {
        let arrival =
            serde_json::from_value(serde_json::json!({"id": "i", "payload": {"n": 10}, "trail": []})).unwrap();
        let outputs = Outputs { forward: vec![arrival], backward: Vec::new() };
        let mut findings = Findings::new(Screen::new().unwrap());
        Tunnels { near, far }.check(&outputs, &mut findings);
        findings.verdict().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn tunnels_that_did_not_carry_it_or_protect_it_are_found_out() {
        let good = || vec![session("1", KEY_EXCHANGE, 8)];
        assert_eq!(verdict(good(), good()), "");
        assert!(verdict(Vec::new(), Vec::new()).contains("one session carried all of it"));
        assert!(
            verdict(good(), vec![session("2", KEY_EXCHANGE, 8)]).contains(r#"cluster-a has ["1"], cluster-b ["2"]"#)
        );
        assert!(
            verdict(good(), vec![session("1", "X25519", 8)])
                .contains(r#"the tunnels say ["X25519MLKEM768", "X25519"]"#)
        );
        let short = verdict(good(), vec![session("1", KEY_EXCHANGE, 7)]);
        assert!(short.contains("cluster-b received 7 bytes through its tunnel, but the payloads took 8"), "{short}");
    }
}
