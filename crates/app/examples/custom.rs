//! A terminator with hooks in Rust: it refuses readings without a sensor, and prints those that arrive.
//! Try it: `cargo run -p ferry-app --example custom`

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_app::{Access, BoxFuture, Config, HookError, Hooks, Payload, Role, Webapp};

struct Readings;

impl Hooks for Readings {
    fn on_trigger<'a>(
        &'a self,
        payload: Payload,
        _headers: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Payload, HookError>> {
        Box::pin(async move {
            if payload.to_object()?.contains_key("sensor") {
                Ok(payload)
            } else {
                Err(HookError::Invalid("no sensor".into()))
            }
        })
    }

    fn on_receive_terminator(&self, payload: Payload) -> BoxFuture<'_, Result<Option<Payload>, HookError>> {
        println!("{}", payload.as_str());
        Box::pin(async { Ok(None) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (role, listen) = (Role::Terminator, "127.0.0.1:8000".parse()?);
    let (pod, cluster, data) = ("readings".into(), "cluster-b".into(), "ferry-data".into());
    let config =
        Config { role, listen, pod, cluster, auto_trigger: 0, output_max: 10_000, data, access: Access::default() };
    Ok(Webapp::start(config, Arc::new(Readings))?.stopped().await?)
}
