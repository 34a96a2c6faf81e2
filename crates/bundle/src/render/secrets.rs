//! The namespace of a pod, and the Secrets in it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};

use super::site::Site;
use super::workload::{IDENTITY, TOKEN};
use crate::keys::{IDENTITY_KEY, TOKEN_KEY};

pub(super) fn namespace(site: &Site<'_>) -> Namespace {
    let mut metadata = site.bare_metadata(site.namespace());
    let label = ("pod-security.kubernetes.io/enforce".into(), pod_security(site).into());
    metadata.labels.get_or_insert_default().extend([label]);
    Namespace { metadata, ..Namespace::default() }
}

/// The pods keep to the strictest standard that there is; they are held to it.
pub(super) fn pod_security(site: &Site<'_>) -> &'static str {
    if site.cluster.tcp_sysctls { "privileged" } else { "restricted" }
}

pub(super) fn identity(site: &Site<'_>) -> Secret {
    secret(site, IDENTITY, IDENTITY_KEY, site.keys.identity.to_pem().expose())
}

pub(super) fn token(site: &Site<'_>) -> Option<Secret> {
    site.pod.expose.as_ref()?;
    Some(secret(site, TOKEN, TOKEN_KEY, site.keys.token.as_ref()?.expose()))
}

fn secret(site: &Site<'_>, name: &str, key: &str, value: &str) -> Secret {
    Secret {
        metadata: site.metadata(name),
        type_: Some("Opaque".into()),
        // Not `stringData`: the API server keeps only `data`, so each apply of the former would look like a change.
        data: Some(BTreeMap::from([(key.into(), ByteString(value.into()))])),
        ..Secret::default()
    }
}
