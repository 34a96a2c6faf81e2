//! What operators read is what is there.

use crate::pair::{Pair, echo, get};

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

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
