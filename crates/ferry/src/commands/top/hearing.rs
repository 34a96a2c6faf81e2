//! Hears of a tunnel: asks for its status now and then, and follows its events.

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::state::Heard;
use crate::admin::{Answer, Endpoint, Event, Follower};
use crate::exit::chain;

/// How long a tunnel may take for its answer until it counts as not connected.
const STATUS_TIMEOUT: Duration = Duration::from_secs(4);
/// How long until a tunnel that does not answer is asked again.
const AWAY_DELAY: Duration = Duration::from_millis(1500);
/// As the stream of events asks for itself.
const NEXT_STREAM_DELAY: Duration = Duration::from_millis(500);
/// How long until events that were refused are asked for again.
const NO_EVENTS_DELAY: Duration = Duration::from_secs(3);

/// How much is asked for, and how often.
#[derive(Clone, Copy)]
struct Pace {
    sessions: usize,
    interval: Duration,
}

/// As the page does.
const FEW: Pace = Pace { sessions: 100, interval: Duration::from_secs(1) };
/// All that a tunnel lists, so that the busiest are among them, less often.
const MANY: Pace = Pace { sessions: 1000, interval: Duration::from_secs(3) };

/// Asks until no one listens any more. A port-forward that ended is made again.
pub(super) async fn ask(mut endpoint: Endpoint, at: watch::Sender<Url>, tell: mpsc::Sender<Heard>) {
    let mut pace = FEW;
    loop {
        let answer = endpoint.status(Some(pace.sessions), STATUS_TIMEOUT).await;
        let answer = answer.and_then(|text| Answer::parse(&text, endpoint.url()));
        let (heard, pause) = match answer {
            Ok(Answer::Tunnel(status)) => {
                pace = if status.totals.sessions > FEW.sessions { MANY } else { FEW };
                (Heard::Status(status), pace.interval)
            }
            Ok(Answer::WebApp(sites)) => (Heard::Sites(sites), FEW.interval),
            Err(error) => (Heard::Silence(chain(&error)), AWAY_DELAY),
        };
        let is_away = matches!(heard, Heard::Silence(_));
        if tell.send(heard).await.is_err() {
            return;
        }
        sleep(pause).await;
        if is_away {
            if let Err(error) = endpoint.reach_again().await
                && tell.send(Heard::Silence(chain(&error))).await.is_err()
            {
                return;
            }
            at.send_if_modified(|at| {
                let is_other = at != endpoint.url();
                at.clone_from(endpoint.url());
                is_other
            });
        }
    }
}

/// Follows events, one stream after another, until no one listens any more.
pub(super) async fn follow(
    client: Client,
    mut at: watch::Receiver<Url>,
    events: mpsc::Sender<Vec<Event>>,
    tell: mpsc::Sender<Heard>,
) {
    let mut follower = Follower::default();
    while !tell.is_closed() {
        let url = at.borrow_and_update().clone();
        let told = tokio::select! {
            told = follower.follow(&client, &url, &events) => told,
            // The old address leads nowhere any more.
            changed = at.changed() => if changed.is_ok() { continue } else { return },
        };
        match told {
            Ok(()) => sleep(NEXT_STREAM_DELAY).await,
            Err(error) => {
                // When all is closed the loop ends.
                let _ = tell.send(Heard::NoEvents(chain(&error))).await;
                sleep(NO_EVENTS_DELAY).await;
            }
        }
    }
}
