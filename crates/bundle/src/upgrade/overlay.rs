//! The overlay that makes a bundle's deploy scripts keep another image: they would put their own back, with another pod.

use serde_json::json;

use super::{Place, TunnelSite};
use crate::render::TUNNEL_CONTAINER;

/// What the file begins with, by which it is known to be ours.
const MARK: &str = "# Written by `ferry upgrade`";

/// What becomes of the overlay of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// Its `kustomization.yaml`, which is ours, has this text from now on.
    Write(String),
    /// It was ours, and is not needed any more.
    Remove,
    /// None is needed.
    None,
    /// There is one that somebody else wrote; this patch belongs into it.
    Others(String),
}

/// The overlay of a pod whose tunnel has `image`. `there` is its `kustomization.yaml`, if it has one.
pub fn overlay(site: &TunnelSite, place: Place, image: &str, there: Option<&str>) -> Overlay {
    let is_ours = there.is_none_or(|text| text.starts_with(MARK));
    match (is_ours, there) {
        (true, None) if image == site.image => Overlay::None,
        (true, Some(_)) if image == site.image => Overlay::Remove,
        (true, _) => Overlay::Write(format!(
            "{MARK}, so that the deploy scripts keep this image of the tunnel.\n\
             # Without it they put that of blueprint.yaml back, in another pod.\n\
             resources: [../../{}]\n{}",
            site.pod,
            patches(site, place, image)
        )),
        (false, _) => Overlay::Others(patches(site, place, image)),
    }
}

/// By its place in the list, as Kustomize would put a container that it finds by name in front of the others, and that would be
/// another template. It fails where another container is in this place.
fn patches(site: &TunnelSite, place: Place, image: &str) -> String {
    let index = match place {
        // Behind its keeper.
        Place::InitContainers => 1,
        Place::Containers => 0,
    };
    let container = format!("/spec/template/spec/{}/{index}", place.key());
    // JSON is YAML.
    let test = json!({"op": "test", "path": format!("{container}/name"), "value": TUNNEL_CONTAINER});
    let replace = json!({"op": "replace", "path": format!("{container}/image"), "value": image});
    format!(
        "patches:\n  - target: {{kind: Deployment, name: {}}}\n    patch: |\n      - {test}\n      - {replace}\n",
        site.pod
    )
}
