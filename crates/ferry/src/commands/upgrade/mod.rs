//! `ferry upgrade DIR --image IMAGE`: another image for the tunnels of a bundle, in the pods that run.

mod replace;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Context as _, bail};
use owo_colors::OwoColorize as _;

use super::bundle;
use crate::exit::{Usage, chain};
use crate::{kubectl, process};
use ferry_bundle::upgrade::{FoundPod, Overlay, Place, Rollout, TunnelSite, find, is_image, overlay};

const EXAMPLES: &str = "\
Examples:
  ferry upgrade ferry-bundle --image registry.example.com/ferry:0.2.0
  ferry upgrade ferry-bundle --image ferry:0.2.0 --only initiator
  ferry upgrade ferry-bundle --image ferry:0.2.0 --dry-run     the commands that it would run

Goes from pod to pod. In each it changes the image of the tunnel's container alone, which the kubelet then replaces; sessions
are with the keeper meanwhile, and continue. An image that does not come up is given up, and the one before put back. Then the
Deployment gets the image too, for the next pod, without replacing this one.

The nodes should have the image already if it takes long to pull: the tunnel does not run while they pull it.";

/// Replace the tunnels of a bundle's running pods by another image; sessions continue.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The bundle, as `ferry bundle` wrote it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The image with ferry in it, for all tunnels.
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Only this pod of the blueprint; may be repeated.
    #[arg(long, value_name = "POD")]
    only: Vec<String>,
    /// How long a tunnel may take to serve with the new image. Shorter than `resume.window`.
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = super::duration)]
    wait: Duration,
    /// Also where sessions would be lost: in gateways, and in pods without a keeper.
    #[arg(long)]
    lose_sessions: bool,
    /// Show the commands, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What was there before has at least this long to be there again.
const PUT_BACK_TIMEOUT: Duration = Duration::from_secs(90);

/// A pod that is to have the image.
struct Candidate {
    site: TunnelSite,
    pod: FoundPod,
}

/// Looks at all of them, and then replaces one after the other.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if !is_image(&args.image) {
        return Err(Usage(format!("{:?} cannot be the name of an image", args.image)).into());
    }
    let (blueprint, _) = bundle::read(&args.dir.join("blueprint.yaml"))?;
    let mut sites = blueprint.tunnels();
    if let Some(unknown) = args.only.iter().find(|only| sites.iter().all(|site| site.pod != **only)) {
        let known: Vec<_> = sites.iter().map(|site| site.pod.as_str()).collect();
        return Err(Usage(format!("the blueprint has no pod {unknown:?}; it has {}", known.join(", "))).into());
    }
    sites.retain(|site| args.only.is_empty() || args.only.contains(&site.pod));
    process::unless_stopped(async {
        if args.dry_run {
            dry_run(&args, &sites).await;
            return Ok(());
        }
        // All are looked at before one is touched.
        let (mut candidates, mut refused) = (Vec::new(), Vec::new());
        for site in sites {
            match look(&args, &site).await {
                Ok(found) => candidates.extend(found.into_iter().map(|pod| Candidate { site: site.clone(), pod })),
                Err(error) => refused.push(format!("{} ({}): {}", site.pod, site.cluster, chain(&error))),
            }
        }
        if !refused.is_empty() {
            bail!("nothing was changed:\n  {}", refused.join("\n  "));
        }
        let count = candidates.len();
        for (done, candidate) in candidates.iter().enumerate() {
            let name = format!("{} ({})", candidate.site.pod, candidate.site.cluster);
            eprintln!("{} {name}", format!("[{}/{count}]", done + 1).bold());
            let upgraded = upgrade(&args, candidate).await;
            upgraded.with_context(|| format!("{name}: {} of {count} pods have the image", done))?;
            println!("{} {name} runs {}", "✓".green(), args.image);
        }
        Ok(())
    })
    .await
}

async fn upgrade(args: &Args, Candidate { site, pod }: &Candidate) -> anyhow::Result<()> {
    replace::replace(site, pod, &args.image, args.wait).await?;
    let set =
        pod.replica_set.as_deref().context("no ReplicaSet has made the pod: its image was changed in it alone")?;
    template::change(site, pod.place, set, &args.image, args.wait).await?;
    keep(args, site, pod.place)
}

