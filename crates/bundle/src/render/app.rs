//! The `app/` of a pod: the hooks to start from, and how their image is built.

use super::site::Site;
use super::{Owner, fill};
use crate::{Bundle, Template};

const INITIATOR: &str = include_str!("../text/initiator.py");
const TERMINATOR: &str = include_str!("../text/terminator.py");
const DOCKERFILE: &str = include_str!("../text/app.Dockerfile");
const REQUIREMENTS: &str = "\
# Packages that app.py imports, one a line; the build installs them. With a --hash behind each (as `pip-compile
# --generate-hashes` writes them) pip takes nothing else.
";

/// The image that the images of pods are built on, by the Dockerfile of Ferry's own source.
pub(super) const BASE_IMAGE: &str = concat!("ferry-python:", env!("CARGO_PKG_VERSION"));

/// The image that gateways run, by the same Dockerfile: the binary alone.
pub(super) const GATEWAY_BASE_IMAGE: &str = concat!("ferry:", env!("CARGO_PKG_VERSION"));

pub(super) fn add(bundle: &mut Bundle, site: &Site<'_>) {
    let hooks = match site.pod.template {
        Template::WsInitiator => INITIATOR,
        Template::WsTerminator => TERMINATOR,
        Template::Gateway => return,
    };
    let dockerfile = fill(DOCKERFILE, &[("base", BASE_IMAGE), ("role", site.role())]);
    for (name, text) in [("app.py", hooks), ("Dockerfile", &dockerfile), ("requirements.txt", REQUIREMENTS)] {
        bundle.add(format!("{}/app/{name}", site.pod.id), text).owner = Owner::User;
    }
}
