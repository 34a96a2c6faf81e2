//! The specification and the code say the same, and each rule that the code quotes stands in the specification.

use std::path::Path;

use ferry_session::{HEADER, INITIAL_WINDOW, MAX_FRAME, MAX_PAYLOAD, MAX_REASON, MAX_SERVICE};

fn specification() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md")
}

/// Without line breaks and indentation.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_rule_that_the_code_quotes_stands_in_the_specification() {
    let specification = flat(&specification());
    let mut quoted = 0;
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for comment in source.lines().filter_map(|line| line.trim_start().strip_prefix("// \"")) {
            let (rule, _) = comment.split_once('"').expect("a whole rule in one line");
            assert!(specification.contains(&format!("\"{rule}\"")), "not in the specification: {rule}");
            quoted += 1;
        }
    }
    assert!(quoted >= 10, "{quoted} rules");
}

#[test]
fn the_bounds_in_the_specification_are_those_of_the_code() {
    let specification = flat(&specification());
    let thousands = |number: u64| format!("{},{:03}", number / 1_000, number % 1_000);
    let bounds = [
        format!("| 10 | Data | offset (8), payload | 9 to {} |", thousands((MAX_FRAME - HEADER) as u64)),
        format!("`payload` is 1 to {} bytes", thousands(MAX_PAYLOAD as u64)),
        format!("longer than {} bytes", thousands(MAX_FRAME as u64)),
        format!("`service` is 1 to {MAX_SERVICE} bytes of UTF-8, `reason` 0 to {MAX_REASON}."),
        format!("window of {} for the opener's bytes", thousands(INITIAL_WINDOW)),
    ];
    for bound in bounds {
        assert!(specification.contains(&bound), "{bound}");
    }
}
