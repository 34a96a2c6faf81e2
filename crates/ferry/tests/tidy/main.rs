//! What holds for the whole workspace, and no compiler checks.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod documents;
mod imports;
mod style;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer than this, in lines.
const MAX_LINES: usize = 500;
const MAX_ARCHITECTURE_LINES: usize = 300;
/// Our crates, and which of ours each may depend on; tests may use more.
const MAY_DEPEND_ON: [(&str, &[&str]); 19] = [
    ("session", &[]),
    ("arena", &["session"]),
    ("units", &[]),
    ("config", &["units"]),
    ("relay", &[]),
    ("processes", &[]),
    ("golden", &[]),
    ("log", &[]),
    ("host", &[]),
    ("text", &[]),
    ("keeper", &[]),
    ("slice", &[]),
    ("otlp", &[]),
    ("trace", &["otlp"]),
    ("app", &["log", "host", "text", "trace", "units"]),
    ("bundle", &["config"]),
    ("tunnel", &["session", "config", "log", "host", "text", "trace", "units", "keeper", "arena", "slice"]),
    // What is shipped: no fault relay, nothing that only the demo needs.
    (
        "ferry",
        &[
            "session", "config", "app", "bundle", "tunnel", "log", "host", "text", "otlp", "trace", "units", "keeper",
            "slice",
        ],
    ),
    ("demo", &["ferry", "config", "relay"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every Rust source file of the workspace with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut files = Vec::new();
    for part in ["crates", "bench", "fuzz"] {
        walk(&root.join(part), &mut files);
    }
    let texts = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    texts
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&root).unwrap().to_owned(), text)
        })
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    // A part that is not there yet has nothing to check.
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && name != "target" && name != "corpus" && name != "artifacts" => walk(&path, files),
            kind if kind.is_file() => files.push(path),
            _ => {}
        }
    }
}

/// The names of a crate's dependencies, those of its tests left out.
fn dependencies(manifest: &Path) -> Vec<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut within = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            within = section == "dependencies" || section.ends_with(".dependencies");
            names.extend(section.split_once("dependencies.").map(|(_, name)| name.to_owned()));
        } else if within && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap();
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

#[test]
fn no_source_file_is_too_long() {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were not found");
    for (path, text) in sources {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines, {MAX_LINES} is the cap: split it", path.display());
    }
}

#[test]
fn nothing_is_left_for_later_in_the_sources() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("unimple", "mented!"),
        concat!("to", "do!("),
    ];
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{} has {found:?}", path.display(), number + 1);
        }
    }
}

#[test]
fn crates_depend_in_one_direction() {
    for entry in fs::read_dir(root().join("crates")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let allowed = MAY_DEPEND_ON.iter().find(|(known, _)| *known == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("the crate {name} has no place in the architecture yet"));
        for dependency in dependencies(&entry.path().join("Cargo.toml")) {
            let ours = if dependency == "ferry" { Some("ferry") } else { dependency.strip_prefix("ferry-") };
            if let Some(ours) = ours {
                assert!(allowed.contains(&ours), "{name} must not depend on {ours}");
            }
        }
    }
}

#[test]
fn the_session_knows_no_runtime() {
    let dependencies = dependencies(&root().join("crates/session/Cargo.toml"));
    let input_or_output = ["tokio", "mio", "socket2", "rustls", "getrandom", "tracing"];
    for dependency in dependencies {
        assert!(!input_or_output.contains(&dependency.as_str()), "session depends on {dependency}");
    }
}

/// The crates with `unsafe` code: memory that outlives the process, and a system call that no library offers.
const ISLANDS: [&str; 2] = ["arena", "slice"];

#[test]
fn only_memory_and_slices_have_code_that_the_compiler_cannot_check() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""), "the workspace forbids it");
    for (name, _) in MAY_DEPEND_ON.iter().filter(|(name, _)| !ISLANDS.contains(name)) {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} has lints of its own");
    }
    for (path, text) in sources() {
        let allows = text.lines().filter(|line| line.contains(concat!("allow(", "unsafe_code)"))).count();
        let marked = text.matches("SAFETY:").count();
        let island = ISLANDS.iter().any(|island| path.starts_with(format!("crates/{island}/src")));
        assert!(island || allows == 0, "{} allows unsafe code", path.display());
        let blocks = text.matches(concat!("unsafe", " {")).count() + text.matches(concat!("unsafe", " impl")).count();
        assert!(!island || blocks <= marked, "{}: an unsafe block without its invariant", path.display());
    }
}

#[test]
fn only_the_tunnel_and_there_only_tls_names_rustls() {
    // Collectors are no peers, and get nothing that a session carries.
    let to_collectors = Path::new("crates/otlp/src/tls.rs");
    for (path, text) in sources() {
        let is_allowed = path.starts_with("crates/tunnel/src/transport/tls")
            || path == to_collectors
            || !path.components().any(|part| part.as_os_str() == "src");
        let names_it = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("rustls::"));
        assert!(is_allowed || !names_it, "{} names rustls", path.display());
    }
    for (name, _) in MAY_DEPEND_ON.iter().filter(|(name, _)| !["tunnel", "otlp"].contains(name)) {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        if manifest.exists() {
            assert!(!dependencies(&manifest).contains(&"rustls".to_owned()), "{name} depends on rustls");
        }
    }
}

#[test]
fn every_test_that_a_guarantee_names_exists() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    for name in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
        assert!(sources.contains(&format!("fn {name}(")), "no test is called {name}");
    }
}

#[test]
fn the_architecture_stays_short() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let lines = text.lines().count();
    assert!(lines <= MAX_ARCHITECTURE_LINES, "ARCHITECTURE.md has {lines} lines, {MAX_ARCHITECTURE_LINES} is the cap");
}

/// Every file of the repository; without git, every file there is.
fn committed() -> Vec<PathBuf> {
    let root = root();
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output();
    if let Some(listed) = listed.ok().filter(|listed| listed.status.success()) {
        let paths = String::from_utf8(listed.stdout).unwrap();
        return paths.split_terminator('\0').map(|path| root.join(path)).filter(|path| path.is_file()).collect();
    }
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
}

#[test]
fn no_private_key_is_in_the_repository() {
    // How a private key begins: an Ed25519 one in PKCS#8, PEM in base64 once more, OpenSSH's own form.
    let signs = [concat!("BQYDK2Vw", "BCIE"), concat!("LS0tLS1CRUdJTi", "BQUklWQVRF"), concat!("b3BlbnNzaC1r", "ZXkt")];
    let files = committed();
    assert!(files.len() > 200, "the files were not found");
    for path in files {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let found = signs.iter().find(|sign| text.contains(**sign));
        assert!(found.is_none(), "{} holds a private key: {found:?}", path.display());
        let of_pem = text.lines().zip(text.lines().skip(1)).find(|(line, next)| {
            let next = next.trim();
            let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
            line.trim_end().ends_with(concat!("PRIVATE ", "KEY-----"))
                && line.contains("BEGIN")
                && next.len() > 30
                && next.bytes().all(base64)
        });
        assert!(of_pem.is_none(), "{} holds a private key: {of_pem:?}", path.display());
    }
}
