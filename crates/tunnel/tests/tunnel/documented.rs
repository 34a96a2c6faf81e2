//! What operators read is what is there.

use std::collections::BTreeSet;

use crate::pair::{Pair, echo, get};
use crate::scene::exchange;

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");
const MESSAGES: &str = include_str!("../../../../docs/messages.md");
const RULES: &str = include_str!("../../../../contrib/prometheus/ferry.rules.yaml");
const RULES_TEST: &str = include_str!("../../../../contrib/prometheus/ferry.rules.test.yaml");
const DASHBOARD: &str = include_str!("../../../../contrib/prometheus/ferry-dashboard.json");

#[tokio::test]
async fn every_metric_is_in_the_operations_manual_and_every_one_there_exists() {
    let pair = Pair::start(echo().await).await;
    let (_, text) = get(pair.near.addresses().admin.unwrap(), "/metrics").await;
    let mut served: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect();
    let mut documented: Vec<String> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("| `ferry_"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| format!("ferry_{name}"))
        .collect();
    served.sort();
    documented.sort();
    assert_eq!(served, documented);
}

/// The words of a text that may be names of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ferry_") && word.len() > "ferry_".len()).collect()
}

#[tokio::test]
async fn every_metric_of_the_rules_and_the_dashboard_exists() {
    let pair = Pair::start(echo().await).await;
    exchange(&mut pair.connect().await).await;
    let (_, metrics) = get(pair.near.addresses().admin.unwrap(), "/metrics").await;
    let served: BTreeSet<_> = metrics.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let app = names(MESSAGES);
    for text in [RULES, RULES_TEST, DASHBOARD] {
        let used = names(text);
        assert!(used.len() > 5, "{used:?}");
        for name in used {
            let base = name.trim_end_matches("_bucket");
            let exists = if name.starts_with("ferry_app_") { app.contains(base) } else { served.contains(name) };
            assert!(exists, "there is no metric {name}");
        }
    }
}

#[test]
fn every_alert_leads_to_a_page_of_the_runbook() {
    let headings = RULES.lines().filter_map(|line| line.trim().strip_prefix("runbook: "));
    let missing: Vec<_> = headings.filter(|heading| !OPERATIONS.contains(&format!("\n**{heading}**"))).collect();
    assert_eq!(missing, [] as [&str; 0]);
}
