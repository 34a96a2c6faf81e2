//! What a driver is told, by others and by its session, and what it does about it.

use std::fmt::Display;
use std::time::Duration;

use ferry_session::{Epoch, Event, Intent, LinkKind, Outcome, RejectCode, Release, ResetCode, Side};
use ferry_text::Foreign;
use ferry_units::render_duration;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::{Driver, FIRST_RETRY_DELAY, MAX_RETRY_DELAY, PendingLink};
use crate::application::local::LAST_BYTES_TIMEOUT;
use crate::net::Carrier;
use crate::sessions::mailbox::Command;
use crate::supply::pool::{Need, Want};
use crate::telemetry::events::{self, EndFacts, SessionFacts};
use crate::telemetry::metrics::{ByEnd, ByRotated, Ending, Rotated};
use crate::telemetry::repeats::{Kind, Line};
use crate::transport;
use crate::transport::dial::DialError;

/// How long an application may take nothing of what its kernel was given, when this end is told to reset it.
const COMMANDED_RESET_TIMEOUT: Duration = Duration::from_millis(500);

/// A session that resumes waits this long for a link of the process that has its other end, before it takes any.
const OWN_LINK_TIMEOUT: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Attach(hello, link) => self.accept(&hello, link),
            Command::PeerGone => self.session.abandon("the peer's tunnel was restarted"),
            Command::Recheck => self.recheck(),
            Command::Rotate => self.rotate_at = self.rotate_at.map(|_| self.shared.now()),
            Command::Hold => {
                if let Some(kept) = &self.kept {
                    self.local.hold(kept);
                }
            }
            Command::Reset(code, reason) => {
                self.session.reset(code, reason);
                self.reset_local(COMMANDED_RESET_TIMEOUT);
            }
        }
    }

    /// A session whose peer or right was withdrawn ends; a link whose key is accepted no longer is left for another.
    /// Where keys are to last less long than before, those in use are, too.
    pub(super) fn recheck(&mut self) {
        let config = self.shared.config();
        self.key_bytes = config.tunnel.settings.rotation.bytes;
        self.limits.update();
        if let (Some(at), Some(link)) = (self.rotate_at, self.newest_link()) {
            self.rotate_at = Some(at.min(self.keys_due(link)));
        }
        let withdrawn = if !config.peers.contains_key(&self.peer.name) {
            Some("the peer was withdrawn from the configuration")
        } else if self.session.side() == Side::Acceptor
            && config.service(self.session.service(), &self.peer.name).is_none()
        {
            Some("the service was withdrawn from the peer")
        } else {
            None
        };
        if let Some(reason) = withdrawn {
            self.session.reset(ResetCode::Withdrawn, reason);
            self.reset_local(COMMANDED_RESET_TIMEOUT);
        }
        let peer = &self.peer;
        let refused = self.links.iter().filter(|(_, link)| !peer.accepts(&link.facts().key));
        for epoch in refused.map(|(epoch, _)| *epoch).collect::<Vec<_>>() {
            info!(%epoch, "link closed: its key is not accepted any more");
            self.drop_link(epoch, &"its key is not accepted any more");
        }
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Attached { epoch, intent } => self.on_attached(epoch, intent),
            Event::Released { epoch, release } => self.on_released(epoch, &release),
            Event::Suspect { epoch } => {
                debug!(%epoch, "link suspect");
                self.doubt_what_carries(epoch);
                self.peer.distrust();
                if self.session.side() == Side::Opener {
                    if !self.session.is_attached() {
                        // A Hello without answer: the next link gets another.
                        self.drop_link(epoch, &"no answer to a Hello");
                    }
                    self.request_link(Need::Resume);
                }
            }
            Event::Detached => {
                self.registration.set_link(None);
                // An attach that failed is none that was lost.
                if !self.detached {
                    let reason = self.reasons.as_mut().and_then(|reasons| reasons.loss.take());
                    let reason = reason.unwrap_or_else(|| "nothing came over the link any more".to_owned());
                    let kept_for = render_duration(self.session.resume_window());
                    info!(%reason, %kept_for, "session detached");
                    let (session, kept_for) = (self.facts(), self.session.resume_window());
                    self.shared.events.tell(events::Event::SessionDetached { session, reason, kept_for });
                }
                self.count_detached(true);
                if self.session.side() == Side::Opener {
                    self.request_link(Need::Resume);
                }
            }
            Event::Closed(outcome) => self.on_closed(outcome),
        }
    }

    /// A link is suspect. If it is QUIC that does not answer, TCP has its turn first.
    fn doubt_what_carries(&mut self, epoch: Epoch) {
        let link = self.links.iter().find(|(of, _)| *of == epoch);
        if link.is_none_or(|(_, link)| link.facts().carrier != Carrier::Quic) {
            return;
        }
        let replaced_by = match self.session.side() {
            Side::Opener => LinkKind::Own,
            Side::Acceptor => LinkKind::Offered,
        };
        self.peer.doubt_quic(replaced_by);
        self.reasons.get_or_insert_default().left_quic = true;
    }

    pub(super) fn on_attached(&mut self, epoch: Epoch, intent: Intent) {
        let Some((_, link)) = self.links.iter().find(|(of, _)| *of == epoch) else { return };
        self.rotate_at = (self.session.side() == Side::Opener).then(|| self.keys_due(link));
        let (round_trip, carrier) = (link.facts().round_trip, link.facts().carrier);
        let pause = self.registration.set_link(Some((epoch, link.facts().clone())));
        self.registration.note_link(link.facts().key, link.from(), intent == Intent::Rotate);
        // Accepted by it: no other process has the session.
        self.registration.set_peer_instance(link.facts().instance);
        self.look_first(self.shared.now(), epoch);
        self.tell_receive_window();
        self.lease.measure_anew();
        let reasons = self.reasons.take();
        self.count_detached(false);
        self.tries = 0;
        self.share_pings();
        match intent {
            Intent::Open => {
                debug!("session open");
                let took = self.registration.opened.elapsed();
                self.shared.events.tell(events::Event::SessionOpened { session: self.facts(), took });
            }
            Intent::Resume => {
                self.peer.round_trip.restart(round_trip);
                self.shared.metrics.resumes.inc();
                self.shared.metrics.resume_pause.observe(&ByEnd { side: self.end() }, pause);
                self.tell("resumed", Line::info("session resumed"));
                let (session, epoch) = (self.facts(), epoch.0);
                self.shared.events.tell(events::Event::SessionResumed { session, epoch, after: pause });
                if carrier != Carrier::Quic && reasons.is_some_and(|reasons| reasons.left_quic) {
                    self.rotate_soon();
                }
            }
            Intent::Rotate => {
                self.lease.shrink_idle(&mut self.session);
                self.shared.metrics.rotations.get_or_create(&ByRotated { result: Rotated::Done }).inc();
                debug!(%epoch, "session rotated");
                // The acceptor waits for none.
                let since = reasons.and_then(|reasons| reasons.rotating_since);
                let took = since.map_or(Duration::ZERO, |since| self.shared.now().since(since));
                let (session, epoch) = (self.facts(), epoch.0);
                self.shared.events.tell(events::Event::SessionRotated { session, epoch, took });
            }
        }
    }

    pub(super) fn on_released(&mut self, epoch: Epoch, release: &Release) {
        let Some(index) = self.links.iter().position(|(of, _)| *of == epoch) else { return };
        let (_, link) = self.links.swap_remove(index);
        match release {
            Release::Finished => transport::close(&self.shared, *link),
            Release::Silent => {
                self.tell("silent", Line::info("link silent, given up"));
                self.tell_link_lost(epoch, &"it was silent, and is given up");
                self.peer.distrust();
            }
            Release::Unheeded => {
                self.tell(
                    "unheeded",
                    Line::info("link given up: the peer kept sending and did not take the session's end"),
                );
            }
            Release::Overdue => {
                self.tell("overdue", Line::info("link given up: the peer never ended it after a rotation"));
            }
            Release::Rejected { code, reason } => {
                self.on_rejected(epoch, *code, reason);
            }
            Release::Fenced | Release::Abandoned => {}
        }
    }

    fn on_rejected(&mut self, epoch: Epoch, code: RejectCode, reason: &str) {
        let reason = Foreign(reason).to_string();
        // While it is tried again and again, one line for each new reason.
        let refusal = &mut self.reasons.get_or_insert_default().refusal;
        if refusal.as_deref() != Some(&reason) {
            *refusal = Some(reason.clone());
            self.tell("attach rejected", Line::info(format!("attach of epoch {epoch} rejected: {reason}")));
            let (session, epoch) = (self.facts(), epoch.0);
            self.shared.events.tell(events::Event::AttachRejected { session, epoch, reason: reason.clone() });
        }
        match code {
            // It resumes, and its next link has fresh keys.
            RejectCode::NotAttached => self.count_failed_rotation(&reason),
            _ if self.session.is_attached() => self.rotation_failed(&reason),
            _ => {}
        }
    }

    pub(super) fn on_closed(&mut self, outcome: Outcome) {
        self.tell_end(&outcome);
        if outcome != Outcome::Finished {
            self.reset_local(LAST_BYTES_TIMEOUT);
        }
        self.pending_link = None;
        self.outcome = Some(Box::new(outcome));
    }

    /// The application's connection is reset, after what came for it. Where nothing ever came there is nothing to wait for;
    /// the application of a service may have been told who connects.
    fn reset_local(&mut self, patience: Duration) {
        let nothing_came = self.session.received() == 0 && self.session.receive_buffered() == 0;
        if nothing_came && self.session.side() == Side::Opener {
            self.local.reset();
        } else {
            self.local.reset_once_delivered(self.shared.now(), patience);
        }
    }

    fn tell_end(&self, outcome: &Outcome) {
        let line = match outcome {
            Outcome::Finished => Line::debug("session finished"),
            Outcome::ResetHere { code: ResetCode::Application, reason } => {
                Line::debug(format!("session reset here: {reason}"))
            }
            Outcome::ResetByPeer { code: ResetCode::Application, reason } => {
                Line::debug(format!("session reset by the peer: {}", Foreign(reason)))
            }
            Outcome::ResetHere { reason, .. } => Line::info(format!("session reset here: {reason}")),
            Outcome::ResetByPeer { reason, .. } => {
                Line::info(format!("session reset by the peer: {}", Foreign(reason)))
            }
            Outcome::Expired => {
                let refusal = self.reasons.as_ref().and_then(|reasons| reasons.refusal.as_deref());
                let last = refusal.map(|reason| format!("; the peer's last answer: {reason}"));
                let last = last.unwrap_or_default();
                Line::warn(format!("session reset: no link carried it within the resume window{last}"))
            }
            Outcome::PeerGone { reason } => Line::warn(format!("session lost: {reason}")),
            Outcome::Refused { reason, .. } => Line::warn(format!("session refused by the peer: {}", Foreign(reason))),
            Outcome::Violated(violation) => {
                Line::warn(format!("session reset: the peer broke the protocol: {violation}"))
            }
            Outcome::Unattachable(error) => Line::warn(format!("session reset: {error}")),
        };
        let by_applications = line.is_routine();
        let ending = Ending::of(outcome);
        let end = EndFacts::new(&self.registration, ending, line.text().to_owned());
        self.shared.events.tell(events::Event::session_ended(self.facts(), end, by_applications));
        self.tell(ending.as_str(), line);
    }

    pub(super) fn facts(&self) -> SessionFacts {
        SessionFacts::new(&self.registration.name, &self.registration.service)
    }

    fn tell_link_lost(&self, epoch: Epoch, reason: &dyn Display) {
        let (session, epoch) = (self.facts(), epoch.0);
        self.shared.events.tell(events::Event::LinkLost { session, epoch, reason: reason.to_string() });
    }

    /// Tells of this session, in lines that are counted where others set their rate.
    fn tell(&self, reason: &'static str, line: Line) {
        let kind = Kind::new(reason).peer(&self.peer.name).service(self.session.service());
        self.shared.repeats.tell(kind, line.session(self.session.id()).in_span(&self.span));
    }

    pub(super) fn count_detached(&mut self, detached: bool) {
        if std::mem::replace(&mut self.detached, detached) != detached {
            let gauge = &self.shared.metrics.sessions_detached;
            if detached {
                gauge.inc()
            } else {
                gauge.dec()
            };
            if self.session.side() == Side::Acceptor {
                self.peer.count_detached(detached);
            }
        }
    }

    pub(super) fn drop_link(&mut self, epoch: Epoch, reason: &dyn Display) {
        self.tell_link_lost(epoch, reason);
        self.reasons.get_or_insert_default().loss = Some(reason.to_string());
        self.links.retain(|(of, _)| *of != epoch);
        self.session.detach(self.shared.now(), epoch);
    }

    /// Waits for a link, unless one is waited for already; a rotation gives way to a resume.
    pub(super) fn request_link(&mut self, need: Need) {
        if self.pending_link.as_ref().is_some_and(|pending| pending.need <= need) {
            return;
        }
        let pause = match self.tries.checked_sub(2) {
            Some(doublings) if need == Need::Resume => {
                (FIRST_RETRY_DELAY * (1 << doublings.min(5))).min(MAX_RETRY_DELAY)
            }
            _ => Duration::ZERO,
        };
        self.tries += u32::from(need == Need::Resume);
        let (shared, peer) = (self.shared.clone(), self.peer.clone());
        // An Open must know which process it goes to.
        let early = self.session.is_established();
        let of = self.registration.peer_instance().or(self.opened_at);
        self.pending_link = Some(PendingLink {
            need,
            link: Box::pin(async move {
                if need == Need::Rotate {
                    shared.rotations.wait().await;
                    // A handshake takes too long to be made between two reads of other sessions.
                    let dialling = shared.clone();
                    let dial = shared.workers.spawn_on_control(async move { peer.fresh_link(&dialling, of).await });
                    AbortOnDropHandle::new(dial).await.unwrap_or(Err(DialError::GivenUp))
                } else {
                    tokio::time::sleep(pause).await;
                    let want = Want { need, early, of, or_another: of.is_none() };
                    // Whoever has the session may be gone: another one of its peer's processes may know.
                    let own = timeout(OWN_LINK_TIMEOUT, peer.pool.take(want)).await;
                    match own {
                        Ok(link) => Ok(link),
                        Err(_) => Ok(peer.pool.take(Want { or_another: true, ..want }).await),
                    }
                }
            }),
        });
    }
}
