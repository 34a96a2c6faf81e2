//! Datagrams on the simulated path: lost, doubled, overtaken, cut off, and from other addresses than before.
//!
//! What a tunnel dials from is behind an address translator, which knows each flow by a port of its own until it forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Instant, Sleep};

use crate::net::Net;
use crate::pipe::Line;
use crate::rng::Rng;
use crate::stream::poll_at;

/// What listeners see diallers come from.
const TRANSLATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

/// The first port that is nobody's in particular.
const FIRST_PORT: u16 = 40_000;

/// Directions of the path, as of connections.
const FROM_DIALLERS: usize = 0;
const TO_DIALLERS: usize = 1;

/// What becomes of datagrams, beside what the line does to everything.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand.
    pub lost: u64,
    pub doubled: u64,
    /// Each is late by up to this: one overtakes another.
    pub late: Duration,
    /// Longer ones are lost.
    pub largest: usize,
}

impl Weather {
    pub const CALM: Self = Self { lost: 0, doubled: 0, late: Duration::ZERO, largest: 1472 };

    pub fn random(rng: &mut Rng) -> Self {
        Self {
            lost: rng.pick(&[0, 1, 10, 50]),
            doubled: rng.pick(&[0, 0, 20]),
            late: Duration::from_millis(rng.pick(&[0, 0, 3, 30])),
            largest: rng.pick(&[1200, 1472]),
        }
    }
}

/// All sockets for datagrams, and what is between them.
pub struct Datagrams {
    sockets: BTreeMap<SocketAddr, Inbox>,
    /// A flow, from its socket to what that sends to, and the port that stands for it.
    translated: BTreeMap<(SocketAddr, SocketAddr), u16>,
    next_port: u16,
    pub weather: Weather,
    pub rng: Rng,
    /// Nothing gets through in these directions.
    stopped: [bool; 2],
    /// No datagram gets through, whatever becomes of connections.
    blocked: bool,
    /// When all that was sent has left.
    departs: [Instant; 2],
    /// Sockets that somebody has.
    held: usize,
    bound: u64,
    carried: u64,
    /// The ids that diallers of QUIC have chosen for themselves.
    dialled: BTreeSet<Vec<u8>>,
}

struct Inbox {
    /// Which of the sockets that had its address this is.
    number: u64,
    /// By when they arrive, then by when they were sent.
    datagrams: BTreeMap<(Instant, u64), Datagram>,
    reader: Option<Waker>,
}

#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
}

impl Datagrams {
    pub fn new() -> Self {
        Self {
            sockets: BTreeMap::new(),
            translated: BTreeMap::new(),
            next_port: FIRST_PORT,
            weather: Weather::CALM,
            rng: Rng::new(0),
            stopped: [false; 2],
            blocked: false,
            departs: [Instant::now(); 2],
            held: 0,
            bound: 0,
            carried: 0,
            dialled: BTreeSet::new(),
        }
    }

    /// How many were let through.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// How many connections of QUIC have been dialled, whether that was answered or not.
    pub fn dialled(&self) -> usize {
        self.dialled.len()
    }

    /// Forgets them.
    pub fn reset_dialled(&mut self) {
        self.dialled.clear();
    }

    /// Sockets that were not given up.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Datagrams are dropped in silence, everywhere, until they are not.
    pub fn block(&mut self, yes: bool) {
        self.blocked = yes;
        self.lose_what_is_under_way([yes; 2]);
    }

    /// As [`Net::partition`](crate::net::Net::partition).
    pub fn stop(&mut self, directions: [bool; 2]) {
        self.stopped = directions;
        self.lose_what_is_under_way(directions);
    }

    fn lose_what_is_under_way(&mut self, directions: [bool; 2]) {
        let now = Instant::now();
        for (at, inbox) in &mut self.sockets {
            if directions[if at.port() >= FIRST_PORT { TO_DIALLERS } else { FROM_DIALLERS }] {
                inbox.datagrams.retain(|(arrives, _), _| *arrives <= now);
            }
        }
    }

    /// The translator has forgotten all flows: what comes next of them is from other ports.
    pub fn rebind(&mut self) {
        self.translated.clear();
    }

    /// The process at `host` is gone, and its sockets with it.
    pub fn abandon(&mut self, host: IpAddr) -> impl Sized + use<> {
        self.sockets.extract_if(.., |at, _| at.ip() == host).collect::<Vec<_>>()
    }

    fn inbox(&mut self, at: SocketAddr, number: u64) -> Option<&mut Inbox> {
        self.sockets.get_mut(&at).filter(|inbox| inbox.number == number)
    }

    /// Whose a port of the translator's is, and what that sends to.
    fn flow(&self, port: u16) -> Option<(SocketAddr, SocketAddr)> {
        self.translated.iter().find(|(_, translated)| **translated == port).map(|(flow, _)| *flow)
    }

    fn port_of(&mut self, flow: (SocketAddr, SocketAddr)) -> u16 {
        let next = &mut self.next_port;
        *self.translated.entry(flow).or_insert_with(|| {
            *next += 1;
            *next
        })
    }

