//! What both tunnels say of the session between them, and whether that is what the demo claims.

use super::{
    check::{Findings, ensure},
    outputs::Outputs,
    status::{Session, Status},
    topology::Topology,
};

/// The only key exchange that links use.
const KEY_EXCHANGE: &str = "X25519MLKEM768";

/// The sessions as each end sees them.
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
        let with = |status: Status, peer: &str| -> Vec<_> {
            status.sessions.into_iter().filter(|session| session.peer == peer).collect()
        };
        Ok(Self { near: with(near, b.tunnel), far: with(far, a.tunnel) })
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
