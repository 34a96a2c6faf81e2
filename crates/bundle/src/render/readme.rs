//! The `README.md` of a bundle: exact commands for this very network.

use std::collections::BTreeSet;

use super::app::BASE_IMAGE;
use super::fill;
use super::scripts::address_variable;
use super::site::{ADMIN_PORT, Site, WEB_APP_PORT, WEBSOCKET_PORT};
use super::workload::TOKEN_DIR;
use crate::keys::TOKEN_KEY;
use crate::{Blueprint, Carrier, Cluster, Scope, Template};
use ferry_config::WebSocketUrl;

const README: &str = include_str!("../text/README.md");
const README_GATEWAYS: &str = include_str!("../text/README-gateways.md");
const SERVICES: &str = include_str!("../text/services.md");
const K3D: &str = include_str!("../text/k3d.md");
const DEPLOY_MULTI: &str = include_str!("../text/deploy-multi.md");
const DEPLOY_SINGLE: &str = include_str!("../text/deploy-single.md");
const DEPLOY_WEBSOCKET: &str = include_str!("../text/deploy-websocket.md");
const TROUBLES_WEBSOCKET: &str = include_str!("../text/troubles-websocket.md");
const TROUBLES_MULTI: &str = include_str!("../text/troubles-multi.md");

pub(super) fn text(blueprint: &Blueprint, sites: &[Site<'_>]) -> String {
    let find = |template| sites.iter().find(|site| site.pod.template == template);
    // A parsed blueprint has both or neither.
    match (find(Template::WsInitiator), find(Template::WsTerminator)) {
        (Some(initiator), Some(terminator)) => Readme { blueprint, sites, initiator, terminator }.text(),
        _ => of_gateways(blueprint, sites),
    }
}

/// Of a network without web-apps.
fn of_gateways(blueprint: &Blueprint, sites: &[Site<'_>]) -> String {
    let scripts: Vec<_> = blueprint.steps().scripts.iter().map(|script| format!("./{script}")).collect();
    let clusters = blueprint.dialled_first();
    let k3d = k3d(&clusters, sites, &[("deploys", &scripts.join("\n")), ("verify", "")]);
    let status = sites.first().map(|site| status(site)).unwrap_or_default();
    fill(
        README_GATEWAYS,
        &[
            ("pods", &gateways(sites)),
            ("services", &services(blueprint)),
            ("how", if k3d.is_empty() { "--push" } else { "--k3d" }),
            ("k3d", &k3d.replace("\n\n```\n", "\n```\n")),
            ("deploys", &scripts.join("\n   ")),
            ("status", &status),
            ("name", &blueprint.name),
        ],
    )
}

/// The rows of gateways in a table.
fn gateways(sites: &[Site<'_>]) -> String {
    let row = |site: &Site<'_>| {
        let (pod, cluster, context) = (&site.pod.id, &site.cluster.id, &site.cluster.context);
        let (namespace, image) = (site.namespace(), site.blueprint.image_of(site.pod));
        format!("| {pod} | {cluster} | `{context}` | `{namespace}` | `{image}` |")
    };
    let gateways = sites.iter().filter(|site| site.pod.template == Template::Gateway);
    gateways.map(row).collect::<Vec<_>>().join("\n")
}

/// A table of what is reached from where.
fn services(blueprint: &Blueprint) -> String {
    let mut table = "| service | runs in | at | reached from | at |\n|---|---|---|---|---|\n".to_owned();
    for service in &blueprint.services {
        for cluster in &service.reach_from {
            let namespace = blueprint.gateway_in(cluster).map(|pod| blueprint.namespace(pod)).unwrap_or_default();
            let (name, there, target, port) = (&service.name, &service.cluster, &service.target, service.port);
            table += &format!("| {name} | {there} | `{target}` | {cluster} | `{name}.{namespace}.svc:{port}` |\n");
        }
    }
    table
}

/// The steps on k3d, if that is where all the contexts lead.
fn k3d(clusters: &[&Cluster], sites: &[Site<'_>], values: &[(&str, &str)]) -> String {
    let names: Option<Vec<_>> = clusters.iter().map(|cluster| cluster.context.strip_prefix("k3d-")).collect();
    let Some(names) = names else { return String::new() };
    let create = clusters.iter().zip(names).map(|(cluster, name)| {
        let published = sites.iter().filter(|site| site.cluster.id == cluster.id && site.is_published());
        let ports = published.filter_map(|site| Some((site.tunnel_service_port?, site.cluster)));
        let port = |(port, cluster): (u16, &Cluster)| {
            let protocols = [(Carrier::Tcp, ""), (Carrier::Quic, "/udp")];
            let taken = protocols.into_iter().filter(|(carrier, _)| cluster.takes(carrier));
            taken.map(|(_, protocol)| format!(" --port '{port}:{port}{protocol}@loadbalancer'")).collect::<String>()
        };
        let ports: String = ports.map(port).collect();
        format!("k3d cluster create {name}{ports} --wait")
    });
    let text = fill(K3D, &[("create", &create.collect::<Vec<_>>().join("\n"))]);
    fill(&text, values)
}

/// In two steps, as the image of a pod has no program to ask with.
fn status(site: &Site<'_>) -> String {
    format!("{} & curl -sS http://127.0.0.1:{ADMIN_PORT}/status", forward(site, ADMIN_PORT))
}

fn forward(site: &Site<'_>, port: u16) -> String {
    let (namespace, pod, context) = (site.namespace(), &site.pod.id, shell_word(&site.cluster.context));
    format!("kubectl port-forward -n {namespace} deployment/{pod} {port} --context {context}")
}

struct Readme<'r, 'b> {
    blueprint: &'b Blueprint,
    sites: &'r [Site<'b>],
    initiator: &'r Site<'b>,
    terminator: &'r Site<'b>,
}

impl Readme<'_, '_> {
    fn text(&self) -> String {
        let k3d = self.k3d();
        let how = if k3d.is_empty() { "--push" } else { "--k3d" };
        let multi = self.blueprint.scope == Scope::MultiCluster;
        let intro = self.intro();
        let (has_load_balancer, websocket) = (self.terminator.is_published(), self.terminator.websocket());
        let deploy = self.fill_names(match multi {
            true if has_load_balancer => DEPLOY_MULTI,
            true => DEPLOY_WEBSOCKET,
            false => DEPLOY_SINGLE,
        }) + &self.deploy_others();
        let troubles = [(has_load_balancer, TROUBLES_MULTI), (websocket.is_some(), TROUBLES_WEBSOCKET)];
        let troubles = troubles.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| self.fill_names(text));
        let troubles: String = troubles.collect();
        let scripts: Vec<_> = self.blueprint.steps().scripts.iter().map(|script| format!("./{script}")).collect();
        let services = match self.blueprint.services.is_empty() {
            true => String::new(),
            false => fill(SERVICES, &[("pods", &gateways(self.sites)), ("services", &services(self.blueprint))]),
        };
        let readme = README.replace("## Verify\n", &format!("{services}## Verify\n"));
        fill(
            &readme,
            &[
                ("intro", &intro),
                ("pods", &self.pods()),
                ("picture", &self.picture()),
                ("k3d", &k3d),
                ("base", BASE_IMAGE),
                ("deploy", &deploy),
                ("verify", &self.verify()),
                ("context", &shell_word(&self.initiator.cluster.context)),
                ("count", &self.initiator.pod.auto_trigger.to_string()),
                ("output", &self.output()),
                ("send", &self.send()),
                ("namespace", &self.terminator.namespace()),
                ("forward", &forward(self.initiator, WEB_APP_PORT)),
                ("how", how),
                ("scripts", &scripts.join(" && ")),
                ("status", &status(self.initiator)),
                ("troubles", &troubles),
                ("terminator", self.terminator.pod.id.as_str()),
                // Last: it is the user's text, and may hold anything.
                ("name", &self.blueprint.name),
            ],
        )
    }

    fn initiators(&self) -> impl Iterator<Item = &Site<'_>> {
        self.sites.iter().filter(|site| site.pod.template == Template::WsInitiator)
    }

    fn intro(&self) -> String {
        let (multi, initiators) = (self.blueprint.scope == Scope::MultiCluster, self.initiators().count());
        match (initiators, multi) {
            (1, true) => "Two pods in two clusters, and one connection between them that stays open.".into(),
            (1, false) => "Two pods in one cluster, and one connection between them that stays open.".into(),
            (_, true) => {
                let clusters: BTreeSet<_> = self.web_apps().map(|site| site.cluster.id.as_str()).collect();
                format!(
                    "{initiators} initiators and one terminator in {} clusters, and a connection from each that stays open.",
                    clusters.len()
                )
            }
            (_, false) => {
                format!(
                    "{initiators} initiators and one terminator in one cluster, and a connection from each that stays open."
                )
            }
        }
    }

    /// The scripts that the steps have not named.
    fn deploy_others(&self) -> String {
        let named =
            [self.initiator.cluster, self.terminator.cluster].map(|cluster| self.blueprint.deploy_script(cluster));
        let scripts = self.blueprint.steps().scripts.into_iter().filter(|script| !named.contains(script));
        let scripts: Vec<_> = scripts.map(|script| format!("`./{script}`")).collect();
        match self.initiators().count() {
            2.. if !scripts.is_empty() => {
                format!("\nThe other initiators are deployed in the same way: {}.\n", scripts.join(", "))
            }
            _ => String::new(),
        }
    }

    fn web_apps(&self) -> impl Iterator<Item = &Site<'_>> {
        self.sites.iter().filter(|site| site.pod.template != Template::Gateway)
    }

    fn pods(&self) -> String {
        let row = |site: &Site<'_>| {
            let template = match site.pod.template {
                Template::WsInitiator => "ws-initiator",
                Template::WsTerminator => "ws-terminator",
                Template::Gateway => "gateway",
            };
            let (pod, cluster, context) = (&site.pod.id, &site.cluster.id, &site.cluster.context);
            let (namespace, image) = (site.namespace(), self.blueprint.image_of(site.pod));
            format!("| {pod} | {template} | {cluster} | `{context}` | `{namespace}` | `{image}` |")
        };
        self.web_apps().map(row).collect::<Vec<_>>().join("\n")
    }

    fn picture(&self) -> String {
        let (from, to) = (&self.initiator, &self.terminator);
        let port = shown_port(to);
        let ends = (format!("{}: {}", from.cluster.id, from.pod.id), format!("{}: {}", to.cluster.id, to.pod.id));
        let width = ends.0.len().max(32);
        let ways = match self.blueprint.scope {
            Scope::MultiCluster if !to.is_published() => {
                format!("{} ──▶ tunnel :{WEBSOCKET_PORT} ──▶ web-app :8000", url(to))
            }
            Scope::MultiCluster => format!("load balancer:{port} ──▶ tunnel :18000 ──▶ web-app :8000"),
            Scope::SingleCluster => format!("service:{port} ──▶ tunnel :18000 ──▶ web-app :8000"),
        };
        format!(
            "{:width$}          {}\nweb-app ──▶ 127.0.0.1:18001 tunnel{:pad$} ═══════▶ {ways}",
            ends.0,
            ends.1,
            "",
            pad = width - 32
        )
    }

    fn k3d(&self) -> String {
        // The initiator's last: it is made the current context, which is what the commands without one need.
        let mut clusters = vec![self.terminator.cluster];
        clusters.extend((self.blueprint.scope == Scope::MultiCluster).then_some(self.initiator.cluster));
        for site in self.sites {
            if clusters.iter().all(|cluster| cluster.id != site.cluster.id) {
                clusters.insert(0, site.cluster);
            }
        }
        let deploys: Vec<_> = self.blueprint.steps().scripts.iter().map(|script| format!("./{script}")).collect();
        k3d(&clusters, self.sites, &[("deploys", &deploys.join("\n")), ("verify", &self.verify())])
    }

    /// Exactly what users know by heart, without a context.
    fn verify(&self) -> String {
        let (namespace, pod) = (self.initiator.namespace(), &self.initiator.pod.id);
        format!("kubectl logs -n {namespace} deployment/{pod} -c web-app -f")
    }

    fn output(&self) -> String {
        let in_pod = kubectl(self.terminator, "exec", "-c web-app --");
        format!("{in_pod} ferry output http://127.0.0.1:{WEB_APP_PORT}{}", token(self.terminator))
    }

    fn send(&self) -> String {
        let in_pod = kubectl(self.initiator, "exec", "-c web-app --");
        let token = token(self.initiator);
        format!("{in_pod} ferry send http://127.0.0.1:{WEB_APP_PORT} --message '{{\"hello\": \"ferry\"}}'{token}")
    }

    fn fill_names(&self, text: &str) -> String {
        let (near, far) = (self.initiator, self.terminator);
        let url = url(far);
        fill(
            text,
            &[
                ("initiator", near.pod.id.as_str()),
                ("terminator", far.pod.id.as_str()),
                ("near_script", &self.blueprint.deploy_script(near.cluster)),
                ("far_script", &self.blueprint.deploy_script(far.cluster)),
                ("far_context", &far.cluster.context),
                ("far_namespace", &far.namespace()),
                ("variable", &address_variable(&far.pod.id)),
                ("port", &shown_port(far)),
                ("url", &url),
                // What speaks HTTP alone knows it by this scheme.
                ("http_url", &url.replacen("ws", "http", 1)),
            ],
        )
    }
}

/// The URL by which a pod that accepts WebSockets is reached.
fn url(site: &Site<'_>) -> String {
    let url = site.websocket().map(|websocket| WebSocketUrl { max_life: None, ..websocket.url.clone() });
    url.map(|url| url.to_string()).unwrap_or_default()
}

/// The port by which a pod that is dialled is reached.
fn shown_port(site: &Site<'_>) -> String {
    site.tunnel_service_port.map(|port| port.to_string()).unwrap_or_default()
}

/// The option by which a program in the pod gets at a web-app that asks for a token.
fn token(site: &Site<'_>) -> String {
    match site.pod.expose {
        Some(_) => format!(" --token-file {TOKEN_DIR}/{TOKEN_KEY}"),
        None => String::new(),
    }
}

/// A command of kubectl on the deployment of a pod.
fn kubectl(site: &Site<'_>, verb: &str, rest: &str) -> String {
    let (namespace, pod) = (site.namespace(), &site.pod.id);
    format!("kubectl {verb} --context {} -n {namespace} deployment/{pod} {rest}", shell_word(&site.cluster.context))
}

/// A word of a command line that means just this text, in quotes only if it needs some.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