/// The pods of a site, if they can be upgraded.
async fn look(args: &Args, site: &TunnelSite) -> anyhow::Result<Vec<FoundPod>> {
    let context = &site.context;
    if kubectl::call(&site.context_query()).await.map_or(true, |name| name.trim().is_empty()) {
        bail!(
            "kubectl has no context {context}; write the right one under clusters in blueprint.yaml and run `ferry bundle` again"
        );
    }
    let listed = kubectl::call(&site.pods()).await.map_err(anyhow::Error::from);
    let listed = listed.with_context(|| format!("the cluster behind context {context} does not say which pods run"))?;
    let found = find(&listed).map_err(anyhow::Error::msg).context("kubectl printed no list of pods")?;
    let Some(first) = found.first() else {
        bail!("no pod of it runs in {}; `ferry deploy` starts one", site.namespace);
    };
    if let Some((pod, unkept)) = found.iter().find_map(|pod| Some((pod, pod.unkept?)))
        && !args.lose_sessions
    {
        let open =
            replace::ask(site, &pod.name).await.map_or(String::new(), |said| format!(" ({} now)", said.sessions));
        bail!("{unkept}{open}; with --lose-sessions it is replaced all the same");
    }
    let text = kubectl::call(&site.deployment()).await.map_err(anyhow::Error::from)?;
    let rollout = Rollout::parse(&text, first.place).map_err(anyhow::Error::msg).context("its Deployment")?;
    // One that was left paused by an upgrade that was interrupted has the image already.
    if rollout.is_paused && rollout.image != args.image {
        bail!("somebody has paused its Deployment; `kubectl rollout resume` lets it continue");
    }
    if !rollout.is_paused && !rollout.is_complete {
        bail!("its Deployment is replacing pods; wait until it has done that");
    }
    Ok(found)
}

/// Has the deploy scripts of the bundle keep the image.
fn keep(args: &Args, site: &TunnelSite, place: Place) -> anyhow::Result<()> {
    let dir = args.dir.join("overlays").join(&site.pod);
    let file = dir.join("kustomization.yaml");
    let there = fs::read_to_string(&file).ok().or_else(|| dir.exists().then(String::new));
    match overlay(site, place, &args.image, there.as_deref()) {
        Overlay::None => {}
        Overlay::Write(text) => {
            let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, text));
            written.with_context(|| format!("cannot write {}", file.display()))?;
            eprintln!("{} has the deploy scripts keep the image", shown(&file));
        }
        Overlay::Remove => {
            // What is left of it keeps what it says: that is shown when it is applied.
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            eprintln!("{} is not needed any more, and was removed", shown(&dir));
        }
        Overlay::Others(patches) => eprintln!(
            "{} the next deployment puts {} back, in another pod, unless you add to {}:\n{patches}",
            "warning:".yellow().bold(),
            site.image,
            shown(&file),
        ),
    }
    Ok(())
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// Shows the commands. Where no cluster says how pods are called, that is left open.
async fn dry_run(args: &Args, sites: &[TunnelSite]) {
    for site in sites {
        let found = look(args, site).await.unwrap_or_else(|error| {
            eprintln!("{} {} ({}): {}", "warning:".yellow().bold(), site.pod, site.cluster, chain(&error));
            Vec::new()
        });
        let pod = found.first();
        let name = pod.map_or("POD", |pod| &pod.name);
        let set = pod.map_or("REPLICASET", |pod| pod.replica_set.as_deref().unwrap_or("REPLICASET"));
        let place = pod.map_or(site.place, |pod| pod.place);
        for command in [
            site.patch_pod(name, place, &args.image),
            site.pods(),
            site.patch_deployment(place, &args.image),
            site.patch_replica_set(set, place, &args.image),
            site.deployment(),
            site.resume(),
        ] {
            println!("+ {}", kubectl::line(&command));
        }
    }
}
