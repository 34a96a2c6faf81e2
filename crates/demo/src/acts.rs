//! What happens to the topology while checked traffic runs over it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::screen::Screen;
use crate::survival::{self, Survival};
use crate::telemetry;
use crate::topology::Topology;
use crate::traffic::Traffic;

/// What an act has at hand.
pub(crate) struct Stage<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) topology: &'a Topology,
    pub(crate) traffic: &'a Traffic,
    /// How long the traffic is to run undisturbed.
    pub(crate) undisturbed: Duration,
    /// What the checked stream lived through, once it has.
    pub(crate) survival: Option<Survival>,
}

/// Something that happens, under a title. The traffic's account shows afterwards what it cost.
pub(crate) struct Act {
    pub(crate) title: &'static str,
    pub(crate) play: for<'a> fn(&'a mut Stage<'_>) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// The acts, in order.
pub(crate) const ACTS: &[Act] = &[
    Act {
        title: "This machine's telemetry, ten samples a second, in both directions at once",
        play: |stage| Box::pin(undisturbed(stage)),
    },
    Act {
        title: "What happens between the clusters, under telemetry and a checked byte stream",
        play: |stage| Box::pin(disturbed(stage)),
    },
];

/// Lets the traffic run.
async fn undisturbed(stage: &Stage<'_>) -> anyhow::Result<()> {
    let start = Instant::now();
    let end = start + stage.undisturbed;
    let mut count = stage.traffic.count();
    let mut next = start;
    while Instant::now() < end {
        let done = start.elapsed().as_secs_f64() / stage.undisturbed.as_secs_f64();
        let now = *count.borrow_and_update();
        stage.screen.progress(done, &format!("{} sent, {} arrived", now.sent, now.arrived));
        next = (next + telemetry::EVERY).min(end);
        sleep_until(next).await;
    }
    Ok(())
}

/// Lets everything happen between the clusters that may.
async fn disturbed(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.survival = Some(survival::play(stage.screen, stage.topology).await?);
    Ok(())
}
