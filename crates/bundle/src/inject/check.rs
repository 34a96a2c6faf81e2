//! What stands against a tunnel in a pod.

use super::manifest::{Document, Lookup as _, Manifest, Place, Workload};
use super::own::{CONTAINERS, Parts, VOLUME_NAMES, config_map_name, secret_name};
use ferry_config::yaml::{Node, Value};
use ferry_config::{Problem, Tunnel, ValueError};

/// Everything that has a name or a port which the tunnel needs.
pub(super) fn clashes(manifest: &Manifest, workload: &Workload<'_>, parts: &Parts) -> Vec<Problem> {
    let spec = &workload.spec;
    let mut problems = Vec::new();
    for (kind, name) in [("ConfigMap", config_map_name(workload.name)), ("Secret", secret_name(workload.name))] {
        let is_taken = |document: &Document| document.identity() == Some((kind, &name, workload.namespace));
        // A Secret of one's own is what is asked for.
        if manifest.documents().iter().any(is_taken) && (kind == "ConfigMap" || parts.has_secret()) {
            let message = format!("a {kind} called `{name}` is in it already, and not for this workload");
            problems.push(workload.problem(ValueError::new(message, "give the workload another name, or take it out")));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        names(spec, list, &CONTAINERS, "a container", &mut problems);
        for (at, container) in spec.items(list).iter().enumerate() {
            ports(spec, &format!("{list}[{at}]"), container, parts, &mut problems);
        }
    }
    names(spec, "volumes", &VOLUME_NAMES, "a volume", &mut problems);
    if spec.is_true("hostNetwork") {
        let message = "the pod has the node's network, so every process of the node could use its tunnel";
        let hint = "leave `hostNetwork` out, or run a gateway in a pod of its own";
        problems.push(spec.problem("hostNetwork", ValueError::new(message, hint)));
    }
    problems
}

fn names(spec: &Place<'_>, list: &str, taken: &[&str], what: &str, problems: &mut Vec<Problem>) {
    for (at, item) in spec.items(list).iter().enumerate() {
        let name = item.value.get("name").and_then(|(_, name)| name.value.as_text()).unwrap_or_default();
        if taken.contains(&name) {
            let message = format!("{what} called `{name}` is there already, and was not put in by ferry");
            let error = ValueError::new(message, "give it another name, or take it out");
            problems.push(spec.problem(&format!("{list}[{at}].name"), error));
        }
    }
}

fn ports(spec: &Place<'_>, path: &str, container: &Value, parts: &Parts, problems: &mut Vec<Problem>) {
    let Some((_, Value { value: Node::List(ports), .. })) = container.value.get("ports") else { return };
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.value.get("protocol").and_then(|(_, protocol)| protocol.value.as_text()).unwrap_or("TCP");
        let Some((_, Value { value: Node::Integer(number), .. })) = port.value.get("containerPort") else { continue };
        let is_same = |own: &(u16, &str, &str)| u64::from(own.0) == *number && own.1 == protocol;
        if let Some((.., what)) = parts.ports().into_iter().find(is_same) {
            let error = ValueError::new(format!("{number} is also {what}"), "choose another port in the tunnel.yaml");
            problems.push(spec.problem(&format!("{path}.ports[{at}].containerPort"), error));
        }
    }
}

/// What will not do what one may expect of it.
pub(super) fn warnings(workload: &Workload<'_>, tunnel: &Tunnel) -> Vec<String> {
    let mut warnings = Vec::new();
    if workload.replicas > 1 && tunnel.accepts_links() {
        warnings.push(format!(
            "{workload} has {} replicas and its tunnel is dialled: a resume must reach the pod that has the session, so \
             give each pod an address of its own, or use one replica",
            workload.replicas
        ));
    }
    warnings
}
