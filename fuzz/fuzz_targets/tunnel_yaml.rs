//! Arbitrary text as `tunnel.yaml`: reading it never panics, and every problem that is found can be printed.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match ferry_config::parse(text, Path::new("/etc/ferry")) {
        Ok(parsed) => assert!(!parsed.tunnel.name.as_str().is_empty()),
        Err(report) => {
            assert!(!report.problems().is_empty());
            assert!(report.to_string().lines().count() >= report.problems().len());
        }
    }
});
