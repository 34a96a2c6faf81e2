//! How long a session waits for a link, and what becomes of it then.

use std::time::Duration;

use ferry_session::{Outcome, RejectCode, Session, Settings};

use crate::pair::{ACCEPTOR, MOMENT, OPENER, Pair, settings};

const BOTH: [usize; 2] = [OPENER, ACCEPTOR];
const SECOND: Duration = Duration::from_secs(1);

fn windows(opener: u64, acceptor: u64) -> [Settings; 2] {
    [opener, acceptor]
        .map(|seconds| Settings { resume_window: Duration::from_secs(seconds), ..settings(64 * 1024, 64 * 1024) })
}

#[test]
fn an_opener_that_restarted_leaves_the_acceptor_to_expire() {
    let mut pair = Pair::open();
    pair.write(ACCEPTOR, 1_000);
    pair.kill(OPENER);
    pair.run(Duration::from_secs(599));
    assert_eq!(pair.ends[ACCEPTOR].outcome, None);
    pair.run(2 * SECOND);
    assert_eq!(pair.ends[ACCEPTOR].outcome, Some(Outcome::Expired));
    assert_eq!(pair.allocated(ACCEPTOR), 0);
}

#[test]
fn both_ends_expire_after_the_smaller_resume_window() {
    for settings in [windows(600, 5), windows(5, 600)] {
        let mut pair = Pair::open_with(settings);
        pair.resumes = false;
        pair.cut(0, 0);
        pair.run(Duration::from_millis(4_990));
        assert_eq!(BOTH.map(|end| pair.ends[end].outcome.clone()), [None, None]);
        pair.run(Duration::from_millis(20));
        assert_eq!(BOTH.map(|end| pair.ends[end].outcome.clone()), [Some(Outcome::Expired), Some(Outcome::Expired)]);
        assert_eq!(BOTH.map(|end| pair.session(end).poll_timeout()), [None, None]);
    }
}

#[test]
fn a_session_that_never_attached_expires_after_its_own_resume_window() {
    let mut pair = Pair::with_settings(1, windows(5, 600));
    pair.resumes = false;
    pair.dial(false);
    pair.black_hole(0);
    pair.run(Duration::from_millis(5_010));
    assert_eq!(pair.ends[OPENER].outcome, Some(Outcome::Expired));
}

#[test]
fn attaching_in_vain_does_not_extend_the_resume_window() {
    let mut pair = Pair::open_with(windows(20, 20));
    pair.resumes = false;
    for link in 0..20 {
        pair.cut(link, 0);
        pair.run(SECOND);
        if pair.dial(false) {
            pair.black_hole(link + 1);
        }
    }
    assert_eq!(pair.ends[OPENER].outcome, Some(Outcome::Expired));
    assert_eq!(pair.ends[ACCEPTOR].outcome, Some(Outcome::Expired));
}

#[test]
fn a_session_without_a_resume_window_ends_with_its_link() {
    let mut pair = Pair::open_with(windows(600, 0));
    pair.resumes = false;
    pair.black_hole(0);
    pair.run(16 * SECOND);
    assert_eq!(BOTH.map(|end| pair.ends[end].outcome.clone()), [Some(Outcome::Expired), Some(Outcome::Expired)]);
}

#[test]
fn an_attach_starts_the_resume_window_anew() {
    let mut pair = Pair::open_with(windows(5, 5));
    pair.resumes = false;
    for link in 0..10 {
        pair.cut(link, 0);
        pair.run(Duration::from_secs(4));
        assert!(pair.dial(false));
        pair.run(MOMENT);
        assert!(pair.session(OPENER).is_attached());
    }
    pair.exchange_and_close([100, 100]);
}

#[test]
fn an_opener_that_comes_after_the_acceptor_expired_is_refused_as_closed() {
    let mut pair = Pair::open();
    pair.write(OPENER, 1_000);
    pair.dial_after_the_acceptor_expired();
    let Some(Outcome::Refused { code, .. }) = &pair.ends[OPENER].outcome else { panic!("refused") };
    assert_eq!(*code, RejectCode::Closed);
    assert!(pair.ends[OPENER].session.as_ref().is_some_and(Session::is_closed));
}
