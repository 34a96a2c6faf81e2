//! Help, completions, and command lines that cannot be used.

use clap::CommandFactory as _;

use crate::support::{code, command, ferry, stderr, stdout};

/// The names of all commands.
fn commands() -> Vec<String> {
    ferry::Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[test]
fn every_command_teaches_by_example() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for name in &commands {
        let output = ferry(&[name.as_str(), "--help"]);
        assert_eq!(code(&output), 0, "{name}");
        let help = stdout(&output);
        let (_, examples) = help.split_once("Examples:").unwrap_or_else(|| panic!("{name} has no example:\n{help}"));
        assert!(examples.contains(&format!("ferry {name}")), "{name} is not in its examples:\n{help}");
    }
    let output = ferry(&["--help"]);
    assert_eq!(code(&output), 0);
    for name in &commands {
        assert!(stdout(&output).lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}");
    }
}

#[test]
fn there_are_completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = ferry(&["completions", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        for name in commands() {
            assert!(stdout(&output).contains(&name), "{shell} does not know {name}");
        }
    }
}

#[test]
fn misuse_is_exit_code_2_with_a_word_on_what_to_do() {
    let cases: [&[&str]; 10] = [
        &[],
        &["nonsense"],
        &["tunnel"],
        &["keygen"],
        &["initiator", "--listen", "nowhere"],
        &["initiator", "--peer", "http://127.0.0.1:1/"],
        &["terminator", "--output-max", "0"],
        &["send", "127.0.0.1:8000"],
        &["output", "https://example.com"],
        &["send", "http://127.0.0.1:8000", "--to", "a,b"],
    ];
    for args in cases {
        let output = ferry(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn an_environment_that_cannot_be_used_is_misuse() {
    for (name, value) in [
        ("FERRY_LISTEN", "nowhere"),
        ("FERRY_PEER", "wss://far/ws"),
        ("FERRY_AUTO_TRIGGER", "many"),
        ("FERRY_LOG", "ferry=nonsense"),
        ("FERRY_LOG_FORMAT", "xml"),
        ("POD_NAME", "a\tb"),
    ] {
        let output = command(&["initiator", "--listen", "127.0.0.1:0"][..if name == "FERRY_LISTEN" { 1 } else { 3 }])
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{name}={value}: {}", stderr(&output));
    }
}
