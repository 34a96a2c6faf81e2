//! What leads links over WebSockets to a tunnel: a Service, and an Ingress or an HTTPRoute in front of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::links::WEBSOCKET;
use super::network::{service, service_port};
use super::site::{Site, WEBSOCKET_PORT};
use super::yaml;
use crate::{Front, WebSocket};
use ferry_config::WebSocketUrl;

const INGRESS_FILE: &str = "06-ingress.yaml";
const HTTP_ROUTE_FILE: &str = "06-http-route.yaml";

/// The Service that the front leads to, on a pod that accepts WebSockets.
pub(super) fn service_of(site: &Site<'_>) -> Option<Service> {
    let websocket = site.websocket()?;
    // Not every controller of the Gateway API guesses what it is to let upgrade (GEP-1911).
    let app_protocol = matches!(websocket.front, Front::HttpRoute { .. }).then(|| "kubernetes.io/ws".to_owned());
    let port = ServicePort { app_protocol, ..service_port(WEBSOCKET, WEBSOCKET_PORT, WEBSOCKET) };
    Some(service(
        site.metadata(name(site)),
        ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(site.selector()),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        },
    ))
}

/// The front as a document, and its file.
pub(super) fn document_of(site: &Site<'_>) -> Option<(&'static str, String)> {
    let websocket = site.websocket()?;
    Some(match &websocket.front {
        Front::Ingress { .. } => (INGRESS_FILE, yaml::document(&ingress(site, websocket))),
        Front::HttpRoute { .. } => (HTTP_ROUTE_FILE, yaml::document(&http_route(site, websocket))),
    })
}

fn name(site: &Site<'_>) -> String {
    format!("{}-websocket", site.pod.id)
}

fn ingress(site: &Site<'_>, websocket: &WebSocket) -> Ingress {
    let Front::Ingress { class, tls_secret, annotations } = &websocket.front else { return Ingress::default() };
    let class = class.as_ref().map(ToString::to_string);
    let mut all = controller_annotations(class.as_deref());
    all.extend(annotations.clone());
    let host = websocket.url.endpoint.host.clone();
    let backend = IngressServiceBackend {
        name: name(site),
        port: Some(ServiceBackendPort { name: Some(WEBSOCKET.into()), number: None }),
    };
    let path = HTTPIngressPath {
        path: Some(websocket.url.path.clone()),
        path_type: "Exact".into(),
        backend: IngressBackend { service: Some(backend), resource: None },
    };
    let tls = tls_secret
        .as_ref()
        .map(|secret| IngressTLS { hosts: Some(vec![host.clone()]), secret_name: Some(secret.to_string()) });
    Ingress {
        metadata: ObjectMeta { annotations: (!all.is_empty()).then_some(all), ..site.metadata(name(site)) },
        spec: Some(IngressSpec {
            ingress_class_name: class,
            default_backend: None,
            rules: Some(vec![IngressRule { host: Some(host), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }]),
            tls: tls.map(|tls| vec![tls]),
        }),
        status: None,
    }
}

/// What the controllers need to be told that we know.
fn controller_annotations(class: Option<&str>) -> BTreeMap<String, String> {
    let pairs: &[(&str, &str)] = match class {
        // It ends what is silent for 60 s, in either direction. A tunnel sends bytes after 10 s, in both: a second net.
        Some("nginx") => &[
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
            ("nginx.ingress.kubernetes.io/proxy-send-timeout", "3600"),
        ],
        // It asks at `/` whether a pod is well, and reaches nodes, unless it is told otherwise.
        Some("alb") => &[
            ("alb.ingress.kubernetes.io/healthcheck-path", "/healthz"),
            ("alb.ingress.kubernetes.io/scheme", "internet-facing"),
            ("alb.ingress.kubernetes.io/target-type", "ip"),
        ],
        _ => &[],
    };
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn http_route<'s>(site: &Site<'_>, websocket: &'s WebSocket) -> HttpRoute<'s> {
    let parent = match &websocket.front {
        Front::HttpRoute { gateway, namespace, listener } => Some(ParentRef {
            name: gateway.to_string(),
            namespace: namespace.as_ref().map(ToString::to_string),
            section_name: listener.as_ref().map(ToString::to_string),
        }),
        Front::Ingress { .. } => None,
    };
    let WebSocketUrl { endpoint, path, .. } = &websocket.url;
    let path = PathMatch { kind: "Exact", value: path };
    HttpRoute {
        api_version: "gateway.networking.k8s.io/v1",
        kind: "HTTPRoute",
        metadata: site.metadata(name(site)),
        spec: RouteSpec {
            parent_refs: parent.into_iter().collect(),
            hostnames: [&endpoint.host],
            rules: [RouteRule {
                matches: [RouteMatch { path }],
                backend_refs: [BackendRef { name: name(site), port: WEBSOCKET_PORT }],
            }],
        },
    }
}

/// An HTTPRoute, as far as one of ours goes: the Gateway API is not among the types of Kubernetes itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpRoute<'s> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: RouteSpec<'s>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteSpec<'s> {
    parent_refs: Vec<ParentRef>,
    hostnames: [&'s str; 1],
    rules: [RouteRule<'s>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParentRef {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    section_name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteRule<'s> {
    matches: [RouteMatch<'s>; 1],
    backend_refs: [BackendRef; 1],
}

#[derive(Serialize)]
struct RouteMatch<'s> {
    path: PathMatch<'s>,
}

#[derive(Serialize)]
struct PathMatch<'s> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'s str,
}

#[derive(Serialize)]
struct BackendRef {
    name: String,
    port: u16,
}
