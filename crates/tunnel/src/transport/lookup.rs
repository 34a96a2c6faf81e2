//! Names and their addresses: those that answered last are used while the name service does not answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ferry_config::HostPort;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::net::Network;

/// A lookup that takes longer has failed; another one may be started.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// What lookups have brought so far. Shared by all dials to the same places, so that one lookup serves them all.
#[derive(Default)]
pub(crate) struct Lookups(Arc<Mutex<Names>>);

type Names = HashMap<HostPort, Name>;

#[derive(Default)]
struct Name {
    /// The last answer with an address in it. A failure does not replace it.
    known: Vec<SocketAddr>,
    asking: Option<watch::Receiver<Option<Answer>>>,
    /// The lookup ends with the tunnel.
    task: Option<AbortOnDropHandle<()>>,
}

/// The addresses, or what went wrong.
type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// A place to be dialled: its addresses so far, and more of them later if it is a name.
pub(crate) struct Resolution {
    pub(crate) target: HostPort,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) asking: Option<Asking>,
}

/// A lookup that is under way.
pub(crate) struct Asking(watch::Receiver<Option<Answer>>);

impl Asking {
    /// What it brings.
    pub(crate) async fn answer(mut self) -> Result<Vec<SocketAddr>, io::Error> {
        let ended = || Arc::new(io::Error::other("the lookup was given up"));
        let answer = match self.0.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err(ended())),
            Err(_) => Err(ended()),
        };
        answer.map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

impl Lookups {
    /// Begins to look `target` up, unless it is an address by itself.
    pub(crate) fn find(&self, network: &Arc<dyn Network>, target: &HostPort) -> Resolution {
        let target = target.clone();
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            return Resolution { addresses: vec![SocketAddr::new(ip, target.port)], target, asking: None };
        }
        let mut names = self.0.lock();
        let name = names.entry(target.clone()).or_default();
        let asking = match &name.asking {
            Some(asking) => asking.clone(),
            None => {
                let (tell, asking) = watch::channel(None);
                name.asking = Some(asking.clone());
                let ask = ask(Arc::downgrade(&self.0), network.clone(), target.clone(), tell);
                name.task = Some(AbortOnDropHandle::new(tokio::spawn(ask)));
                asking
            }
        };
        Resolution { target, addresses: name.known.clone(), asking: Some(Asking(asking)) }
    }

    /// Forgets names that are not dialled any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&HostPort) -> bool) {
        self.0.lock().retain(|target, name| name.asking.is_some() || wanted(target));
    }
}

async fn ask(
    names: Weak<Mutex<Names>>,
    network: Arc<dyn Network>,
    target: HostPort,
    tell: watch::Sender<Option<Answer>>,
) {
    let lookup = network.resolve(target.host.clone(), target.port);
    let answer = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(io::Error::other("the name has no address")),
        Ok(answer) => answer,
        Err(_) => Err(io::Error::other(format!("no answer from the name service within {LOOKUP_TIMEOUT:?}"))),
    };
    if let Some(names) = names.upgrade()
        && let Some(name) = names.lock().get_mut(&target)
    {
        name.asking = None;
        if let Ok(addresses) = &answer {
            name.known.clone_from(addresses);
        }
    }
    tell.send_replace(Some(answer.map_err(Arc::new)));
}
