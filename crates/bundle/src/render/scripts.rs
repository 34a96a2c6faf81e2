//! The scripts of a bundle: fixed texts under a header of variables.

use super::app::{BASE_IMAGE, GATEWAY_BASE_IMAGE};
use super::site::Site;
use super::yaml::commented;
use super::{fill, gateway};
use crate::{Blueprint, Bundle, Carrier, Scope, Service, Template};

const COMMON: &str = include_str!("../scripts/common.sh");
const TEARDOWN: &str = concat!(include_str!("../scripts/teardown-options.sh"), include_str!("../scripts/teardown.sh"));
const BUILD_OPTIONS: &str = include_str!("../scripts/build-options.sh");
const BUILD_PODS: &str = concat!(include_str!("../scripts/build-base.sh"), include_str!("../scripts/build-pods.sh"));

/// The same for a bundle with gateways: they may be in namespaces that somebody has named.
const TEARDOWN_GATEWAYS: &str = concat!(
    include_str!("../scripts/own-namespaces.sh"),
    include_str!("../scripts/teardown-options.sh"),
    include_str!("../scripts/own-teardown.sh"),
    include_str!("../scripts/teardown.sh")
);
const BUILD_GATEWAYS: &str = include_str!("../scripts/build-gateways.sh");

/// The variable that a peer's address may be given by.
pub(super) fn address_variable(pod: &crate::Label) -> String {
    format!("FERRY_{}_ADDRESS", pod.as_str().to_ascii_uppercase().replace('-', "_"))
}

