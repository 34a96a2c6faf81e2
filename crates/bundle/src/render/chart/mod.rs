//! The Helm chart, and the values by which it renders what the bundle has.

mod values;

use super::site::Site;
use super::{RenderError, fill, yaml};
use crate::{Blueprint, Bundle, Keys, Template};
use values::{SecretValues, Values};

/// Paths of files in the chart's directory, each with its text.
macro_rules! chart {
    ($($path:literal,)*) => { [$(($path, include_str!(concat!("../../../../../contrib/chart/ferry/", $path)))),*] };
}

/// The files of the chart, which is the same for every pod.
const CHART: [(&str, &str); 23] = chart![
    ".helmignore",
    "Chart.yaml",
    "files/ferry-dashboard.json",
    "files/ferry.rules.yaml",
    "templates/NOTES.txt",
    "templates/_check.tpl",
    "templates/_containers.tpl",
    "templates/_names.tpl",
    "templates/_policy.tpl",
    "templates/_replicas.tpl",
    "templates/_tunnel.tpl",
    "templates/_units.tpl",
    "templates/configuration.yaml",
    "templates/deployment.yaml",
    "templates/front.yaml",
    "templates/monitoring.yaml",
    "templates/namespace.yaml",
    "templates/network-policy.yaml",
    "templates/replicas.yaml",
    "templates/secrets.yaml",
    "templates/services.yaml",
    "values.schema.json",
    "values.yaml",
];

/// Stands above the values of a pod.
const ABOVE: &str = "\
Written by `ferry bundle --chart` from blueprint.yaml, which is the place for changes. What is yours goes into a file
of your own, named by one more --values.
  helm upgrade --install {{pod}} ./ferry --kube-context {{context}} --namespace default \\
    --values values-{{pod}}.yaml --values secrets-{{pod}}.yaml{{hooks}}";

/// Adds the chart to a bundle, and for each pod its values and secrets.
///
/// # Errors
///
/// As [`render`](super::render).
pub fn add_chart(bundle: &mut Bundle, blueprint: &Blueprint, keys: &Keys) -> Result<(), RenderError> {
    for (path, text) in CHART {
        bundle.add(format!("chart/ferry/{path}"), text);
    }
    bundle.add("chart/.gitignore", "# Keys.\nsecrets-*.yaml\n");
    for site in Site::all(blueprint, keys)? {
        let pod = site.pod.id.as_str();
        let hooks = format!(" \\\n    --set-file web_app.hooks=../{pod}/app/app.py");
        let hooks = if site.pod.template == Template::Gateway { "" } else { &hooks };
        let above = fill(ABOVE, &[("pod", pod), ("context", &site.cluster.context), ("hooks", hooks)]);
        let values = yaml::plain(&Values::of(&site)?);
        bundle.add(format!("chart/values-{pod}.yaml"), yaml::documents(&above, [Some(values)]));
        let above = format!("Private keys of {pod}: keep this file to yourself, and out of version control.");
        let values = yaml::plain(&SecretValues::of(&site));
        bundle.add(format!("chart/secrets-{pod}.yaml"), yaml::documents(&above, [Some(values)])).mode = 0o600;
    }
    Ok(())
}
