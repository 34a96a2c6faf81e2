//! `ferry doctor`: looks at one thing after the other that may be wrong with a tunnel, and says what to do.

mod archive;
mod host;
mod peers;
mod places;
mod refusals;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use archive::Archive;
use owo_colors::OwoColorize as _;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  ferry doctor --config tunnel.yaml        next to a tunnel that runs, or before it is started
  ferry doctor --config tunnel.yaml --bundle support.tar.gz
  ferry doctor --config tunnel.yaml --json | jq '.checks[] | select(.state == \"failed\")'

It dials every address of every peer, and connects to the applications behind `ingress`. It changes nothing.

Exit code: 0 nothing failed, 1 something did, 78 the configuration cannot be used.";

/// Look for what is wrong with a tunnel and what is around it, and say what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel.yaml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Also write an archive (.tar.gz) for support: findings, configuration, status, events, metrics. It has no secret.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It works, and is not as it should be.
    Warning,
    Failed,
    /// It cannot be looked at from here.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at: a word that stays the same.
    check: &'static str,
    /// Of what: a peer, an address, a file.
    subject: String,
    state: State,
    /// What is.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Check {
    fn new(check: &'static str, subject: impl ToString, state: State, found: impl ToString) -> Self {
        let (subject, found) = (subject.to_string(), without_code(&found.to_string()));
        Self { check, subject, state, found, advice: String::new() }
    }

    fn ok(check: &'static str, subject: impl ToString, found: impl ToString) -> Self {
        Self::new(check, subject, State::Ok, found)
    }

    fn skipped(check: &'static str, subject: impl ToString, found: impl ToString) -> Self {
        Self::new(check, subject, State::Skipped, found)
    }

    fn warning(check: &'static str, subject: impl ToString, found: impl ToString, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..Self::new(check, subject, State::Warning, found) }
    }

    fn failed(check: &'static str, subject: impl ToString, found: impl ToString, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..Self::new(check, subject, State::Failed, found) }
    }
}

/// What the system says, without its number for it: that helps no one who is to do something about it.
fn without_code(text: &str) -> String {
    let mut left = text.to_owned();
    while let Some(at) = left.find(" (os error ")
        && let Some(end) = left[at..].find(')')
    {
        left.replace_range(at..=at + end, "");
    }
    left
}

/// Where checks are printed as they are made, or kept.
struct Findings {
    json: bool,
    checks: Vec<Check>,
}

impl Findings {
    fn add(&mut self, check: Check) -> io::Result<()> {
        if !self.json {
            print(&check)?;
        }
        self.checks.push(check);
        Ok(())
    }

    fn add_all(&mut self, checks: impl IntoIterator<Item = Check>) -> io::Result<()> {
        checks.into_iter().try_for_each(|check| self.add(check))
    }

    fn count(&self, state: State) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }

    fn report(&self) -> serde_json::Value {
        serde_json::json!({"version": 1, "ok": self.count(State::Failed) == 0, "checks": self.checks})
    }

    fn finish(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            writeln!(stdout, "{:#}", self.report())?;
        }
        stdout.flush()
    }
}

fn print(check: &Check) -> io::Result<()> {
    let mark = match check.state {
        State::Ok => "ok     ".green().to_string(),
        State::Warning => "warning".yellow().bold().to_string(),
        State::Failed => "FAILED ".red().bold().to_string(),
        State::Skipped => "-      ".dimmed().to_string(),
    };
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{mark}  {:<14}{}: {}", check.check, check.subject, check.found)?;
    if !check.advice.is_empty() {
        writeln!(stdout, "{:25}→ {}", "", check.advice)?;
    }
    stdout.flush()
}

/// Looks at everything, and fails if something has.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut findings = Findings { json: args.json, checks: Vec::new() };
    let mut archive = args.bundle.as_deref().map(Archive::create).transpose()?;
    let file = args.config.display().to_string();
    let loaded = match ferry_config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(report) => {
            for problem in report.problems() {
                findings.add(Check::failed(
                    "configuration",
                    &file,
                    problem,
                    "correct it; nothing else was looked at",
                ))?;
            }
            findings.finish()?;
            if let Some(mut archive) = archive.take() {
                // A problem quotes the value that it is about, which may be a secret in the wrong place.
                archive.add("configuration.txt", b"it cannot be used: ferry doctor says why\n")?;
                archive.add_host()?;
                archive.finish()?;
            }
            return Err(report.into());
        }
    };
    let tunnel = &loaded.tunnel;
    findings.add(Check::ok("configuration", &file, format!("it can be used; this tunnel is {}", tunnel.name)))?;
    for warning in &loaded.warnings {
        findings.add(Check::warning("configuration", &file, warning, "see docs/operations.md"))?;
    }
    let key = tunnel.identity.public_key();
    findings.add(Check::ok("identity", key, "only its owner can change it and no other user can read it"))?;
    findings.add_all(host::check(&args.config, tunnel))?;
    let running = places::running(tunnel).await;
    findings.add_all(places::check(tunnel, running.as_ref()).await)?;
    if running.is_some() {
        findings.add_all(refusals::check(tunnel).await)?;
    }
    for peer in &tunnel.peers {
        findings.add_all(peers::check(&tunnel.identity, peer, running.as_ref()).await)?;
    }
    findings.finish()?;
    if let (Some(mut archive), Some(path)) = (archive, &args.bundle) {
        archive.add("doctor.json", format!("{:#}\n", findings.report()).as_bytes())?;
        archive.add_configuration(tunnel)?;
        archive.add_answers(tunnel).await?;
        archive.add_host()?;
        archive.finish()?;
        eprintln!("written: {}", path.display());
    }
    match findings.count(State::Failed) {
        0 => Ok(()),
        1 => bail!("one check failed"),
        many => bail!("{many} checks failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_left_out_and_nothing_else() {
        let said = "a: Connection refused (os error 111); b (os x): No such file (os error 2)";
        assert_eq!(without_code(said), "a: Connection refused; b (os x): No such file");
        assert_eq!(without_code("(os error"), "(os error");
    }
}
