//! What differs between two configurations, by the names of keys: no value is told.

use std::collections::BTreeSet;

use ferry_config::Tunnel;
use serde_json::{Map, Value};

/// What names an entry of a list.
const NAMES: [&str; 3] = ["name", "listen", "service"];

/// Paths of keys, such as `rotation.every`, `peers[b].keys` or `ingress[db] added`.
pub(crate) fn between(old: &Tunnel, new: &Tunnel) -> Vec<String> {
    let mut changes = Vec::new();
    if old.identity != new.identity {
        changes.push("identity".to_owned());
    }
    // Without the identity, which has no form in text.
    let values = |tunnel: &Tunnel| serde_json::to_value(tunnel.clone().with_identity(())).unwrap_or_default();
    compare("", &values(old), &values(new), &mut changes);
    changes
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let separator = if path.is_empty() { "" } else { "." };
            compare_maps(old, new, changes, |key| format!("{path}{separator}{key}"));
        }
        (Value::Array(old), Value::Array(new)) => match (by_name(old), by_name(new)) {
            (Some(old), Some(new)) => compare_maps(&old, &new, changes, |name| format!("{path}[{name}]")),
            _ => changes.push(path.to_owned()),
        },
        (Value::Null, _) => changes.push(format!("{path} added")),
        (_, Value::Null) => changes.push(format!("{path} removed")),
        _ => changes.push(path.to_owned()),
    }
}

fn compare_maps(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changes: &mut Vec<String>,
    path: impl Fn(&str) -> String,
) {
    for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let [old, new] = [old, new].map(|values| values.get(key).unwrap_or(&Value::Null));
        compare(&path(key), old, new, changes);
    }
}

/// A list whose entries have names, by these.
fn by_name(list: &[Value]) -> Option<Map<String, Value>> {
    let name = |entry: &Value| NAMES.iter().find_map(|name| entry.get(name)?.as_str().map(str::to_owned));
    list.iter().map(|entry| Some((name(entry)?, entry.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use ferry_config::Identity;

    use super::*;

    /// A configuration whose secrets and keys are made for it.
    fn parsed(dir: &std::path::Path, text: &str) -> Tunnel {
        std::fs::write(dir.join("tunnel.yaml"), format!("name: a\nidentity: a.key\n{text}")).unwrap();
        ferry_config::load(&dir.join("tunnel.yaml")).unwrap_or_else(|report| panic!("{report}")).tunnel
    }

    #[test]
    fn a_change_is_named_by_its_keys_and_shows_no_value() {
        let dir = tempfile::tempdir().unwrap();
        Identity::generate().unwrap().write_new(&dir.path().join("a.key")).unwrap();
        let [b, c, d] = [(); 3].map(|()| Identity::generate().unwrap().public_key());
        let old = format!(
            "listen: 127.0.0.1:1\npeers: [{{name: b, keys: [\"{b}\"]}}, {{name: c, keys: [\"{c}\"]}}]\n\
             ingress: [{{service: db, forward: \"h:1\", allow: [b]}}]\n"
        );
        let new = format!(
            "listen: 127.0.0.1:1\npeers: [{{name: b, keys: [\"{b}\", \"{d}\"]}}]\nrotation: {{every: 9s}}\n\
             ingress: [{{service: db, forward: \"h:1\", allow: [b]}}, {{service: web, forward: \"h:2\", allow: [b]}}]\n"
        );
        let (old, new) = (parsed(dir.path(), &old), parsed(dir.path(), &new));
        let expected = ["ingress[web] added", "peers[b].keys", "peers[c] removed", "rotation.every"];
        assert_eq!(between(&old, &new), expected);
        assert_eq!(between(&new, &new), [] as [String; 0]);
    }

    #[test]
    fn another_identity_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let read = || {
            let _ = std::fs::remove_file(dir.path().join("a.key"));
            Identity::generate().unwrap().write_new(&dir.path().join("a.key")).unwrap();
            parsed(dir.path(), "listen: 127.0.0.1:1\n")
        };
        assert_eq!(between(&read(), &read()), ["identity"]);
    }
}
