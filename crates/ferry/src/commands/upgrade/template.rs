//! The image of the next pod, without replacing the one that runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use super::PUT_BACK_TIMEOUT;
use crate::exit::chain;
use crate::kubectl;
use ferry_bundle::upgrade::{Place, Rollout, TunnelSite};

/// Between two looks at a Deployment.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Changes the template of the Deployment and of its ReplicaSet. If the Deployment does not take that for its own, both are put
/// back: else it would replace the pod.
pub(super) async fn change(
    site: &TunnelSite,
    place: Place,
    set: &str,
    image: &str,
    wait: Duration,
) -> anyhow::Result<()> {
    let rollout = look(site, place).await?;
    if !rollout.is_paused && rollout.image == image && rollout.is_complete {
        return Ok(());
    }
    let before = rollout.image;
    let changed = change_paused(site, place, set, image, wait).await;
    if let Err(error) = changed {
        // What was paused before has the image already, and none to be put back.
        if !rollout.is_paused {
            change_paused(site, place, set, &before, wait.max(PUT_BACK_TIMEOUT))
                .await
                .with_context(|| left_paused(site, &error))?;
            call(&site.resume()).await?;
        }
        return Err(
            error.context("the pod has the image, but the next one will not: the Deployment could not be changed")
        );
    }
    call(&site.resume()).await.with_context(|| "its Deployment is paused; `kubectl rollout resume` lets it continue")
}

fn left_paused(site: &TunnelSite, error: &anyhow::Error) -> String {
    format!(
        "the Deployment {} is paused, so that it does not replace the pod ({}); the image before could not be put back",
        site.pod,
        chain(error)
    )
}

/// Both templates have the image, and the Deployment says that all of its pods are of it.
async fn change_paused(site: &TunnelSite, place: Place, set: &str, image: &str, wait: Duration) -> anyhow::Result<()> {
    call(&site.patch_deployment(place, image)).await?;
    let until = Instant::now() + wait;
    // Its controller must have seen that it is paused before the ReplicaSet is another one.
    settled(site, place, until, |rollout| rollout.is_observed && rollout.is_paused).await?;
    call(&site.patch_replica_set(set, place, image)).await?;
    settled(site, place, until, |rollout| rollout.is_observed && rollout.is_complete).await
}

async fn settled(
    site: &TunnelSite,
    place: Place,
    until: Instant,
    is_there: impl Fn(&Rollout) -> bool,
) -> anyhow::Result<()> {
    loop {
        let seen = look(site, place).await;
        if seen.as_ref().is_ok_and(&is_there) {
            return Ok(());
        }
        if Instant::now() + LOOK_INTERVAL > until {
            return match seen {
                Ok(_) => bail!("its controller does not take the ReplicaSet that is there for its own"),
                Err(error) => Err(error),
            };
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn look(site: &TunnelSite, place: Place) -> anyhow::Result<Rollout> {
    let text = kubectl::call(&site.deployment()).await.map_err(anyhow::Error::from)?;
    Rollout::parse(&text, place).map_err(anyhow::Error::msg)
}

async fn call(arguments: &[String]) -> anyhow::Result<()> {
    kubectl::call(arguments).await.map(drop).map_err(anyhow::Error::from)
}
