//! Keys, blueprints to start from, and manifests read back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;

use ferry_bundle::{Blueprint, Bundle, Keys, Label, PodKeys, render};
use ferry_config::{Identity, Report, Secret};

/// Made for this run: no private key is in the repository.
static IDENTITIES: LazyLock<[Identity; 8]> = LazyLock::new(|| [(); 8].map(|()| Identity::generate().unwrap()));

/// What the committed bundles have in the place of every public key.
const PLACE_OF_A_KEY: &str = "ferry:pub:MADE-BY-ferry-bundle";

pub(crate) const FINE: &str = include_str!("../../../../blueprints/fast-international-ferry/blueprint.yaml");
/// Services and no web-apps.
pub(crate) const POSTGRESQL: &str = include_str!("../../../../examples/postgresql/blueprint.yaml");
/// Links of every kind.
pub(crate) const ANY_NETWORK: &str = include_str!("../../../../examples/any-network/blueprint.yaml");
pub(crate) const SINGLE: &str = include_str!("../../../../blueprints/fast-ferry/blueprint.yaml");

/// The directory of the committed blueprints.
pub(crate) fn blueprints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints")
}

/// Keys that are the same throughout a run.
pub(crate) fn fake_keys(blueprint: &Blueprint) -> Keys {
    let mut keys = Keys::default();
    for (pod, identity) in blueprint.pods.iter().zip(IDENTITIES.iter()) {
        let token = pod.expose.as_ref().map(|_| Secret::new("not-a-secret".to_owned()));
        keys.insert(pod.id.clone(), PodKeys { identity: identity.clone(), also: BTreeSet::new(), token });
    }
    keys
}

/// One of the keys that the committed bundles once held: 32 times the same byte, in PEM.
pub(crate) fn published_key(byte: u8) -> String {
    let prefix = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = STANDARD.encode([&prefix[..], &[byte; 32]].concat());
    format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
}

/// `text` as a committed bundle has it: with a place-holder for whatever depends on the keys.
pub(crate) fn without_keys(text: &str) -> String {
    let keys = IDENTITIES.iter().map(|identity| identity.public_key().to_string());
    let text = keys.fold(text.to_owned(), |text, key| text.replace(&key, PLACE_OF_A_KEY));
    let digest = |line: &str| line.trim_start().starts_with("ferry-rendered: ");
    let masked = |line: &str| match line.split_once("ferry-rendered: ").filter(|_| digest(line)) {
        Some((indent, _)) => format!("{indent}ferry-rendered: MADE-BY-ferry-bundle\n"),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(masked).collect()
}

#[track_caller]
pub(crate) fn accepted(text: &str) -> Blueprint {
    Blueprint::parse("blueprint.yaml", text).unwrap_or_else(|report| panic!("{report}\n{text}"))
}

#[track_caller]
pub(crate) fn refused(text: &str) -> Report {
    match Blueprint::parse("blueprint.yaml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report,
    }
}

#[track_caller]
pub(crate) fn rendered(text: &str) -> Bundle {
    let blueprint = accepted(text);
    let keys = fake_keys(&blueprint);
    render(&blueprint, text, &keys).unwrap()
}

/// [`FINE`] with one part replaced.
#[track_caller]
pub(crate) fn with(from: &str, to: &str) -> String {
    assert!(FINE.contains(from), "no {from:?} in the blueprint");
    FINE.replacen(from, to, 1)
}

/// Three clusters, of which B alone can be dialled from everywhere and C not at all; services go both ways, and there are
/// web-apps, too.
pub(crate) fn mesh() -> String {
    let services = "\
services:
  - {name: orders-db, cluster: cluster-b, target: postgres.shop.svc:5432, reach_from: [cluster-a, cluster-c]}
  - {name: cache, cluster: cluster-b, target: redis.shop.svc:6379, port: 6380, reach_from: [cluster-a], namespaces: [web],
     limits: {sessions: 50, bytes_per_second: 5MB}}
  - {name: metrics, cluster: cluster-a, target: 192.0.2.7:9090, reach_from: [cluster-b]}
  - {name: billing, cluster: cluster-c, target: billing.example.com:443, reach_from: [cluster-a]}
";
    let clusters = ", address: host.k3d.internal}\n  - {id: cluster-c, context: k3d-cluster-c}\n";
    let gateway =
        "cluster: cluster-b}\n  - {id: west, template: gateway, cluster: cluster-b, port: 30201, namespace: remote}\n";
    let text = with(", address: host.k3d.internal}\n", clusters).replacen("cluster: cluster-b}\n", gateway, 1);
    text + services
}

pub(crate) fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// The only object of its kind in a file.
#[track_caller]
pub(crate) fn object<T: DeserializeOwned + k8s_openapi::Resource>(bundle: &Bundle, path: &str) -> T {
    let mut objects = objects(bundle, path);
    assert_eq!(objects.len(), 1, "objects of kind {} in {path}", T::KIND);
    objects.remove(0)
}

/// The objects of a kind in a file.
#[track_caller]
pub(crate) fn objects<T: DeserializeOwned + k8s_openapi::Resource>(bundle: &Bundle, path: &str) -> Vec<T> {
    let text = bundle.text(path).unwrap_or_else(|| panic!("no {path}"));
    let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter()
        .filter(|value| value["kind"] == T::KIND)
        .map(|value| serde_json::from_value(value).unwrap())
        .collect()
}
