use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;

const BUDGET: Budget = Budget { sessions: 1, strangers: 8, known: 8, answered: 4, splices: 16, links: 1, admin: 1 };

/// The `number`th address of a network of its own.
fn apart(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0001 + number * 256))
}

fn peer() -> Name {
    "a/peer".parse().expect("a name")
}

/// A lobby that knows one address.
fn lobby(known: IpAddr) -> (Arc<Lobby>, Instant) {
    let (lobby, now) = (Lobby::new(&BUDGET, 2), Instant::now());
    lobby.enter(known, now).0.on_proof(&peer(), now);
    assert_eq!(lobby.taken(), 0);
    (lobby, now)
}

#[test]
fn strangers_from_everywhere_move_nobody_from_where_a_peer_is_known() {
    let home = apart(0);
    let (lobby, now) = lobby(home);
    let (mut waiting, mut told) = lobby.enter(home, now);
    let (mut answered, mut also_told) = lobby.enter(home, now);
    answered.on_answer();
    let mut crowd: Vec<_> = (1..1000).map(|number| lobby.enter(apart(number), now)).collect();
    crowd.iter_mut().for_each(|(seat, _)| seat.on_answer());
    assert!(told.try_recv().is_err() && also_told.try_recv().is_err());
    assert!(lobby.taken() <= 2 + BUDGET.strangers + BUDGET.answered, "{}", lobby.taken());
    assert!(!waiting.is_crowded());
    waiting.on_answer();
    assert!(told.try_recv().is_err());
}

#[test]
fn strangers_take_no_turn_of_a_known_source() {
    let (lobby, now) = lobby(apart(0));
    let (stranger, _told) = lobby.enter(apart(1), now);
    let turns = stranger.turns();
    let taken: Vec<_> = std::iter::from_fn(|| turns.try_acquire().ok()).collect();
    assert_eq!(taken.len(), 1, "half of the turns");
    let (known, _told) = lobby.enter(apart(0), now);
    assert!(known.turns().try_acquire().is_ok());
}

/// Behind one address with a known peer, silent connections in any number push out only each other: who has its answer
/// stays, and who speaks at once gets it.
#[test]
fn silent_neighbours_at_the_same_address_move_nobody_who_speaks() {
    let home = apart(0);
    let (lobby, now) = lobby(home);
    let (mut speaks, mut told) = lobby.enter(home, now);
    speaks.on_answer();
    let crowd: Vec<_> = (0..1000).map(|_| lobby.enter(home, now)).collect();
    assert!(told.try_recv().is_err());
    let (mut next, mut next_told) = lobby.enter(home, now);
    next.on_answer();
    assert!(next_told.try_recv().is_err() && told.try_recv().is_err());
    drop(crowd);
    assert_eq!(lobby.taken(), 2);
}

#[test]
fn who_has_to_go_is_told_once_and_leaves_nothing_behind() {
    let (lobby, now) = lobby(apart(0));
    let mut crowd: Vec<_> = (0..=8).map(|_| lobby.enter(apart(1), now)).collect();
    assert_eq!(crowd[0].1.try_recv(), Ok(()));
    // It had its turn in that moment: that changes nothing.
    crowd[0].0.on_answer();
    crowd.iter_mut().skip(1).for_each(|(_, told)| assert!(told.try_recv().is_err()));
    assert_eq!(lobby.taken(), 8);
    crowd.clear();
    assert_eq!(lobby.taken(), 0);
}

#[test]
fn out_of_files_half_of_the_strangers_go_and_nobody_from_where_a_peer_is_known() {
    let home = apart(0);
    let (lobby, now) = lobby(home);
    let (_seat, mut told) = lobby.enter(home, now);
    let mut strangers: Vec<_> = (1..=8).map(|number| lobby.enter(apart(number), now)).collect();
    strangers[6].0.on_answer();
    assert_eq!(lobby.shed(), 5);
    assert!(told.try_recv().is_err());
    let told = strangers.iter_mut().filter_map(|(_, told)| told.try_recv().ok()).count();
    assert_eq!((told, lobby.taken()), (5, 4));
}

#[test]
fn a_peer_that_is_not_listed_any_more_has_no_share() {
    let (lobby, now) = lobby(apart(0));
    lobby.forget_all_but(|_| false);
    assert!(!lobby.enter(apart(0), now).0.known);
    lobby.enter(apart(0), now).0.on_proof(&peer(), now);
    assert!(lobby.enter(apart(0), now).0.known);
    assert!(!lobby.enter(apart(0), now + Duration::from_secs(25 * 3600)).0.known);
}
