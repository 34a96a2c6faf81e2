//! The scripts of a bundle: fixed texts under a header of variables.

use super::{app::BASE_IMAGE, site::Site, yaml::commented};
use crate::{Blueprint, Bundle, Scope, Template};

const COMMON: &str = include_str!("../scripts/common.sh");
const DEPLOY: &str = concat!(
    include_str!("../scripts/addresses.sh"),
    include_str!("../scripts/rollout.sh"),
    include_str!("../scripts/deploy.sh")
);
const TEARDOWN: &str = include_str!("../scripts/teardown.sh");
const BUILD_IMAGES: &str = include_str!("../scripts/build-images.sh");

/// The variable that a peer's address may be given by.
pub(super) fn address_variable(pod: &crate::Label) -> String {
    format!("FERRY_{}_ADDRESS", pod.as_str().to_ascii_uppercase().replace('-', "_"))
}

pub(super) fn add(bundle: &mut Bundle, blueprint: &Blueprint, sites: &[Site<'_>]) {
    for cluster in &blueprint.clusters {
        let here: Vec<_> = in_order(sites).into_iter().filter(|site| site.cluster.id == cluster.id).collect();
        let mut header = Header::new(&format!("Deploys the pods of {} in {}.", blueprint.id, cluster.id));
        header.scalar("NETWORK", blueprint.id.as_str());
        header.scalar("CLUSTER", cluster.id.as_str());
        header.scalar("CONTEXT", &cluster.context);
        let pods = here.iter().map(|site| vec![site.pod.id.to_string(), site.namespace(), site.role().to_owned()]);
        header.list("PODS", "pod, namespace, role", pods);
        let published = here.iter().filter(|site| site.is_published());
        let published =
            published.map(|site| vec![site.pod.id.to_string(), site.namespace(), site.cluster.port.to_string()]);
        header.list("PUBLISHED", "pod, namespace, port", published);
        header.list("DIALS", "pod, namespace, peer, its context, namespace, port, address, variable", dials(&here));
        header.list("DIALLERS", "pod here, pod there, its context, namespace, script", diallers(&here));
        bundle.add(blueprint.deploy_script(cluster), header.with(DEPLOY)).mode = 0o755;
    }
    let mut header = Header::new(&format!("Removes {} from its clusters.", blueprint.id));
    header.scalar("NETWORK", blueprint.id.as_str());
    let namespaces = sites.iter().map(|site| vec![site.cluster.context.clone(), site.namespace()]);
    header.list("NAMESPACES", "context, namespace", namespaces);
    bundle.add("teardown.sh", header.with(TEARDOWN)).mode = 0o755;

    let mut header = Header::new(&format!("Builds the images of {}.", blueprint.id));
    header.scalar("BASE", BASE_IMAGE);
    let images = sites.iter().map(|site| {
        let k3d = site.cluster.context.strip_prefix("k3d-").unwrap_or_default();
        vec![site.pod.id.to_string(), blueprint.image_of(&site.pod.id), k3d.to_owned()]
    });
    header.list("IMAGES", "pod, image, cluster of k3d", images);
    bundle.add("build-images.sh", header.with(BUILD_IMAGES)).mode = 0o755;
}

/// Pods that are connected to before those that connect.
fn in_order<'s, 'b>(sites: &'s [Site<'b>]) -> Vec<&'s Site<'b>> {
    let mut sites: Vec<_> = sites.iter().collect();
    sites.sort_by_key(|site| site.pod.template == Template::WsInitiator);
    sites
}

fn dials(here: &[&Site<'_>]) -> Vec<Vec<String>> {
    let ways = here.iter().filter(|site| site.blueprint.scope == Scope::MultiCluster);
    let ways = ways.flat_map(|site| site.outgoing.iter().map(move |far| (site, far)));
    ways.map(|(site, far)| {
        let known = far.cluster.address.as_ref().map(|address| address.with_port(far.cluster.port).to_string());
        vec![
            site.pod.id.to_string(),
            site.namespace(),
            far.pod.id.to_string(),
            far.cluster.context.clone(),
            site.blueprint.namespace(&far.pod.id),
            far.port().to_string(),
            known.unwrap_or_default(),
            address_variable(&far.pod.id),
        ]
    })
    .collect()
}

/// The pods elsewhere that need to be told an address which only the cluster here knows.
fn diallers(here: &[&Site<'_>]) -> Vec<Vec<String>> {
    let ways = here.iter().filter(|site| site.is_published() && site.cluster.address.is_none());
    let ways = ways.flat_map(|site| site.incoming.iter().map(move |far| (site, far)));
    ways.map(|(site, far)| {
        vec![
            site.pod.id.to_string(),
            far.pod.id.to_string(),
            far.cluster.context.clone(),
            site.blueprint.namespace(&far.pod.id),
            format!("./{}", site.blueprint.deploy_script(far.cluster)),
        ]
    })
    .collect()
}

/// The part of a script that differs from bundle to bundle: variables only.
struct Header(String);

impl Header {
    fn new(comment: &str) -> Self {
        let comment = commented(&format!("{comment} Rendered by `ferry bundle`; README.md says how to use it."));
        Self(format!("#!/usr/bin/env bash\n{comment}\n"))
    }

    fn scalar(&mut self, name: &str, value: &str) {
        self.0 += &format!("{name}={}\n", quoted(value));
    }

    /// A flat array of records with `fields`, one a line.
    fn list(&mut self, name: &str, fields: &str, records: impl IntoIterator<Item = Vec<String>>) {
        self.0 += &format!("# {fields}\n{name}=(\n");
        for record in records {
            let words: Vec<_> = record.iter().map(|word| quoted(word)).collect();
            self.0 += &format!("  {}\n", words.join(" "));
        }
        self.0 += ")\n";
    }

    fn with(self, script: &str) -> String {
        self.0 + COMMON + script
    }
}

/// A word of a shell script that means just this text.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
