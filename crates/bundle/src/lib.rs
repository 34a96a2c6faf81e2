//! From a blueprint to a Kubernetes bundle.
//!
//! A *blueprint* says which pods run in which clusters and who connects to whom; [`Blueprint::parse`] reads one and
//! reports every problem in it at once. [`render()`] makes of it, and of the [`Keys`] of its pods, a [`Bundle`]:
//! manifests, scripts and hooks, as bytes by path. The same blueprint and the same keys give the same bytes.
//!
//! This is the only crate that knows Kubernetes. A new kind of pod is a [`Template`]: its rules are in
//! `blueprint/check.rs`, its manifests and texts in `render/`, and what deploying it takes in `steps.rs`.

mod blueprint;
mod bundle;
mod inject;
mod keys;
mod render;
mod steps;
pub mod upgrade;

pub use blueprint::{
    Blueprint, Carrier, Cidr, Cloud, Cluster, Connection, Front, Host, ImageName, Label, ObjectName, Pod, Scope,
    Service, Storage, Tag, Template, WebSocket,
};
pub use bundle::{Bundle, Changes, File, Owner, WriteError};
pub use inject::{Injected, Injection, config_map_name, inject, remove, secret_name};
pub use keys::{KeyError, KeyRoll, Keys, PodKeys, RollStep, RollStepTaken};
pub use render::{RenderError, add_chart, render};
pub use steps::{LinkProof, Proof, Steps, Watched};

/// A blueprint to start from, with comments.
pub const STARTER: &str = include_str!("text/starter.yaml");

/// [`STARTER`] for two clusters of k3d on one machine.
pub fn starter_for_k3d() -> String {
    STARTER
        .replace("context: cluster-a,", "context: k3d-cluster-a,")
        .replace("context: cluster-b, port: 30200}", "context: k3d-cluster-b, port: 30200, address: host.k3d.internal}")
}
