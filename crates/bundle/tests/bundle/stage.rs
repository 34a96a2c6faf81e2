//! A bundle with a kubectl that leads to nowhere, to run its scripts on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{rendered, with};

pub(crate) const INITIATOR_NS: &str = "fast-international-ferry-initiator-ns";
pub(crate) const TERMINATOR_NS: &str = "fast-international-ferry-terminator-ns";

/// A bundle, and a kubectl that leads to nowhere.
pub(crate) struct Stage {
    dir: TempDir,
}

/// How a script ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The calls of kubectl, as `context: arguments`.
    pub(crate) calls: Vec<String>,
}

impl Stage {
    pub(crate) fn new(blueprint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stage = Self { dir };
        rendered(blueprint).write(&stage.path("bundle")).unwrap();
        fs::create_dir(stage.path("bin")).unwrap();
        let kubectl = stage.path("bin/kubectl");
        fs::write(&kubectl, include_str!("fake-kubectl.sh")).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        stage.fake("contexts", "k3d-cluster-a\nk3d-cluster-b\n");
        stage
    }

    /// [`FINE`] without the address of cluster B.
    pub(crate) fn without_address() -> Self {
        Self::new(&with(", address: host.k3d.internal", ""))
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Sets what kubectl answers.
    pub(crate) fn fake(&self, file: &str, text: &str) -> &Self {
        fs::create_dir_all(self.path("fake")).unwrap();
        fs::write(self.path("fake").join(file), text).unwrap();
        self
    }

    /// What is in a file of the bundle or of the fake.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// What the initiator has been told about where the terminator is.
    pub(crate) fn told(&self) -> Option<String> {
        self.read(&format!("fake/configmap.{INITIATOR_NS}"))
    }

    pub(crate) fn run(&self, script: &str, args: &[&str]) -> Ran {
        self.run_with(script, args, &[])
    }

    pub(crate) fn run_with(&self, script: &str, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let _ = fs::remove_file(self.path("fake/calls"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(self.path("bundle").join(script))
            .args(args)
            .env("PATH", path)
            .env("FAKE", self.path("fake"))
            .env("FERRY_PAUSE", "0.01")
            .env_remove("FERRY_WAIT")
            .env_remove("FERRY_SOURCE")
            .env_remove("FERRY_PROGRAM")
            .envs(variables.iter().copied())
            // Not in the bundle: the scripts find their way.
            .current_dir(self.path(""))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
            calls: self.read("fake/calls").unwrap_or_default().lines().map(ToOwned::to_owned).collect(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(all.contains(text), "no {text:?} in:\n{all}");
        self
    }

    /// Whether kubectl was called with these words.
    pub(crate) fn called(&self, words: &str) -> bool {
        self.calls.iter().any(|call| call.contains(words))
    }
}