pub(super) fn add(bundle: &mut Bundle, blueprint: &Blueprint, sites: &[Site<'_>]) {
    let is_gateway = |site: &&Site<'_>| site.pod.template == Template::Gateway;
    let (gateways, web_apps): (Vec<_>, Vec<_>) = sites.iter().partition(is_gateway);
    for cluster in &blueprint.clusters {
        let here: Vec<_> = in_order(sites).into_iter().filter(|site| site.cluster.id == cluster.id).collect();
        let mut header = Header::new(&format!("Deploys the pods of {} in {}.", blueprint.id, cluster.id));
        header.scalar("NETWORK", blueprint.id.as_str());
        header.scalar("CLUSTER", cluster.id.as_str());
        header.scalar("CONTEXT", &cluster.context);
        let pods = here.iter().map(|site| vec![site.pod.id.to_string(), site.namespace(), site.role().to_owned()]);
        header.list("PODS", "pod, namespace, role", pods);
        let published = here.iter().filter(|site| site.is_published());
        let published = published.filter_map(|site| {
            Some(vec![site.pod.id.to_string(), site.namespace(), site.tunnel_service_port?.to_string()])
        });
        header.list("PUBLISHED", "pod, namespace, port", published);
        header.list("DIALS", "pod, namespace, peer, its context, namespace, port, address, variable", dials(&here));
        header.list("DIALLERS", "pod here, pod there, its context, namespace, script", diallers(&here));
        let links = links(&here);
        let deploy = Deploy {
            gateways: !gateways.is_empty(),
            links: !links.is_empty(),
            on_server: cluster.takes(&Carrier::Quic),
        };
        if deploy.links {
            header.list("LINKS", "pod, what carries links to it", links);
        }
        if deploy.gateways {
            header.list("SERVICES", "service, address", services(&here));
        }
        bundle.add(blueprint.deploy_script(cluster), header.with(&deploy.script())).mode = 0o755;
    }
    let mut header = Header::new(&format!("Removes {} from its clusters.", blueprint.id));
    header.scalar("NETWORK", blueprint.id.as_str());
    let namespaces = sites.iter().map(|site| vec![site.cluster.context.clone(), site.namespace()]);
    header.list("NAMESPACES", "context, namespace", namespaces);
    let script = if gateways.is_empty() { TEARDOWN } else { TEARDOWN_GATEWAYS };
    bundle.add("teardown.sh", header.with(script)).mode = 0o755;

    let mut header = Header::new(&format!("Builds the images of {}.", blueprint.id));
    let k3d = |site: &Site<'_>| site.cluster.context.strip_prefix("k3d-").unwrap_or_default().to_owned();
    let mut script = BUILD_OPTIONS.to_owned();
    if !web_apps.is_empty() {
        header.scalar("BASE", BASE_IMAGE);
        let image = |site: &&Site<'_>| vec![site.pod.id.to_string(), blueprint.image_of(site.pod), k3d(site)];
        header.list("IMAGES", "pod, image, cluster of k3d", web_apps.iter().map(image));
        script += BUILD_PODS;
    }
    if let Some(gateway) = gateways.first() {
        header.scalar("GATEWAY_BASE", GATEWAY_BASE_IMAGE);
        header.scalar("GATEWAY_IMAGE", &blueprint.image_of(gateway.pod));
        let image = |site: &&Site<'_>| vec![site.pod.id.to_string(), k3d(site)];
        header.list("GATEWAYS", "pod, cluster of k3d", gateways.iter().map(image));
        script += BUILD_GATEWAYS;
    }
    bundle.add("build-images.sh", header.with(&script)).mode = 0o755;
}

/// What differs between the deploy scripts of two bundles.
#[derive(Clone, Copy)]
struct Deploy {
    /// Gateways dial several peers, and may be in namespaces that somebody has named.
    gateways: bool,
    /// Some pod is reached by other links than TCP.
    links: bool,
    /// Some Service has two ports of the same number.
    on_server: bool,
}

impl Deploy {
    fn script(self) -> String {
        let either = |this: bool, yes: &'static str, no: &'static str| if this { yes } else { no };
        let parts = [
            include_str!("../scripts/find-load-balancer.sh"),
            either(self.links, include_str!("../scripts/with-links.sh"), include_str!("../scripts/with-port.sh")),
            include_str!("../scripts/find-addresses.sh"),
            either(self.gateways, include_str!("../scripts/tell-many.sh"), include_str!("../scripts/tell-one.sh")),
            include_str!("../scripts/pass-addresses.sh"),
            include_str!("../scripts/rollout.sh"),
            either(
                self.on_server,
                include_str!("../scripts/apply-pod-on-server.sh"),
                include_str!("../scripts/apply-pod.sh"),
            ),
            either(self.gateways, include_str!("../scripts/own-namespaces.sh"), ""),
            include_str!("../scripts/deploy-options.sh"),
            either(self.gateways, include_str!("../scripts/own-deploy.sh"), ""),
            include_str!("../scripts/deploy.sh"),
            either(self.gateways, include_str!("../scripts/verify.sh"), include_str!("../scripts/verify-web-apps.sh")),
        ];
        let whose = [("of_pod", r#" "$pod""#), ("of_peer", r#" "$peer""#)];
        fill(&parts.concat(), &whose.map(|(place, whose)| (place, either(self.links, whose, ""))))
    }
}

/// The pods whose addresses a script finds out or passes on, and what carries links to them, where that is not TCP alone.
fn links(here: &[&Site<'_>]) -> Vec<Vec<String>> {
    let published = here.iter().filter(|site| site.is_published()).map(|site| (site.pod, site.cluster));
    let dialled = here.iter().flat_map(|site| site.outgoing.iter().map(|far| (far.remote.pod, far.remote.cluster)));
    let links = published.chain(dialled).filter(|(_, cluster)| cluster.takes(&Carrier::Quic)).map(|(pod, cluster)| {
        let balanced = cluster.links.iter().filter(|carrier| !matches!(carrier, Carrier::WebSocket(_)));
        let carriers: Vec<_> = balanced.map(ToString::to_string).collect();
        vec![pod.id.to_string(), carriers.join(" ")]
    });
    let mut links: Vec<_> = links.collect();
    links.sort();
    links.dedup();
    links
}

/// What applications in a cluster reach through its gateway, and at which address.
fn services(here: &[&Site<'_>]) -> Vec<Vec<String>> {
    let gateways = here.iter().filter(|site| site.pod.template == Template::Gateway);
    let service = |(namespace, service): (String, &Service)| {
        vec![service.name.to_string(), format!("{}.{namespace}.svc:{}", service.name, service.port)]
    };
    let reached = |site: &&&Site<'_>| {
        gateway::reached(site).map(|(service, _)| (site.namespace(), service)).map(service).collect::<Vec<_>>()
    };
    gateways.flat_map(|site| reached(&site)).collect()
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
    ways.filter_map(|(site, far)| {
        let remote = &far.remote;
        Some(vec![
            site.pod.id.to_string(),
            site.namespace(),
            remote.pod.id.to_string(),
            remote.cluster.context.clone(),
            site.blueprint.namespace(remote.pod),
            far.port?.to_string(),
            far.known_address().map(|address| address.to_string()).unwrap_or_default(),
            address_variable(&remote.pod.id),
        ])
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
            site.blueprint.namespace(far.pod),
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
