//! How many files this process may have open, and what they are for: what runs out is shared out before it does.

use std::thread;

use rustix::process::{Resource, getrlimit};
use tracing::{info, warn};

/// Files that are there whatever happens: standard streams, the state directory, the runtime's.
const FIXED: usize = 32;

/// The keeper, and memory that outlives this process; two listeners for peers, and the admin endpoint's.
const KEPT: usize = 8;

/// Files of one worker's runtime.
const PER_WORKER: usize = 4;

/// Links that a peer which dials this end keeps ready here, and some that are being replaced.
const PER_DIALLING_PEER: usize = 8;

/// One, and its duplicate that a keeper may be given again.
const PER_LISTENER: usize = 2;

/// A session's own: its link and its application's connection.
const PER_SESSION: usize = 2;

/// A connection that is led to another replica: that of the dialler, and the one to the replica.
const PER_SPLICE: usize = 2;

/// How many of each there may be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) sessions: usize,
    /// Connections from strangers that have not sent a whole ClientHello, or wait for its answer.
    pub(crate) strangers: usize,
    /// The same from where a peer has proved itself lately.
    pub(crate) known: usize,
    /// Connections that have their answer and owe a proof: so many for either kind of source.
    pub(crate) answered: usize,
    /// Connections that are led to other replicas: as many as there may be sessions, where there are replicas.
    pub(crate) splices: usize,
    /// Links that carry no session.
    pub(crate) links: usize,
    /// Connections to the admin endpoint.
    pub(crate) admin: usize,
}

impl Budget {
    /// What the system allows this process, for what `config` asks for. Says so where that is less.
    pub(crate) fn of(config: &ferry_config::Tunnel) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let budget = Self::divide(files.unwrap_or(usize::MAX), workers, config);
        let configured = config.settings.limits.sessions as usize;
        let (allowed, files) = (budget.sessions, files.unwrap_or(usize::MAX));
        if allowed < configured && configured == ferry_config::Limits::default().sessions as usize {
            // Nobody has asked for so many.
            info!("there is room for {allowed} sessions: {files} files may be open (ulimit -n)");
        } else if allowed < configured {
            warn!(
                "limits.sessions lowered from {configured} to {allowed}: only {files} files may be open (ulimit -n), and \
                 warm links, handshakes and the admin endpoint take theirs first"
            );
        }
        budget
    }

    fn divide(files: usize, workers: usize, config: &ferry_config::Tunnel) -> Self {
        let share = |part: usize, least: usize, most: usize| (files / part).clamp(least, most);
        let accepts = config.accepts_links();
        let accepting = |count: usize| if accepts { count } else { 0 };
        let (dialled, dialling): (Vec<_>, Vec<_>) = config.peers.iter().partition(|peer| !peer.addresses.is_empty());
        let warm = (config.settings.warm_links.own + config.settings.warm_links.offered) as usize;
        let mut budget = Self {
            sessions: 0,
            strangers: accepting(share(8, 16, 1024)),
            known: accepting(share(16, 8, 512)),
            answered: accepting((config.settings.limits.handshakes as usize / 2).clamp(1, share(32, 8, 4096))),
            splices: 0,
            links: share(16, 16, 4096) + dialled.len() * warm + accepting(dialling.len() * PER_DIALLING_PEER),
            admin: if config.admin.is_some() { share(16, 8, 64) } else { 0 },
        };
        let fixed = FIXED + PER_WORKER * workers + KEPT + PER_LISTENER * config.egress.len();
        let unauthenticated = budget.strangers + budget.known + 2 * budget.answered;
        let left = files.saturating_sub(fixed + unauthenticated + budget.links + budget.admin);
        let has_replicas = !config.replicas.is_empty();
        let per_session = if has_replicas { PER_SESSION + PER_SPLICE } else { PER_SESSION };
        budget.sessions = (left / per_session).clamp(1, config.settings.limits.sessions as usize);
        budget.splices = if has_replicas { budget.sessions } else { 0 };
        budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &str) -> ferry_config::Tunnel {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = ferry_config::Identity::generate().expect("a key");
        identity.write_new(&dir.path().join("identity.key")).expect("a file");
        let path = dir.path().join("tunnel.yaml");
        let text = format!("name: a\nidentity: identity.key\nadmin: 127.0.0.1:0\nlisten: 127.0.0.1:0\n{rest}");
        std::fs::write(&path, text).expect("a file");
        ferry_config::load(&path).expect("a configuration").tunnel
    }

    #[test]
    fn all_that_may_be_open_at_once_is_within_the_limit_of_files() {
        let key = ferry_config::Identity::generate().expect("a key").public_key();
        let peers = format!("peers: [{{name: b, keys: [\"{key}\"], addresses: [\"127.0.0.1:1\"]}}]\n");
        let config = config(&peers);
        for files in [256, 1024, 4096, 20_000, 1_048_576] {
            let Budget { sessions, strangers, known, answered, splices, links, admin } =
                Budget::divide(files, 4, &config);
            assert_eq!(splices, 0, "there are no replicas");
            let total = FIXED + 4 * PER_WORKER + 2 + 2 * sessions + strangers + known + 2 * answered + links + admin;
            assert!(total <= files, "{total} of {files}");
            assert!(strangers + answered <= files / 5 && admin >= 8, "of {files}");
            assert!(sessions == 20_000 || sessions * 2 >= files / 3, "{sessions} sessions of {files}");
        }
        assert_eq!(Budget::divide(1_048_576, 4, &config).sessions, 20_000);
    }

    #[test]
    fn connections_that_are_led_to_other_replicas_are_in_the_sum() {
        let alone = Budget::divide(4096, 2, &config(""));
        let one_of_some = Budget::divide(4096, 2, &config("replicas: [\"others:18000\"]\n"));
        assert_eq!(one_of_some.splices, one_of_some.sessions);
        assert_eq!(one_of_some.sessions, alone.sessions / 2);
    }

    #[test]
    fn warm_links_are_in_the_sum() {
        let few = Budget::divide(1024, 2, &config(""));
        let key = ferry_config::Identity::generate().expect("a key").public_key();
        let peers = format!("peers: [{{name: b, keys: [\"{key}\"], addresses: [\"127.0.0.1:1\"]}}]\n");
        let many = Budget::divide(1024, 2, &config(&format!("{peers}warm_links: {{own: 100, offered: 50}}\n")));
        assert_eq!(few.sessions - many.sessions, 75);
    }

    #[test]
    fn an_end_that_listens_for_websockets_alone_keeps_as_much_for_strangers_as_any_other() {
        let mut config = config("");
        let budget = Budget::divide(1024, 2, &config);
        config.listen_ws = config.listen.take();
        let other = Budget::divide(1024, 2, &config);
        let room = |budget: &Budget| (budget.strangers, budget.known, budget.answered);
        assert_eq!(room(&other), room(&budget));
    }

    #[test]
    fn an_end_that_only_dials_keeps_nothing_for_strangers() {
        let mut config = config("");
        config.listen = None;
        let budget = Budget::divide(1024, 2, &config);
        assert_eq!((budget.strangers, budget.known, budget.answered), (0, 0, 0));
    }
}
