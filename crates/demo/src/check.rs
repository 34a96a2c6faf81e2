//! Whether what the demo claims holds.

use std::collections::{BTreeMap, BTreeSet};

use owo_colors::OwoColorize as _;

use crate::screen::Screen;

/// Checks claims, and remembers those that did not hold.
pub(crate) struct Findings {
    screen: Screen,
    broken: Vec<String>,
    noted: usize,
}

impl Findings {
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen, broken: Vec::new(), noted: 0 }
    }

    /// Shows whether a claim held; the error says what speaks against it.
    pub(crate) fn note(&mut self, claim: impl Into<String>, held: Result<(), String>) {
        let claim = claim.into();
        self.noted += 1;
        match held {
            Ok(()) => self.screen.print(format_args!("  {} {claim}", "✔".green())),
            Err(why) => {
                self.screen.print(format_args!("  {} {claim}: {}", "✘".red().bold(), why.red()));
                self.broken.push(format!("“{claim}” did not hold: {why}"));
            }
        }
    }

    /// The last word: whether everything held.
    pub(crate) fn conclude(&self) {
        let (noted, broken) = (self.noted, self.broken.len());
        match broken {
            0 => self.screen.print(format_args!("\n{} all {noted} checks held", "✔".green().bold())),
            _ => self.screen.print(format_args!("\n{} {broken} of {noted} checks did not hold", "✘".red().bold())),
        }
    }

    /// The claims that did not hold, as one error.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        if self.broken.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("{}", self.broken.join("; "))) }
    }
}

/// Whether `condition` holds, with what speaks against it if not.
pub(crate) fn ensure(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// Whether exactly the expected ids are there, each once and in order.
///
/// # Errors
///
/// How many are missing, doubled, unexpected or out of order, with the first of each.
pub(crate) fn once_and_in_order(expected: &[String], got: &[String]) -> Result<(), String> {
    let places: BTreeMap<&str, usize> = expected.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let mut seen = BTreeSet::new();
    let (mut doubled, mut unexpected, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for id in got.iter().map(String::as_str) {
        let Some(place) = places.get(id) else {
            unexpected.push(id);
            continue;
        };
        if !seen.insert(id) {
            doubled.push(id);
        } else if last > Some(place) {
            misplaced.push(id);
        } else {
            last = Some(place);
        }
    }
    let missing: Vec<_> = expected.iter().map(String::as_str).filter(|id| !seen.contains(id)).collect();
    let kinds = [("missing", missing), ("doubled", doubled), ("unexpected", unexpected), ("out of order", misplaced)];
    let faults: Vec<_> = kinds
        .into_iter()
        .filter_map(|(kind, ids)| Some(format!("{} {kind}, the first is {}", ids.len(), ids.first()?)))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(expected: &str, got: &str) -> String {
        let ids = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        once_and_in_order(&ids(expected), &ids(got)).err().unwrap_or_default()
    }

    #[test]
    fn every_kind_of_fault_is_found_and_named() {
        assert_eq!(against("a b c", "a b c"), "");
        assert_eq!(against("", ""), "");
        assert_eq!(against("a b c", "a c"), "1 missing, the first is b");
        assert_eq!(against("a b c", ""), "3 missing, the first is a");
        assert_eq!(against("a b c", "a b b c"), "1 doubled, the first is b");
        assert_eq!(against("a b c", "a b c x"), "1 unexpected, the first is x");
        assert_eq!(against("a b c", "b a c"), "1 out of order, the first is a");
        assert_eq!(against("a b c", "c a b"), "2 out of order, the first is a");
        assert_eq!(
            against("a b", "b b x"),
            "1 missing, the first is a; 1 doubled, the first is b; 1 unexpected, the first is x"
        );
    }

    #[test]
    fn the_verdict_says_what_did_not_hold() {
        let mut findings = Findings::new(Screen::new().unwrap());
        findings.note("water is wet", Ok(()));
        assert!(findings.verdict().is_ok());
        findings.note("two is three", ensure(2 == 3, || "it is two".into()));
        assert_eq!(findings.verdict().unwrap_err().to_string(), "“two is three” did not hold: it is two");
    }
}
