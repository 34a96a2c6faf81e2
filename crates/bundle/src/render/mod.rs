//! From a blueprint and keys to the files of a bundle. Nothing here reads a file, a clock or randomness.

mod app;
mod chart;
mod front;
mod gateway;
mod links;
mod network;
mod readme;
mod replicas;
mod scripts;
mod secrets;
pub(crate) mod sidecar;
mod site;
pub(crate) mod tunnel;
mod workload;
pub(crate) mod yaml;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bundle::Owner;
use crate::keys::{Keys, SECRETS_FILE};
use crate::{Blueprint, Bundle, Label, Template};
use ferry_config::ValueError;
use site::Site;

pub use chart::add_chart;
pub(crate) use sidecar::{KEEPER_CONTAINER, TUNNEL_CONTAINER};
pub(crate) use site::{ADMIN_PORT, WEB_APP_PORT};
pub(crate) use workload::TOKEN_DIR;

const NAMESPACE_FILE: &str = "01-namespace.yaml";
const DEPLOYMENT_FILE: &str = "03-deployment.yaml";
const SERVICE_FILE: &str = "04-service.yaml";
const POLICY_FILE: &str = "05-network-policy.yaml";

/// Stands above every manifest.
const RENDERED: &str = "Rendered by `ferry bundle` from blueprint.yaml, which is the place for changes.";

/// Renders the bundle of a blueprint. `source` is the text of the blueprint, which goes into the bundle as it is.
///
/// # Errors
///
/// If `keys` lacks those of a pod, or if the blueprint is not one that [`Blueprint::parse`] made and refers to a pod or
/// cluster that it does not have.
pub fn render(blueprint: &Blueprint, source: &str, keys: &Keys) -> Result<Bundle, RenderError> {
    let sites = Site::all(blueprint, keys)?;
    let mut bundle = Bundle::default();
    for site in &sites {
        if site.pod.expose.is_some() && site.keys.token.is_none() {
            return Err(RenderError::Keys(site.pod.id.clone()));
        }
        manifests(&mut bundle, site)?;
        app::add(&mut bundle, site);
    }
    scripts::add(&mut bundle, blueprint, &sites);
    bundle.add("blueprint.yaml", source);
    bundle.add("README.md", readme::text(blueprint, &sites));
    bundle.add("LICENSE", include_str!("../../../../LICENSE"));
    bundle.add(".gitignore", "# Keys, and what the deploy scripts found out.\n02-secrets.yaml\n/.addresses/\n");
    Ok(bundle)
}

fn manifests(bundle: &mut Bundle, site: &Site<'_>) -> Result<(), RenderError> {
    let pod = &site.pod.id;
    let path = |file: &str| format!("{pod}/{file}");
    let namespace = yaml::document(&secrets::namespace(site));
    bundle.add(path(NAMESPACE_FILE), yaml::documents(RENDERED, [Some(namespace)]));

    let warning = format!("{RENDERED}\nPrivate keys: keep this file to yourself, and out of version control.");
    let secrets = [Some(yaml::document(&secrets::identity(site))), secrets::token(site).as_ref().map(yaml::document)];
    bundle.add(path(SECRETS_FILE), yaml::documents(&warning, secrets)).mode = 0o600;

    let config = yaml::plain(&tunnel::config(site)?);
    let is_gateway = site.pod.template == Template::Gateway;
    let workload = [
        Some(yaml::document(&workload::config_map(site, config))),
        (!is_gateway).then(|| yaml::document(&workload::volume_claim(site))),
        Some(yaml::document(&workload::deployment(site))),
        replicas::disruption_budget(site).as_ref().map(yaml::document),
    ];
    bundle.add(path(DEPLOYMENT_FILE), yaml::documents(RENDERED, workload));

    let mut services = match is_gateway {
        true => gateway::services(site),
        false => vec![network::web_app_service(site)],
    };
    services.extend(network::tunnel_service_of(site));
    services.extend(front::service_of(site));
    services.extend(replicas::service_of(site));
    // A gateway that nothing dials may lead to no service of others.
    let service_file = (!services.is_empty()).then_some(SERVICE_FILE);
    if let Some(file) = service_file {
        let services = services.iter().map(|service| Some(yaml::document(service)));
        bundle.add(path(file), yaml::documents(RENDERED, services));
    }

    let policies = [network::default_deny(site), network::policy(site)].map(|policy| Some(yaml::document(&policy)));
    bundle.add(path(POLICY_FILE), yaml::documents(RENDERED, policies));

    let front = front::document_of(site);
    let front_file = front.as_ref().map(|(file, _)| *file);
    if let Some((file, document)) = front {
        bundle.add(path(file), yaml::documents(RENDERED, [Some(document)]));
    }

    let kustomization = yaml::document(&Kustomization {
        api_version: "kustomize.config.k8s.io/v1beta1",
        kind: "Kustomization",
        resources: [NAMESPACE_FILE, SECRETS_FILE, DEPLOYMENT_FILE]
            .into_iter()
            .chain(service_file)
            .chain([POLICY_FILE])
            .chain(front_file)
            .collect(),
        config_map_generator: (!is_gateway).then(|| {
            [HooksMap {
                name: workload::HOOKS,
                namespace: site.namespace(),
                files: ["app/app.py"],
                options: GeneratorOptions { disable_name_suffix_hash: true, labels: site.labels() },
            }]
        }),
    });
    bundle.add(path("kustomization.yaml"), yaml::documents(RENDERED, [Some(kustomization)]));
    Ok(())
}

/// Kustomize's own file, which is no object of Kubernetes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kustomization {
    api_version: &'static str,
    kind: &'static str,
    resources: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_map_generator: Option<[HooksMap; 1]>,
}

/// The hooks as a ConfigMap, taken from the user's own file whenever it is applied.
#[derive(Serialize)]
struct HooksMap {
    name: &'static str,
    namespace: String,
    files: [&'static str; 1],
    options: GeneratorOptions,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GeneratorOptions {
    /// Under a name of its own for each content the pods would have to be replaced.
    disable_name_suffix_hash: bool,
    labels: BTreeMap<String, String>,
}

/// Puts values in the places that a text keeps for them: `{{name}}`.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// Why a blueprint was not rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// There is no such pod.
    #[error("the blueprint has no pod `{0}`")]
    Pod(Label),
    /// There is no such cluster.
    #[error("the blueprint has no cluster `{0}`")]
    Cluster(Label),
    /// A pod in the cluster is dialled.
    #[error("the cluster `{0}` has no port")]
    Port(Label),
    /// The pod has no keys, or too few.
    #[error("pod `{0}` lacks keys")]
    Keys(Label),
    /// Something cannot be said in a `tunnel.yaml`.
    #[error("not possible in a tunnel.yaml: {0}")]
    Tunnel(#[from] ValueError),
}
