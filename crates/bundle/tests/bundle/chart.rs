//! The chart that `ferry bundle --chart` adds. What it renders is compared in `.ci/chart.py`, as that takes Helm.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{FINE, POSTGRESQL, SINGLE, accepted, fake_keys, mesh, with};
use ferry_bundle::{Bundle, add_chart, render};
use ferry_config::Settings;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn charted(text: &str) -> Bundle {
    let blueprint = accepted(text);
    let keys = fake_keys(&blueprint);
    let mut bundle = render(&blueprint, text, &keys).unwrap();
    add_chart(&mut bundle, &blueprint, &keys).unwrap();
    bundle
}

fn parsed(bundle: &Bundle, path: &str) -> Value {
    let text = bundle.text(path).unwrap_or_else(|| panic!("no {path}"));
    serde_saphyr::from_str(text).unwrap()
}

/// Blueprints that have every key between them.
fn blueprints() -> [String; 8] {
    let exposed = with(
        "cluster: cluster-b}\n",
        "cluster: cluster-b, expose: {namespace: in}}\ntunnel: {drain: 1m, congestion: bbr}\n\
         storage: {size: 2GiB, class: fast}\nmetrics: {namespace: monitoring}\n\
         traces: {endpoint: \"http://otel.monitoring.svc:4318\"}\n",
    );
    let cloud = "cloud: azure, static_address: ferry-b, source_ranges: [192.0.2.0/24], tcp_sysctls: true";
    let exposed = exposed.replace("address: host.k3d.internal", cloud);
    let websocket = "{websocket: \"wss://f.example.com/x#max_life=30m\", ingress: {class: nginx, tls_secret: s, annotations: {a/b: c}}}";
    let ingress = with("port: 30200", &format!("port: 30200, links: [tcp, quic, {websocket}]"));
    let route = "links: [{websocket: \"wss://f.example.com\", http_route: {gateway: g, namespace: n, listener: l}}]";
    let route = POSTGRESQL.replace("port: 30200, address: host.k3d.internal", route);
    let replicas =
        format!("{POSTGRESQL}pods:\n  - {{id: b, template: gateway, cluster: cluster-b, namespace: n, replicas: 3}}\n");
    [FINE.to_owned(), SINGLE.to_owned(), POSTGRESQL.to_owned(), mesh(), exposed, ingress, route, replicas]
}

fn values(bundle: &Bundle) -> Vec<(&str, Value)> {
    let paths =
        bundle.files().keys().filter(|path| path.starts_with("chart/values-") || path.starts_with("chart/secrets-"));
    paths.map(|path| (path.as_str(), parsed(bundle, path))).collect()
}

/// Adds the paths of the keys in `value`, and says which of them `schema` does not know.
fn unknown_to(schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            // Annotations, files, resources: any key may be there.
            let Some(properties) = schema["properties"].as_object() else { return };
            for (key, inner) in map {
                match properties.get(key) {
                    Some(known) => unknown_to(known, inner, &format!("{path}.{key}"), unknown),
                    None => unknown.push(format!("{path}.{key}")),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unknown_to(&schema["items"], item, path, unknown)),
        _ => {}
    }
}

