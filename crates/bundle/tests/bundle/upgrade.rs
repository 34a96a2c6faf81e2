//! What `ferry upgrade` takes of a bundle is where the bundle has it.

use serde_json::Value;

use crate::manifests::pod_spec;
use crate::support::{FINE, POSTGRESQL, accepted, rendered};
use ferry_bundle::upgrade::{Overlay, Place, overlay};

/// The operations of an overlay's patch.
fn operations(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("- {\""));
    lines.map(|line| serde_json::from_str(&format!("{{\"{line}")).unwrap()).collect()
}

#[test]
fn an_overlay_changes_the_image_of_the_tunnel_wherever_its_container_is() {
    for blueprint in [FINE, POSTGRESQL] {
        let bundle = rendered(blueprint);
        for site in accepted(blueprint).tunnels() {
            let Overlay::Write(text) = overlay(&site, site.place, "ferry:2", None) else { panic!("{site:?}") };
            let spec = serde_json::to_value(pod_spec(&bundle, &site.pod)).unwrap();
            let there = |operation: &Value| {
                let path = operation["path"].as_str().unwrap().strip_prefix("/spec/template/spec").unwrap();
                spec.pointer(path).unwrap_or_else(|| panic!("{path} of {}", site.pod)).clone()
            };
            let [test, replace] = &operations(&text)[..] else { panic!("{text}") };
            assert_eq!((there(test), &test["value"]), ("tunnel".into(), &"tunnel".into()));
            assert_eq!((there(replace), &replace["value"]), (site.image.clone().into(), &"ferry:2".into()));
            assert!(text.contains(&format!("resources: [../../{}]\n", site.pod)), "{text}");
        }
    }
}

#[test]
fn an_overlay_goes_with_its_reason_and_one_of_the_users_stays() {
    let site = accepted(FINE).tunnels().remove(0);
    let of = |image: &str, there: Option<&str>| overlay(&site, Place::InitContainers, image, there);
    let Overlay::Write(ours) = of("ferry:2", None) else { panic!("none is written") };
    assert!(matches!(of("ferry:3", Some(&ours)), Overlay::Write(text) if text.contains("ferry:3")));
    assert_eq!(of(&site.image, Some(&ours)), Overlay::Remove);
    assert_eq!(of(&site.image, None), Overlay::None);
    for there in ["", "resources: [../../initiator]\n"] {
        assert!(matches!(of("ferry:2", Some(there)), Overlay::Others(text) if text.contains("ferry:2")));
    }
}
