//! A Deployment as kubectl shows it.

use k8s_openapi::api::apps::v1::Deployment;

use super::Place;
use crate::render::TUNNEL_CONTAINER;

/// How far a Deployment is with its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Somebody has paused it.
    pub is_paused: bool,
    /// The tunnel's image in the next pod.
    pub image: String,
    /// Its controller has seen the last change.
    pub is_observed: bool,
    /// All pods are of the template that it has now.
    pub is_complete: bool,
}

impl Rollout {
    /// Reads what kubectl prints.
    ///
    /// # Errors
    /// If it is no Deployment of a tunnel.
    pub fn parse(text: &str, place: Place) -> Result<Self, String> {
        let deployment: Deployment = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let spec = deployment.spec.unwrap_or_default();
        let status = deployment.status.unwrap_or_default();
        let pod = spec.template.spec.unwrap_or_default();
        let containers = match place {
            Place::InitContainers => pod.init_containers.unwrap_or_default(),
            Place::Containers => pod.containers,
        };
        let tunnel = containers.into_iter().find(|container| container.name == TUNNEL_CONTAINER);
        let image = tunnel.and_then(|tunnel| tunnel.image);
        let wanted = spec.replicas.unwrap_or(1);
        Ok(Self {
            is_paused: spec.paused.unwrap_or(false),
            image: image.ok_or_else(|| format!("its template has no container `{TUNNEL_CONTAINER}`"))?,
            is_observed: status.observed_generation >= deployment.metadata.generation,
            is_complete: status.updated_replicas.unwrap_or(0) == wanted && status.replicas.unwrap_or(0) == wanted,
        })
    }
}
