//! The manual pages: one for each command, and in each what the command takes and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use crate::support::{code, ferry, stderr};

fn written(dir: &Path) {
    let output = ferry(&["man".as_ref(), "--out".as_ref(), dir.as_os_str()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// A page as text, with what roff escapes as it is meant.
fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap().replace("\\-", "-").replace("\\*(Aq", "'")
}

/// The definition of the command line, as complete as it is when it is used.
fn definition() -> clap::Command {
    let mut ferry = ferry::Cli::command().disable_help_subcommand(true);
    ferry.build();
    ferry
}

#[test]
fn every_command_has_a_page_and_there_is_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("man1");
    written(&man);
    let there: BTreeSet<_> =
        fs::read_dir(&man).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let ferry = definition();
    let commands = ferry.get_subcommands().map(|command| format!("ferry-{}.1", command.get_name()));
    assert_eq!(there, commands.chain(["ferry.1".to_owned()]).collect());
    let first = read(&man, "ferry.1");
    for name in there.iter().filter(|name| *name != "ferry.1") {
        let name = name.trim_end_matches(".1");
        assert!(first.contains(&format!("\n{name}(1)\n")), "ferry.1 does not list {name}:\n{first}");
        assert!(read(&man, &format!("{name}.1")).contains("\\fBferry\\fR(1)"), "{name} does not lead back");
    }
}

#[test]
fn a_page_names_every_option_of_its_command_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    for command in definition().get_subcommands() {
        let name = command.get_name();
        let page = read(dir.path(), &format!("ferry-{name}.1"));
        let (_, options) = page.split_once("\n.SH OPTIONS").unwrap();
        let (options, _) = options.split_once("\n.SH ").unwrap();
        let headings = options.split("\n.TP\n").map(|entry| entry.lines().next().unwrap_or_default());
        let described: BTreeSet<_> = headings
            .flat_map(|heading| heading.split("\\fB--").skip(1))
            .map(|rest| rest.split('\\').next().unwrap().to_owned())
            .collect();
        let taken: BTreeSet<_> = command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
        assert!(taken.contains("help"), "{name}: the definition is not complete");
        assert_eq!(described, taken, "{name}\n{options}");
        for variable in command.get_arguments().filter_map(|arg| arg.get_env()).map(|name| name.to_str().unwrap()) {
            assert!(options.contains(variable), "{name} says nothing of {variable}");
        }
    }
}

#[test]
fn examples_stay_as_they_are_in_the_help() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    for command in definition().get_subcommands() {
        let name = command.get_name();
        let help = command.get_after_help().unwrap().to_string();
        let (_, rest) = help.split_once("Examples:\n").unwrap();
        let examples: Vec<_> = rest.lines().take_while(|line| line.starts_with("  ")).map(str::trim_start).collect();
        let page = read(dir.path(), &format!("ferry-{name}.1"));
        let (_, shown) = page.split_once("\n.SH EXAMPLES\n.RS 2\n.nf\n").unwrap_or_else(|| panic!("{name}:\n{page}"));
        let (shown, _) = shown.split_once("\n.fi\n").unwrap();
        let shown: Vec<_> = shown.lines().map(|line| line.trim_start_matches("\\&")).collect();
        assert_eq!(shown, examples, "{name}");
        assert!(page.contains("\n.SH SYNOPSIS\n\\fBferry "), "{name}");
        assert!(page.contains("\n.SH \"EXIT STATUS\"\n"), "{name}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = ferry(&["man".as_ref(), "--out".as_ref(), file.as_os_str()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&format!("cannot write manual pages to {}", file.display())), "{output:?}");
}
