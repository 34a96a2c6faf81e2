//! No crate has an import cycle between its top-level modules: each can be read with only those that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Known cycles: the crate, the modules in them (none means any), and why they are left.
const KNOWN: [(&str, &[&str], &str); 3] = [
    ("session", &["codec", "frame"], "a frame and its encoding; `Frame` names its errors"),
    ("ferry", &["cli", "commands"], "the command line is made of the commands' arguments, which quote it in messages"),
    ("tunnel", &[], "the driver, the supply and the listeners reach each other through what they share"),
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The code without comments and without items that only tests compile. Relies on rustfmt's indentation.
fn shipped_code(text: &str) -> String {
    let (mut code, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let end = line.replace("#[cfg(test)]", "}");
            let mut item = lines.by_ref().skip_while(|line| line.trim().starts_with("#["));
            if item.next().is_some_and(|first| !first.ends_with(';') && !first.ends_with('}')) {
                item.find(|line| *line == end);
            }
            continue;
        }
        code.push_str(line.split("//").next().unwrap());
        code.push('\n');
    }
    code
}

/// The names that follow each `prefix` (`crate::`): one, or the first of each path in braces.
fn names_after(prefix: &str, code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first = |path: &str| path.trim_start().split(|c| !is_name(c)).next().unwrap().to_owned();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix).filter(|(at, _)| !code[..*at].ends_with(is_name)) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match (c, depth) {
                ('{', _) => depth += 1,
                ('}', 1..) => depth -= 1,
                (',' | '}', 0) => {
                    names.insert(first(&group[start..i]));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names
}

/// Which top-level modules of the crate with this `src` use which.
fn graph(src: &Path) -> Graph {
    let root = ["lib.rs", "main.rs"].into_iter().find_map(|name| fs::read_to_string(src.join(name)).ok()).unwrap();
    let declared = shipped_code(&root);
    let declared = declared.lines().filter_map(|line| line.strip_suffix(';')?.rsplit_once("mod "));
    let mut graph: Graph = declared.map(|(_, name)| (name.to_owned(), BTreeSet::new())).collect();
    let modules: BTreeSet<_> = graph.keys().cloned().collect();
    for (module, used) in &mut graph {
        let mut paths = vec![(src.join(format!("{module}.rs")), true), (src.join(module), true)];
        while let Some((path, is_top)) = paths.pop() {
            if path.is_dir() {
                let inner = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
                paths.extend(inner.map(|inner| (inner.clone(), is_top && inner.ends_with("mod.rs"))));
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let code = shipped_code(&text);
                used.extend(names_after("crate::", &code));
                if is_top {
                    used.extend(names_after("super::", &code));
                }
            }
        }
        used.retain(|name| name != module && modules.contains(name));
    }
    graph
}

/// The modules that use themselves by way of others.
fn in_cycles(graph: &Graph) -> BTreeSet<&str> {
    let reaches_itself = |start: &&str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![*start]);
        while let Some(module) = open.pop() {
            open.extend(graph[module].iter().map(String::as_str).filter(|used| seen.insert(*used)));
        }
        seen.contains(start)
    };
    graph.keys().map(String::as_str).filter(reaches_itself).collect()
}

#[test]
fn no_crate_has_an_import_cycle_between_its_modules() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut edges = 0;
    for entry in fs::read_dir(crates).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let graph = graph(&entry.path().join("src"));
        edges += graph.values().map(BTreeSet::len).sum::<usize>();
        let known = KNOWN.iter().find(|(of, ..)| *of == name);
        let is_known = |module: &&str| known.is_some_and(|(_, all, _)| all.is_empty() || all.contains(module));
        let new: Vec<_> = in_cycles(&graph).into_iter().filter(|module| !is_known(module)).collect();
        assert!(new.is_empty(), "{name}: these modules use each other in a circle: {new:?} in {graph:#?}");
    }
    assert!(edges > 150, "only {edges} imports were found");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = shipped_code(
        "use crate::a;\nuse crate::{b, c::{x, y}, d::z,};\n// crate::no\nfn f() { crate::e::g() }\n\
         #[cfg(test)]\nmod tests {\n    use crate::no;\n}\n#[cfg(test)]\nmod no;\nuse crate::f::*;\n",
    );
    let names: Vec<_> = names_after("crate::", &code).into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*to).to_owned()).or_default();
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert!(in_cycles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    assert_eq!(in_cycles(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])), BTreeSet::from(["b", "c"]));
}
