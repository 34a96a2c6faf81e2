//! The documentation is held to the program: every `ferry` command in it is one that the command line takes, and every
//! message that it quotes is one that some part of Ferry says.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::Cli as DemoCli;

/// Programs that are not ours: what begins with one is a command, and not something that Ferry says.
const PROGRAMS: [&str; 28] = [
    "bench",
    "brew",
    "cargo",
    "chmod",
    "curl",
    "cp",
    "docker",
    "git",
    "helm",
    "iperf3",
    "journalctl",
    "kubectl",
    "nc",
    "openssl",
    "perf",
    "pip",
    "promtool",
    "python3",
    "rep",
    "rustup",
    "sh",
    "ss",
    "ssh",
    "sudo",
    "systemctl",
    "ulimit",
    "wscat",
    "./build-images.sh",
];

/// Pages whose code is about other things than what Ferry takes and says: the wire, other tunnels, measurements.
const NOT_ABOUT_MESSAGES: [&str; 9] = [
    "benchmarks.md",
    "capacity.md",
    "guarantees.md",
    "keeper-protocol.md",
    "long-path.md",
    "protocol.md",
    "speed.md",
    "survival.md",
    "CHANGELOG.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page for users: name and text.
fn pages() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .iter()
        .map(|name| root().join(name))
        .chain(
            ["README.md", "deploy-multi.md", "k3d.md", "troubles-multi.md", "starter.yaml"]
                .iter()
                .map(|name| root().join("crates/bundle/src/text").join(name)),
        )
        .collect();
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let page = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(page).collect()
}

/// The code of a page: lines of blocks, and spans within a text.
#[derive(Default)]
struct Code {
    lines: Vec<String>,
    spans: Vec<String>,
}

impl Code {
    fn of(page: &str) -> Self {
        let (mut code, mut prose) = (Self::default(), String::new());
        let mut fenced = false;
        for line in page.lines() {
            match line.trim_start() {
                fence if fence.starts_with("```") => fenced = !fenced,
                inner if fenced || line.starts_with("    ") || line.starts_with("#   ") => {
                    code.lines.push(inner.trim_start_matches("# ").trim().to_owned());
                }
                inner => prose += &format!("{inner} "),
            }
        }
        code.spans = prose.split('`').skip(1).step_by(2).map(|span| span.trim().to_owned()).collect();
        code
    }
}

/// The commands of ferry in a line of a shell, as words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start_matches("$ ").replace("cargo run --release -- ", "ferry-demo ");
    let Some(words) = shlex::split(&line) else { return Vec::new() };
    let ours = |words: &[String]| {
        let at = words.iter().position(|word| {
            ["ferry", "ferry-demo"].contains(&word.as_str()) || word.ends_with("/ferry") && !word.contains('=')
        })?;
        // In front of it are variables, or a program that runs it.
        let first = words.first().filter(|_| at > 0);
        let runs = first.is_none_or(|first| first.contains('=') || ["kubectl", "sudo"].contains(&first.as_str()));
        let end = words.iter().position(|word| word.starts_with(['<', '>'])).unwrap_or(words.len());
        runs.then(|| words[at..end].to_vec())
    };
    words.split(|word| ["&&", "||", "|", ";", "&"].contains(&word.as_str())).filter_map(ours).collect()
}

/// What keeps the command line from taking a command. Words in capitals stand for values; where only a part of a command is
/// named, what is missing does not count.
fn mistake(command: &[String], whole: bool) -> Option<String> {
    let value = |word: &String| match word.as_str() {
        "URL" => "http://127.0.0.1:8000".to_owned(),
        "SECONDS" | "N" | "MESSAGES" | "COUNT" => "1".to_owned(),
        "TIME" => "1s".to_owned(),
        "ADDRESS" => "127.0.0.1:1".to_owned(),
        "." => ".".to_owned(),
        word => word.replace('\u{2026}', "x").trim_end_matches(['.', ',']).to_owned(),
    };
    let words = command.iter().map(value);
    // The binary that is shipped has no demo: that one is run from the sources.
    let parsed = match command.first().map(String::as_str) {
        Some("ferry-demo") => DemoCli::try_parse_from(words).map(drop),
        _ => ferry::Cli::try_parse_from(words).map(drop),
    };
    let error = parsed.err()?;
    let partial = [ErrorKind::MissingRequiredArgument, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
        kind if !whole && partial.contains(&kind) => None,
        _ => Some(format!("{}\n{error}", command.join(" "))),
    }
}

#[test]
fn every_command_in_the_documentation_is_taken() {
    let (mut seen, mut mistakes) = (0, Vec::new());
    for (name, text) in pages() {
        let code = Code::of(&text.replace("{{", "x").replace("}}", "x"));
        let lines = code.lines.iter().map(|line| (line, true));
        let spans = code.spans.iter().filter(|span| span.starts_with("ferry ")).map(|span| (span, false));
        for (line, whole) in lines.chain(spans) {
            for command in commands(line) {
                seen += 1;
                mistakes.extend(mistake(&command, whole).map(|mistake| format!("{name}: {mistake}")));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(seen > 30, "only {seen} commands were found");
}

/// Whether a span is something that Ferry says: words, and no command, request, setting or piece of code.
fn is_message(span: &str) -> bool {
    let first = span.split_whitespace().next().unwrap_or_default();
    let setting = first.ends_with(':') && first.bytes().all(|b| b.is_ascii_lowercase() || b"_.[]:".contains(&b));
    let request = ["GET", "POST", "Authorization:", "Idempotency-Key:", "kind:"].contains(&first);
    let code = span.contains(['{', '(', '=', '/']) || span.starts_with(['"', '-', '[', '.', '<']);
    let plain = first.chars().all(|c| c.is_lowercase() || c == '\u{2026}' || c == ':') || first == "TLS";
    span.contains(' ') && plain && !setting && !request && !code && first != "ferry" && !PROGRAMS.contains(&first)
}

/// Everything that Ferry could say: its sources, with broken strings as one line.
fn sayings() -> String {
    fn collect(dir: &Path, all: &mut String) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            if entry.is_dir() && !["tests", "target"].contains(&name.as_str()) {
                collect(&entry, all);
            } else if name != "documented.rs" && [".rs", ".sh", ".py"].iter().any(|end| name.ends_with(end)) {
                *all += &fs::read_to_string(&entry).unwrap();
            }
        }
    }
    let mut all = String::new();
    collect(&root().join("crates"), &mut all);
    let mut said = String::new();
    let mut lines = all.lines();
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while line.ends_with('\\') {
            line.pop();
            line += lines.next().unwrap_or_default().trim_start();
        }
        said += &line;
        said.push('\n');
    }
    said
}

#[test]
fn every_message_that_the_documentation_quotes_is_one_that_ferry_says() {
    let sayings = sayings();
    let (mut seen, mut unsaid) = (0, Vec::new());
    for (name, text) in pages().into_iter().filter(|(name, _)| !NOT_ABOUT_MESSAGES.contains(&name.as_str())) {
        for span in Code::of(&text).spans.iter().filter(|span| is_message(span)) {
            seen += 1;
            // What differs from time to time is written as an ellipsis.
            let fixed = span.split('\u{2026}').map(|part| part.trim_matches([' ', ':']));
            let missing: Vec<_> = fixed.filter(|part| !part.is_empty() && !sayings.contains(part)).collect();
            if !missing.is_empty() {
                unsaid.push(format!("{name}: `{span}`: nothing says {missing:?}"));
            }
        }
    }
    assert!(unsaid.is_empty(), "{}", unsaid.join("\n"));
    assert!(seen > 5, "only {seen} messages were found");
}
