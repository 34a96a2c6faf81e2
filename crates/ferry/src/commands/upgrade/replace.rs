//! Another image for the container of one pod, or the one before again.

use std::time::Duration;

use anstream::eprintln;
use anyhow::{Context as _, anyhow, bail};
use tokio::time::{Instant, sleep};

use super::PUT_BACK_TIMEOUT;
use crate::admin::{Endpoint, Place, Status, plural};
use crate::exit::chain;
use crate::kubectl::{self, Failure};
use ferry_bundle::upgrade::{Container, FoundPod, TunnelSite, find};

/// Between two looks at a pod.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a container that is replaced.
enum End {
    Serves,
    /// It does not, and why.
    Fails(String),
    /// The pod is not there any more.
    Gone,
}

/// What a tunnel says of its sessions.
pub(super) struct Said {
    version: String,
    pub(super) sessions: usize,
    adopted: u64,
    dropped: u64,
}

/// Has the tunnel's container run `image`, unless it does.
pub(super) async fn replace(site: &TunnelSite, pod: &FoundPod, image: &str, wait: Duration) -> anyhow::Result<()> {
    if pod.image == image && pod.container.is_ready {
        eprintln!("{} runs it already", pod.name);
        return Ok(());
    }
    let before = ask(site, &pod.name).await.ok();
    match patch_and_wait(site, pod, image, &pod.container, wait).await? {
        End::Serves => return continued(before.as_ref(), ask(site, &pod.name).await),
        End::Gone => Err(gone(site, pod)),
        End::Fails(why) if pod.image == image => bail!("{image} does not serve: {why}; look at: {}", site.describe()),
        End::Fails(why) => {
            eprintln!("{image} does not serve: {why}; putting {} back", pod.image);
            let back = put_back(site, pod, wait).await.context(format!("{image} does not serve: {why}"))?;
            bail!("{image} does not serve: {why}; {} was put back{back}", pod.image);
        }
    }
}

/// Says what became of sessions with the image before.
async fn put_back(site: &TunnelSite, pod: &FoundPod, wait: Duration) -> anyhow::Result<String> {
    let wait = wait.max(PUT_BACK_TIMEOUT);
    let now = look(site, &pod.name).await?.context("the pod is gone")?;
    match patch_and_wait(site, pod, &pod.image, &now.container, wait).await? {
        End::Serves => Ok(match ask(site, &pod.name).await {
            Ok(said) => format!("; {} continued", plural(said.adopted, "session")),
            Err(_) => String::new(),
        }),
        End::Gone => Err(gone(site, pod)),
        End::Fails(why) => bail!("{} was put back, and does not serve: {why}; look at: {}", pod.image, site.describe()),
    }
}

async fn patch_and_wait(
    site: &TunnelSite,
    pod: &FoundPod,
    image: &str,
    before: &Container,
    wait: Duration,
) -> anyhow::Result<End> {
    match kubectl::call(&site.patch_pod(&pod.name, pod.place, image)).await {
        Ok(_) => {}
        Err(Failure::NotFound(_)) => return Ok(End::Gone),
        Err(Failure::Other(error)) => return Err(error.context("its pod cannot be changed")),
    }
    let until = Instant::now() + wait;
    loop {
        let why = match look(site, &pod.name).await {
            Ok(None) => return Ok(End::Gone),
            Ok(Some(now)) => {
                let container = now.container;
                if container.is_ready && container.id != before.id {
                    return Ok(End::Serves);
                }
                match container.waiting {
                    // The kubelet may not have seen the change yet: then it speaks of the image before.
                    Some(waiting) if waiting.is_hopeless() && before.waiting.as_ref() != Some(&waiting) => {
                        return Ok(End::Fails(waiting.to_string()));
                    }
                    Some(waiting) => waiting.to_string(),
                    None if container.id == before.id => "its container has not been replaced".to_owned(),
                    None => "it is not ready".to_owned(),
                }
            }
            // The API server may be away for a moment.
            Err(error) => chain(&error),
        };
        if Instant::now() + LOOK_INTERVAL > until {
            return Ok(End::Fails(format!("not within {}: {why}", ferry_units::render_duration(wait))));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// The pod as it is now, if it is there.
async fn look(site: &TunnelSite, name: &str) -> anyhow::Result<Option<FoundPod>> {
    let text = kubectl::call(&site.pods()).await.map_err(anyhow::Error::from)?;
    Ok(find(&text).map_err(anyhow::Error::msg)?.into_iter().find(|pod| pod.name == name))
}

fn gone(site: &TunnelSite, pod: &FoundPod) -> anyhow::Error {
    anyhow!(
        "the pod {} is gone: something else has replaced it, and its sessions ended with it; run this again for its successor, \
         or look at: {}",
        pod.name,
        site.describe()
    )
}

/// Asks the tunnel in a pod.
pub(super) async fn ask(site: &TunnelSite, pod: &str) -> anyhow::Result<Said> {
    let endpoint = Endpoint::in_pod(Place::of(pod, &site.namespace, &site.context)).await?;
    let status = Status::parse(&endpoint.status(Some(0), REQUEST_TIMEOUT).await?, endpoint.url())?;
    let metrics = endpoint.metrics(REQUEST_TIMEOUT).await?;
    let count = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("it has no metric {name}"))
    };
    Ok(Said {
        version: status.ferry,
        sessions: status.totals.sessions,
        adopted: count("ferry_sessions_adopted_total ")?,
        dropped: count("ferry_sessions_dropped_total ")?,
    })
}

/// Whether its sessions were continued.
fn continued(before: Option<&Said>, after: anyhow::Result<Said>) -> anyhow::Result<()> {
    let after = match after {
        Ok(after) => after,
        Err(error) => {
            eprintln!("it serves, but cannot be asked for its sessions: {}", chain(&error));
            return Ok(());
        }
    };
    let was = before.map_or(String::new(), |before| format!("{} → ", before.version));
    eprintln!("ferry {was}{}: {} continued", after.version, plural(after.adopted, "session"));
    match (before, after.dropped) {
        (_, dropped @ 1..) => bail!(
            "{} could not be continued, and were reset; the log of the tunnel says why",
            plural(dropped, "session")
        ),
        (Some(before), 0) if before.sessions > 0 && after.adopted == 0 => bail!(
            "none of {} was continued: the new tunnel has found nothing in its keeper; its log says why",
            plural(before.sessions as u64, "session")
        ),
        _ => Ok(()),
    }
}
