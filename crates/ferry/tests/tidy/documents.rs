//! What holds for the documents: their form, their width, and that what they name is there.

use std::fs;
use std::path::Path;

use crate::style::{FORBIDDEN, has};
use crate::{root, sources, walk};

const MAX_PROSE_WIDTH: usize = 120;
const MAX_DECISION_LINES: usize = 25;
/// What a page that a program writes says of itself; its prose is held where it comes from.
const WRITTEN_BY_A_PROGRAM: &str = "do not edit";

/// Every page for people: its path within the repository, and its text.
fn pages() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    walk(&root.join("docs"), &mut files);
    files.extend(fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The lines of prose of a page, with their numbers: no code, no tables, no link that cannot be broken.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(move |(_, line)| {
        let trimmed = line.trim_start();
        is_fenced ^= trimmed.starts_with("```");
        let is_one_word = !trimmed.trim_start_matches(['*', '-', ' ']).contains(' ');
        !is_fenced && !trimmed.starts_with('|') && !line.starts_with("    ") && !is_one_word
    })
}

/// What stands in backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn prose_fits_a_screen() {
    let pages = pages();
    assert!(pages.len() > 60, "the pages were not found");
    for (name, text) in pages.iter().filter(|(_, text)| !text.contains(WRITTEN_BY_A_PROGRAM)) {
        for (number, line) in prose(text) {
            let width = line.chars().count();
            assert!(width <= MAX_PROSE_WIDTH, "{name}:{number} is {width} wide, {MAX_PROSE_WIDTH} is the most");
        }
    }
}

#[test]
fn nothing_is_listed_twice() {
    // Both are merged line by line, which keeps what another change has reworded.
    for name in ["CHANGELOG.md", "docs/guarantees.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with(['*', '|'])) {
            let start: String = line.chars().take(60).collect();
            assert!(seen.insert(start), "{name}:{} is there twice: {line}", at + 1);
        }
    }
}

#[test]
fn pages_are_in_plain_words() {
    for (name, text) in pages().iter().filter(|(_, text)| !text.contains(WRITTEN_BY_A_PROGRAM)) {
        for (number, line) in prose(text) {
            // What stands in backticks is a message or code, which is held elsewhere.
            let plain: String = line.split('`').step_by(2).collect();
            for (words, better) in FORBIDDEN {
                assert!(!has(&plain, words), "{name}:{number}: not “{words}” but {better}");
            }
        }
    }
}

#[test]
fn every_decision_has_one_form_and_is_listed_in_order() {
    let mut records: Vec<_> = pages().into_iter().filter(|(name, _)| name.starts_with("docs/decisions/0")).collect();
    records.sort();
    assert!(records.len() > 40, "the records were not found");
    let mut rows = Vec::new();
    for (path, text) in &records {
        let file = path.rsplit('/').next().unwrap();
        let number = file.split_once('-').filter(|(number, _)| number.len() == 4);
        let (number, _) = number.unwrap_or_else(|| panic!("{path} should be NNNN-title.md"));
        let title =
            text.lines().next().and_then(|line| line.strip_prefix("# ")?.strip_prefix(number)?.strip_prefix(' '));
        let title = title.unwrap_or_else(|| panic!("{path} should begin with `# {number} Title`"));
        let status = text.lines().nth(2).and_then(|line| line.strip_prefix("Status: ")).unwrap_or_default();
        let has_status = status == "accepted" || status.starts_with("superseded by ");
        assert!(has_status, "{path}: its third line should be `Status: accepted` or `Status: superseded by NNNN`");
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, ["## Context", "## Decision", "## Consequences"], "{path}");
        let lines = text.lines().count();
        assert!(
            lines <= MAX_DECISION_LINES,
            "{path} has {lines} lines, {MAX_DECISION_LINES} is the most: measurements go to docs/measurements"
        );
        rows.push(format!("| [{number}]({file}) | {title} |"));
    }
    let list = fs::read_to_string(root().join("docs/decisions/README.md")).unwrap();
    let listed: Vec<_> = list.lines().filter(|line| line.starts_with("| [")).collect();
    assert_eq!(listed, rows, "docs/decisions/README.md lists each record once, by number, under its title");
}

#[test]
fn every_path_that_a_page_names_exists() {
    for (name, text) in pages() {
        for path in quoted(&text)
            .filter(|path| !path.contains(' ') && (path.starts_with("crates/") || path.starts_with("bench/")))
        {
            assert!(root().join(path).exists(), "{name} names {path}, which does not exist");
        }
    }
}

#[test]
fn the_architecture_names_every_source_file() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, map) = text.split_once("\n## Files\n").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap();
    let sections = map.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap());
    // Of the smaller crates, each begins with the first row that has its name.
    let mut named: Vec<(String, &str)> = Vec::new();
    for (heading, rows) in sections {
        let mut at = vec![heading.trim()];
        for row in rows.lines().filter(|line| line.starts_with('|')) {
            let columns: Vec<_> = row.split('|').map(str::trim).collect();
            let mut files = columns[1];
            if heading.starts_with("Smaller") {
                if !columns[1].is_empty() {
                    at = quoted(columns[1]).collect();
                }
                files = columns[2];
            }
            named.extend(at.iter().flat_map(|of| quoted(files).map(|file| ((*of).to_owned(), file))));
        }
    }
    let mut seen = 0;
    for (path, _) in sources().iter().filter(|(path, _)| path.starts_with("crates")) {
        let path = path.to_str().unwrap();
        let Some((of, file)) = path.strip_prefix("crates/").unwrap().split_once("/src/") else { continue };
        seen += 1;
        let is_covered = named
            .iter()
            .any(|(known, name)| known == of && (*name == file || name.ends_with('/') && file.starts_with(name)));
        assert!(is_covered || ["lib.rs", "tests.rs"].contains(&file), "{path} is not in the files of ARCHITECTURE.md");
    }
    assert!(seen > 150, "only {seen} files were found");
    for (of, name) in &named {
        let is_there = root().join("crates").join(of).join("src").join(name).exists();
        assert!(is_there, "ARCHITECTURE.md names {name} of {of}, which does not exist");
    }
}
