//! One house style: the words of messages, where modules and their tests are, and how imports are written.

use std::path::Path;

use crate::{root, sources};

/// Words that no message and no page may have, and what to write instead.
pub(crate) const FORBIDDEN: [(&str, &str); 16] = [
    ("anew", "again"),
    ("beside", "next to, in addition to"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("went on", "continued"),
    ("in turns", "alternating"),
    ("is told", "is informed, learns"),
    ("are told", "are informed, learn"),
    ("nobody", "no one, or the component"),
    ("of late", "recently"),
    ("so many", "this many"),
    ("trying on", "retrying"),
    ("whoever", "the component"),
    ("downstream", "application, peer"),
    ("upstream", "application, peer"),
    ("rekey", "rotate"),
];

/// The part of a source that is shipped.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Every string literal of a source, and every comment that becomes help of the command line, with its line.
fn messages(path: &Path, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut literal: Option<(usize, String)> = None;
    let is_help = path.starts_with("crates/ferry/src/commands") || path.ends_with("cli.rs");
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if literal.is_none() && trimmed.starts_with("//") {
            if is_help && trimmed.starts_with("/// ") {
                found.push((at + 1, trimmed.to_owned()));
            }
            continue;
        }
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, &mut literal) {
                ('\\', Some((_, text))) => text.extend(characters.next()),
                ('"', Some(_)) => found.extend(literal.take()),
                (other, Some((_, text))) => text.push(other),
                // A quotation mark as a character begins nothing.
                ('\'', None) if characters.peek() == Some(&'"') => _ = characters.next(),
                ('/', None) if characters.peek() == Some(&'/') => break,
                ('"', None) => literal = Some((at + 1, String::new())),
                _ => {}
            }
        }
        // Broken over lines, as a backslash at the end has it, or meant.
        if let Some((_, text)) = &mut literal {
            text.push(' ');
        }
    }
    found
}

/// Whether a text has these words, as words.
pub(crate) fn has(text: &str, words: &str) -> bool {
    let text = format!(" {} ", text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "));
    text.match_indices(words).any(|(at, _)| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
        !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + words.len()..].chars().next())
    })
}

#[test]
fn messages_are_in_the_words_of_the_glossary() {
    let mut seen = 0;
    for (path, text) in sources() {
        let is_shipped = path.starts_with("crates") && path.iter().any(|part| part == "src");
        if !is_shipped || path.ends_with("tests.rs") || path.ends_with("documented.rs") {
            continue;
        }
        for (number, message) in messages(&path, shipped(&text)) {
            seen += 1;
            for (words, better) in FORBIDDEN {
                let found = has(&message, words);
                assert!(!found, "{}:{number}: not “{words}” but {better}, in: {message}", path.display());
            }
        }
    }
    assert!(seen > 2_000, "only {seen} messages were found");
}

#[test]
fn messages_are_found_in_a_source() {
    let text = "// \"anew\"\nlet a = \"one \\\"two\\\" \\\n    three\"; // \"beside\"\nlet b = '\"'; f(\"four\");\n";
    let found: Vec<_> = messages(Path::new("x.rs"), text).into_iter().map(|(_, text)| text).collect();
    assert_eq!(found, ["one \"two\"      three", "four"]);
    assert!(has("It Goes\n on.", "goes on") && !has("besides", "beside") && !has("renew", "anew"));
}

#[test]
fn a_module_with_parts_is_a_folder_with_a_mod_rs_and_its_tests_are_inside() {
    let sources = sources();
    for (path, text) in sources.iter().filter(|(path, _)| path.starts_with("crates")) {
        let folder = path.with_extension("");
        let has_folder = sources.iter().any(|(other, _)| other.starts_with(&folder));
        let name = path.file_stem().unwrap();
        let is_module = path.iter().any(|part| part == "src") && name != "mod" && name != "main" && name != "lib";
        assert!(!(is_module && has_folder), "{} should be {}/mod.rs", path.display(), folder.display());
        // An example has no other way to what the tests have.
        let is_example = path.iter().any(|part| part == "examples");
        let has_path = text.lines().any(|line| line.trim_start().starts_with("#[path"));
        assert!(!has_path || is_example, "{} gives a module's path", path.display());
        assert!(!name.to_str().unwrap().ends_with("_tests"), "{} should be tests.rs in its module", path.display());
    }
}

/// The fuzz targets are a workspace of their own, which needs a nightly toolchain: nothing else here builds them.
#[test]
fn the_path_of_a_module_is_that_of_a_file() {
    let sources = sources();
    let mut found = 0;
    for (path, text) in &sources {
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        for name in named {
            found += 1;
            let at = root().join(path).parent().unwrap().join(name);
            assert!(at.is_file(), "{}: there is no {name}", path.display());
        }
    }
    assert!(found > 3, "{found} paths");
}

#[test]
fn imports_have_one_path_each() {
    for (path, text) in sources() {
        let mut statement = String::new();
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if statement.is_empty() && !trimmed.starts_with("use ") && !trimmed.starts_with("pub use ") {
                continue;
            }
            statement += trimmed;
            if !trimmed.ends_with(';') {
                continue;
            }
            let parts = statement.split_once('{').map_or("", |(_, parts)| parts);
            assert!(!parts.contains("::"), "{}:{}: braces only around the last part of a path", path.display(), at + 1);
            statement.clear();
        }
    }
}
