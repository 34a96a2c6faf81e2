//! What a process says of itself.

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::{common, resource as proto};
use opentelemetry_sdk::Resource;

use crate::environment::{self, variable};

/// What is exported of a process: its name, unless the environment gives another, and what `attributes` say of it.
pub fn resource(service: &'static str, attributes: &[(&'static str, &str)]) -> Resource {
    let is_named = environment::is_named(&variable);
    let attributes = attributes.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned()));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let own = Resource::builder_empty().with_attributes(attributes).with_attribute(version);
    let own = if is_named { own } else { own.with_service_name(service) };
    // What the environment says comes last, and wins; without a name of its own it has only a guess.
    let said = Resource::builder().build();
    let guess = |name: &opentelemetry::Key| !is_named && name.as_str() == "service.name";
    let said =
        said.iter().filter(|(name, _)| !guess(name)).map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    own.with_attributes(said.collect::<Vec<_>>()).build()
}

/// As it is sent.
pub(crate) fn proto(resource: &Resource) -> proto::v1::Resource {
    let attributes = resource.iter().map(|(name, value)| common::v1::KeyValue {
        key: name.to_string(),
        value: Some(value.clone().into()),
        ..Default::default()
    });
    proto::v1::Resource { attributes: attributes.collect(), ..Default::default() }
}

pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "ferry".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    }
}
