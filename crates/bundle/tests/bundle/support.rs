//! Keys, blueprints to start from, and manifests read back.

use std::path::{Path, PathBuf};

use ferry_bundle::{Blueprint, Bundle, Keys, Label, PodKeys, render};
use ferry_config::{Identity, Report, Secret};
use serde::de::DeserializeOwned;

/// Two identities that anybody can see are not secret: 32 times the same byte.
const FAKE_IDENTITIES: [&str; 2] = [
    "MC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
    "MC4CAQAwBQYDK2VwBCIEIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC",
];

pub(crate) const FINE: &str = include_str!("../../../../blueprints/fast-international-ferry/blueprint.yaml");
pub(crate) const SINGLE: &str = include_str!("../../../../blueprints/fast-ferry/blueprint.yaml");

/// The directory of the committed blueprints.
pub(crate) fn blueprints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints")
}

/// Keys that are the same in every run.
pub(crate) fn fake_keys(blueprint: &Blueprint) -> Keys {
    let mut keys = Keys::default();
    for (pod, der) in blueprint.pods.iter().zip(FAKE_IDENTITIES) {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
        let identity = Identity::of_pem(pem.as_bytes(), Path::new("fake")).unwrap();
        let token = pod.expose.as_ref().map(|_| Secret::new("not-a-secret".to_owned()));
        keys.insert(pod.id.clone(), PodKeys { identity, token });
    }
    keys
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