#[test]
fn the_binary_has_the_whole_chart() {
    let bundle = charted(FINE);
    let dir = root().join("contrib/chart/ferry");
    let mut there = BTreeSet::new();
    for folder in ["", "files/", "templates/"] {
        for entry in fs::read_dir(dir.join(folder)).unwrap().map(Result::unwrap) {
            // Links, too: what is elsewhere in the repository.
            if entry.path().is_file() {
                there.insert(format!("{folder}{}", entry.file_name().to_str().unwrap()));
            }
        }
    }
    let has = bundle.files().keys().filter_map(|path| path.strip_prefix("chart/ferry/"));
    assert_eq!(has.map(str::to_owned).collect::<BTreeSet<_>>(), there);
    for path in there {
        assert_eq!(bundle.text(&format!("chart/ferry/{path}")), fs::read_to_string(dir.join(&path)).ok().as_deref());
    }
    let chart = parsed(&bundle, "chart/ferry/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(version), Some(version)));
}

#[test]
fn the_chart_has_the_defaults_of_a_tunnel() {
    let values = parsed(&charted(FINE), "chart/ferry/values.yaml");
    let mut defaults = serde_json::to_value(Settings::default()).unwrap();
    // A default that is not written: a build of before does not read it.
    defaults["resume"]["buffer"] = "auto".into();
    assert_eq!(values["tunnel"], defaults);
}

#[test]
fn the_schema_knows_every_value_and_describes_it() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            // What is Kubernetes' own is described there.
            if inner["description"].as_str().is_none() && !path.starts_with(".pod.") {
                found.push(path.clone());
            }
            undescribed(inner, &path, found);
            undescribed(&inner["items"], &path, found);
        }
        let is_open = schema["properties"].is_object() && schema["additionalProperties"] != false;
        assert!(!is_open, "{path} takes keys that nothing reads");
    }
    let bundle = charted(FINE);
    let schema: Value = serde_json::from_str(bundle.text("chart/ferry/values.schema.json").unwrap()).unwrap();
    let mut found = Vec::new();
    undescribed(&schema, "", &mut found);
    unknown_to(&schema, &parsed(&bundle, "chart/ferry/values.yaml"), "values.yaml", &mut found);
    for text in blueprints() {
        for (path, value) in values(&charted(&text)) {
            unknown_to(&schema, &value, path, &mut found);
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_page_of_the_chart_names_every_value() {
    fn names(schema: &Value, path: &str, all: &mut Vec<String>) {
        for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let is_list = inner["items"]["properties"].is_object();
            match inner["properties"].is_object() || is_list {
                true if is_list => names(&inner["items"], &format!("{path}[]"), all),
                true => names(inner, &path, all),
                false => all.push(path),
            }
        }
    }
    let bundle = charted(FINE);
    let schema: Value = serde_json::from_str(bundle.text("chart/ferry/values.schema.json").unwrap()).unwrap();
    let mut all = Vec::new();
    names(&schema, "", &mut all);
    let page = fs::read_to_string(root().join("docs/chart.md")).unwrap();
    let known: BTreeSet<_> = page.split('`').skip(1).step_by(2).collect();
    // Settings of a tunnel and fields of a pod have pages of their own.
    let own = |path: &&String| !["tunnel.", "pod.", "global"].iter().any(|prefix| path.starts_with(prefix));
    let missing: Vec<_> = all.iter().filter(own).filter(|path| !known.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "docs/chart.md does not name {missing:?}");
}

#[test]
fn keys_are_in_files_of_their_own() {
    for text in blueprints() {
        let bundle = charted(&text);
        let secrets: Vec<_> = values(&bundle).into_iter().filter(|(path, _)| path.contains("/secrets-")).collect();
        assert_eq!(secrets.len(), accepted(&text).pods.len());
        for (path, value) in secrets {
            let pem = value["identity"]["pem"].as_str().unwrap();
            assert!(pem.contains("PRIVATE KEY"), "{path}");
            assert_eq!(bundle.files()[path].mode, 0o600, "{path}");
        }
        for (path, _) in bundle.files().iter().filter(|(path, _)| path.starts_with("chart/values-")) {
            assert!(!bundle.text(path).unwrap().contains("PRIVATE KEY"), "{path}");
        }
        assert!(bundle.text("chart/.gitignore").unwrap().contains("secrets-*.yaml"));
    }
}

#[test]
fn the_chart_changes_nothing_else_of_a_bundle() {
    for text in blueprints() {
        let blueprint = accepted(&text);
        let without = render(&blueprint, &text, &fake_keys(&blueprint)).unwrap();
        let with = charted(&text);
        for (path, file) in without.files() {
            assert_eq!(with.files().get(path), Some(file), "{path}");
        }
        assert!(with.files().keys().all(|path| without.files().contains_key(path) || path.starts_with("chart/")));
    }
}
