//! `ferry man --out DIR`: manual pages, made from the definition of the command line.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anstream::eprintln;
use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::Cli;
use crate::exit;

const EXAMPLES: &str = "\
Examples:
  ferry man --out ~/.local/share/man/man1  then: man ferry, man ferry-tunnel
  sudo ferry man --out /usr/local/share/man/man1

The .deb brings the same pages.";

/// Write the manual pages: ferry.1, and one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to write them; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let dir = &args.out;
    write(dir).with_context(|| format!("cannot write manual pages to {}", dir.display()))
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // Every command has `--help`; a page on `help` besides would say nothing.
    let mut ferry = Cli::command().disable_help_subcommand(true).subcommand_help_heading("COMMANDS");
    ferry.build();
    let commands: Vec<_> = ferry.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let names: Vec<_> = commands.iter().map(page_name).collect();
    for command in &commands {
        fs::write(dir.join(format!("{}.1", page_name(command))), page(command, &["ferry".to_owned()])?)?;
    }
    fs::write(dir.join("ferry.1"), page(&ferry, &names)?)?;
    eprintln!("wrote {} manual pages to {}", commands.len() + 1, dir.display());
    Ok(())
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// A page. What clap_mangen makes of the help's last part is one paragraph, so that is written here: with its examples as
/// they stand.
fn page(command: &Command, see_also: &[String]) -> io::Result<Vec<u8>> {
    // As the help has it: with the values that options take.
    let usage = command.clone().render_usage().to_string();
    let man = Man::new(command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned()));
    let mut page = Vec::new();
    // Without a date, whose place must still be there: the same binary writes the same pages.
    let name = page_name(command).to_uppercase();
    writeln!(page, ".TH {name} 1 \"\" \"ferry {}\" Ferry", ferry_tunnel::VERSION)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(text) = command.get_after_help() {
        after_help(&mut rest, &text.to_string());
    }
    exit_status(&mut rest);
    rest.control("SH", ["SEE ALSO"]);
    let pages: Vec<_> = see_also.iter().flat_map(|name| [roman(", "), bold(name.as_str()), roman("(1)")]).collect();
    rest.text(pages.into_iter().skip(1).collect::<Vec<_>>());
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The text under the options of a help: examples under that heading, then notes. Lines that are indented stay lines.
fn after_help(roff: &mut Roff, text: &str) {
    for (at, paragraph) in text.split("\n\n").filter(|paragraph| !paragraph.starts_with("Exit codes:")).enumerate() {
        let (lines, heading) = match paragraph.strip_prefix("Examples:\n") {
            Some(lines) => (lines, Some("EXAMPLES")),
            None => (paragraph, (at == 1).then_some("NOTES")),
        };
        match heading {
            Some(heading) => roff.control("SH", [heading]),
            None => roff.control("PP", []),
        };
        let mut is_literal = false;
        for line in lines.lines() {
            match (is_literal, line.starts_with(' ')) {
                (false, true) => begin_literal(roff),
                (true, false) => end_literal(roff),
                _ => {}
            }
            is_literal = line.starts_with(' ');
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        if is_literal {
            end_literal(roff);
        }
    }
}

fn begin_literal(roff: &mut Roff) {
    roff.control("RS", ["2"]);
    roff.control("nf", []);
}

fn end_literal(roff: &mut Roff) {
    roff.control("fi", []);
    roff.control("RE", []);
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit::CODES {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(meaning)]);
    }
}
