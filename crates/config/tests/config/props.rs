//! What holds for any text and any value.

use std::path::Path;

use ferry_config::{HostPort, Name, PublicKey, parse};
use proptest::prelude::*;

use crate::support::fine;

/// Whatever the text, the answer is a tunnel or a report that can be printed line by line.
fn assert_answered(text: &str) -> Result<(), TestCaseError> {
    if let Err(report) = parse(text, Path::new("/etc/ferry")) {
        prop_assert!(!report.problems().is_empty());
        let shown = report.to_string();
        prop_assert_eq!(shown.lines().count(), report.problems().len());
        prop_assert!(!shown.replace('\n', "").contains(char::is_control), "{:?}", shown);
    }
    Ok(())
}

/// Text made of what documents are made of, so that it gets past the YAML parser now and then.
fn near_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("name"),
        Just("peers"),
        Just("keys"),
        Just("egress"),
        Just("ingress"),
        Just("allow"),
        Just("listen"),
        Just("rotation"),
        Just("limits"),
        Just(": "),
        Just(":"),
        Just("\n"),
        Just("\n  "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("&a "),
        Just("*a"),
        Just("<<"),
        Just("\""),
        Just("'"),
        Just("|\n"),
        Just("# "),
        Just("!!int "),
        Just("!x "),
        Just("? "),
        Just("---\n"),
        Just("30s"),
        Just("-1"),
        Just("1e9"),
        Just("~"),
        Just("on"),
        Just("\t"),
        Just("\u{feff}"),
        Just("\u{0}"),
        Just("é"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        assert_answered(&text)?;
    }

    #[test]
    fn text_that_looks_like_yaml_is_answered(text in near_yaml()) {
        assert_answered(&text)?;
    }

    #[test]
    fn a_damaged_document_is_answered(at in any::<prop::sample::Index>(), cut in 0..20_usize, put in near_yaml()) {
        let mut text: Vec<char> = fine().chars().collect();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, put.chars());
        assert_answered(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn keys_round_trip(bytes in any::<[u8; 32]>()) {
        let key = PublicKey::from_bytes(bytes).unwrap();
        prop_assert_eq!(key.as_bytes(), &bytes);
        prop_assert_eq!(key.to_string().parse(), Ok(key));
        prop_assert_eq!(PublicKey::from_spki_der(&key.spki_der()), Ok(key));
    }

    #[test]
    fn names_round_trip(text in "[a-z0-9][a-z0-9./-]{0,252}") {
        let name: Name = text.parse().unwrap();
        prop_assert_eq!(name.to_string(), text);
    }

    #[test]
    fn addresses_round_trip(text in any::<String>(), ip in any::<std::net::IpAddr>(), port in 1..=u16::MAX) {
        if let Ok(address) = text.parse::<HostPort>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
        let address = HostPort { host: ip.to_string(), port };
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }
}
