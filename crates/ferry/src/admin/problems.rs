//! What is wrong with a tunnel, and what to do about it: in the words of the page, which a test compares.

use ferry_text::Foreign;

use super::quantity::time;
use super::status::{Status, Unbound};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) advice: String,
    /// Nothing is lost by it, and it may end by itself.
    pub(crate) is_mild: bool,
}

/// What a peer's problem says in small letters, and what to do then; the first that fits.
const ADVICE: [(&[&str], &str); 9] = [
    (
        &["refused your key", "refused this end's key"],
        "List this tunnel's key there: `ferry pubkey` prints it, `keys` of its entry under `peers` takes it.",
    ),
    (
        &["not listed"],
        "Another tunnel answers there, or its key was replaced. Compare the key with what `ferry pubkey` prints there.",
    ),
    (&["refused"], "Nothing listens there. Is the peer's tunnel running, and is the port right?"),
    (&["no address is known"], "Its address is not there yet. It is used as soon as the file has one."),
    (
        &["lookup", "resolve", "name or service", "nodename"],
        "The name has no address. Is it spelled right, and does DNS work from here?",
    ),
    (
        &["no connection within", "timed out", "unreachable", "no route"],
        "Nothing comes back. Is a firewall or network policy in between, and is the address right?",
    ),
    (
        &["reset by peer", "broken pipe", "closed"],
        "Connections are made and ended at once. Is a load balancer there whose backend is away, or is the peer's \
         tunnel restarting?",
    ),
    (
        &["handshake"],
        "A connection is made, and then nothing answers. Is it a tunnel's port? Does a load balancer end TLS there?",
    ),
    (&["ports", "open files"], "This host runs out of ports or files. See the capacity page of the manual."),
];
const ADVICE_ELSE: &str = "It is tried again until it works. `ferry doctor` looks closer.";
const SHUTTING_DOWN: &str = "Open sessions may end in good order.";
const TAKEN: &str = "Does another process have the address? It is tried again until it is free.";
const BEING_DIALLED: &str = "It is being dialled.";
const CANNOT_DIAL: &str = "This end cannot dial it. Look at the tunnel there: does it have this end's address, and what \
                           does its log say?";
const OLD_KEYS: &str = "Rotations are postponed: see the events, and `ferry_rotation_delay_seconds`.";

/// A key that is older than two rotations and this is late.
const OLD_KEY_MARGIN: f64 = 15.0;

/// All that is wrong, in one sentence each.
pub(crate) fn problems(status: &Status) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |what: String, advice: &str, is_mild| {
        problems.push(Problem { what: Foreign(&what).to_string(), advice: advice.to_owned(), is_mild });
    };
    if status.draining {
        add("the tunnel is shutting down: it takes no new sessions".to_owned(), SHUTTING_DOWN, true);
    }
    for Unbound { listen, problem } in &status.unbound {
        add(format!("{listen} cannot be listened on: {problem}"), TAKEN, false);
    }
    for peer in &status.peers {
        let name = &peer.name;
        match (&peer.problem, peer.is_there(), peer.dialled) {
            (Some(problem), false, _) => add(format!("{name} is not reachable: {problem}"), advise(problem), false),
            (Some(problem), true, _) => add(format!("{name}: {problem}"), advise(problem), true),
            (None, false, true) => add(format!("{name} is not reached yet"), BEING_DIALLED, false),
            (None, false, false) => add(format!("{name} has no link here"), CANNOT_DIAL, false),
            (None, true, _) => {}
        }
    }
    let (totals, settings) = (&status.totals, &status.settings);
    if totals.detached > 0 {
        let window = time(settings.resume_window_seconds);
        let (sessions, resume) = match totals.detached {
            1 => ("1 session is".to_owned(), "Its applications wait, and it resumes by itself"),
            many => (format!("{many} sessions are"), "Their applications wait, and they resume by themselves"),
        };
        let advice = format!("Nothing is lost. {resume}; after {window} without a link they are reset.");
        add(format!("{sessions} without a link"), &advice, true);
    }
    let (oldest, every) = (totals.oldest_key_seconds, settings.rotation_every_seconds);
    if totals.sessions > totals.detached && oldest > 2.0 * every + OLD_KEY_MARGIN {
        add(format!("a key is {} old; it should be replaced every {}", time(oldest), time(every)), OLD_KEYS, true);
    }
    problems
}

fn advise(problem: &str) -> &'static str {
    let problem = problem.to_lowercase();
    let fits = |(signs, _): &&(&[&str], &str)| signs.iter().any(|sign| problem.contains(sign));
    ADVICE.iter().find(fits).map_or(ADVICE_ELSE, |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_gives_the_same_advice() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../tunnel/src/telemetry/admin/page.html");
        let page = std::fs::read_to_string(page).unwrap();
        let others = [ADVICE_ELSE, TAKEN, BEING_DIALLED, CANNOT_DIAL, OLD_KEYS];
        for advice in ADVICE.iter().map(|(_, advice)| *advice).chain(others) {
            assert!(page.contains(&format!("\"{advice}\"")), "the page does not say: {advice}");
        }
    }

    #[test]
    fn advice_is_about_what_a_problem_says() {
        assert!(advise("Connection refused (os error 111)").starts_with("Nothing listens there"));
        assert!(advise("it refused this end's key: is it listed there?").starts_with("List this tunnel's key there"));
        assert!(advise("failed to LOOKUP address").starts_with("The name has no address"));
        assert_eq!(advise("something else"), ADVICE_ELSE);
    }
}
