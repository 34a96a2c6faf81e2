//! Golden files of formats: what one build writes and another one reads, a file for each version. For tests alone, where a
//! panic is the report.
//!
//! A golden file is made once, by the build that is the first to write that version, and never changes: it stands for what
//! is in use. So `UPDATE=1` makes a file that is not there, and leaves those that are.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

/// The golden files of one format.
pub struct Golden {
    dir: PathBuf,
    name: &'static str,
    extension: &'static str,
    raise: &'static str,
}

impl Golden {
    /// Those of the format `name`, in the directory `golden` of the crate whose manifest is in `manifest_dir`. `raise` says
    /// where its version is.
    pub fn of(manifest_dir: &str, name: &'static str, extension: &'static str, raise: &'static str) -> Self {
        Self { dir: Path::new(manifest_dir).join("golden"), name, extension, raise }
    }

    fn path(&self, version: u64) -> PathBuf {
        self.dir.join(format!("{}-{version}.{}", self.name, self.extension))
    }

    /// What the first build of this version wrote.
    pub fn read(&self, version: u64) -> String {
        let path = self.path(version);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}\n{}", path.display(), self.make()))
    }

    /// Holds what this build writes to the golden file of its version. With `UPDATE=1` makes that file, if there is none.
    pub fn hold(&self, version: u64, written: &str) {
        let path = self.path(version);
        if std::env::var_os("UPDATE").is_some() && !path.exists() {
            fs::create_dir_all(&self.dir).unwrap();
            fs::write(&path, written).unwrap();
        }
        let golden = self.read(version);
        let at = golden.lines().zip(written.lines()).position(|(golden, written)| golden != written);
        let at = at.unwrap_or_else(|| golden.lines().count().min(written.lines().count()));
        assert!(
            golden == written,
            "version {version} of the {} is not written as it was, from line {} on:\n  golden:  {}\n  written: {}\nBuilds in use \
             write and read the golden one. Raise the version in {}, have the version before still read, and then: {}",
            self.name,
            at + 1,
            golden.lines().nth(at).unwrap_or("(its end)"),
            written.lines().nth(at).unwrap_or("(its end)"),
            self.raise,
            self.make(),
        );
    }

    fn make(&self) -> String {
        format!("UPDATE=1 cargo test golden makes the golden file of a new {} version", self.name)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] made digits of.
pub fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn golden(dir: &'static str) -> Golden {
        Golden { dir: Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), name: "crates", extension: "txt", raise: "here" }
    }

    #[test]
    fn what_is_written_in_another_way_is_shown_with_what_to_do() {
        golden("tests").hold(1, "one\ntwo\n");
        for written in ["one\n2\n", "one\n", "one\ntwo\nthree\n", "one\ntwo"] {
            let panic = catch_unwind(|| golden("tests").hold(1, written)).unwrap_err();
            let said = panic.downcast::<String>().unwrap();
            assert!(said.contains("Raise the version in here") && said.contains("UPDATE=1"), "{said}");
        }
        let panic = catch_unwind(|| golden("tests").read(2)).unwrap_err();
        assert!(panic.downcast::<String>().unwrap().contains("crates-2.txt"));
    }

    #[test]
    fn digits_come_back_as_the_bytes_that_they_were() {
        assert_eq!((hex(&[0, 10, 255]), unhex("000aff")), ("000aff".to_owned(), vec![0, 10, 255]));
    }
}