    /// Puts one on its way. Who is woken by it, if it gets there.
    fn carry(&mut self, direction: usize, to: SocketAddr, line: Line, datagram: &Datagram) -> Option<Waker> {
        let Weather { lost, doubled, late, largest } = self.weather;
        let length = datagram.contents.len();
        if self.stopped[direction] || self.blocked || length > largest || self.rng.below(1000) < lost {
            return None;
        }
        let now = Instant::now();
        let left = self.departs[direction].max(now);
        let waiting = (left - now).as_micros() as u64 * line.rate / 1_000_000;
        if waiting > line.buffer as u64 {
            return None;
        }
        let takes = (length as u64 * 1_000_000).checked_div(line.rate).unwrap_or_default();
        self.departs[direction] = left + Duration::from_micros(takes);
        let copies = 1 + u64::from(self.rng.below(1000) < doubled);
        for _ in 0..copies {
            let late = Duration::from_micros(self.rng.below(late.as_micros() as u64 + 1));
            let arrives = self.departs[direction] + line.latency + late;
            self.carried += 1;
            let order = self.carried;
            self.sockets.get_mut(&to)?.datagrams.insert((arrives, order), datagram.clone());
        }
        self.sockets.get_mut(&to)?.reader.take()
    }
}

/// The id that the dialler of a connection has chosen for itself, in its first packets (RFC 9000 §17.2.2).
fn dialler_id(datagram: &[u8]) -> Option<&[u8]> {
    let is_initial = datagram.first()? & 0xf0 == 0xc0;
    let past_destination = 6 + usize::from(*datagram.get(5)?);
    let length = usize::from(*datagram.get(past_destination)?);
    datagram.get(past_destination + 1..past_destination + 1 + length).filter(|_| is_initial)
}

/// A socket for datagrams.
pub struct Socket {
    net: Net,
    at: SocketAddr,
    number: u64,
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Socket {
    pub fn bind(net: &Net, ip: IpAddr, port: u16) -> io::Result<Arc<Self>> {
        let mut datagrams = net.datagrams();
        datagrams.next_port += 1;
        let at = SocketAddr::new(ip, if port == 0 { datagrams.next_port } else { port });
        if datagrams.sockets.contains_key(&at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        datagrams.bound += 1;
        datagrams.held += 1;
        let number = datagrams.bound;
        datagrams.sockets.insert(at, Inbox { number, datagrams: BTreeMap::new(), reader: None });
        Ok(Arc::new(Self { net: net.clone(), at, number, timer: Mutex::default() }))
    }

    /// Sends one datagram, which is let through or not.
    fn send(&self, to: SocketAddr, ecn: Option<EcnCodepoint>, contents: &[u8]) {
        let answered = if to.ip() == TRANSLATOR { self.net.datagrams().flow(to.port()) } else { None };
        // An address that leads nowhere any more is nobody's to answer from either.
        let Some(host) = self.net.door(answered.map_or(to.ip(), |(_, dialled)| dialled.ip())) else { return };
        let line = self.net.line();
        let mut datagrams = self.net.datagrams();
        if datagrams.inbox(self.at, self.number).is_none() {
            return;
        }
        let (direction, from, to) = match answered {
            Some((socket, dialled)) => (TO_DIALLERS, dialled, socket),
            None => {
                datagrams.dialled.extend(dialler_id(contents).map(<[u8]>::to_vec));
                let port = datagrams.port_of((self.at, to));
                (FROM_DIALLERS, SocketAddr::new(TRANSLATOR, port), SocketAddr::new(host, to.port()))
            }
        };
        let datagram = Datagram { from, ecn, contents: contents.to_vec() };
        let reader = datagrams.carry(direction, to, line, &datagram);
        drop(datagrams);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut datagrams = self.net.datagrams();
        datagrams.held -= 1;
        let inbox = datagrams.inbox(self.at, self.number).is_some().then(|| datagrams.sockets.remove(&self.at));
        drop(datagrams);
        drop(inbox);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("at", &self.at).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let length = transmit.segment_size.unwrap_or(transmit.contents.len());
        transmit.contents.chunks(length).for_each(|datagram| self.send(transmit.destination, transmit.ecn, datagram));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut datagrams = self.net.datagrams();
            let Some(inbox) = datagrams.inbox(self.at, self.number) else { return Poll::Pending };
            let (now, mut count) = (Instant::now(), 0);
            while count < bufs.len()
                && let Some(first) = inbox.datagrams.first_entry()
                && first.key().0 <= now
            {
                let Datagram { from, ecn, contents } = first.remove();
                let len = contents.len();
                bufs[count][..len].copy_from_slice(&contents);
                meta[count] = RecvMeta { addr: from, len, stride: len, ecn, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            inbox.reader = Some(cx.waker().clone());
            let Some((&(arrives, _), _)) = inbox.datagrams.first_key_value() else { return Poll::Pending };
            drop(datagrams);
            ready!(poll_at(&mut self.timer.lock().unwrap_or_else(PoisonError::into_inner), arrives, cx));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }

    fn max_transmit_segments(&self) -> usize {
        10
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// What has no room is lost: nobody waits for any.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
