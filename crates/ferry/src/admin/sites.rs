//! What `/status` says where a web-app answers and not a tunnel: `docs/http-api.md` describes it.

use ferry_text::Foreign;
use reqwest::Url;
use serde::Deserialize;

use super::status::Status;

/// Whoever answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Tunnel(Box<Status>),
    WebApp(Vec<Site>),
}

/// The far web-app of a site, and what lies here for it and of it. Text in it is shown as foreign.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Site {
    site: Option<String>,
    pub(crate) connected: bool,
    pod: Option<String>,
    cluster: Option<String>,
    pub(crate) outbox: Outbox,
    pub(crate) dead: u64,
}

/// What was accepted and is not acknowledged.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outbox {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

#[derive(Deserialize)]
struct WebApp {
    sites: Vec<Site>,
}

impl Answer {
    /// Reads what the endpoint at this URL says.
    pub(crate) fn parse(text: &str, url: &Url) -> anyhow::Result<Self> {
        let tunnel = Status::parse(text, url);
        match (tunnel, serde_json::from_str::<WebApp>(text)) {
            (Ok(status), _) => Ok(Self::Tunnel(Box::new(status))),
            (Err(_), Ok(WebApp { sites })) => Ok(Self::WebApp(sites)),
            (Err(error), Err(_)) => Err(error),
        }
    }
}

impl Site {
    /// In the words of the page, where its tunnel names no peer.
    pub(crate) fn name(&self) -> String {
        self.site.as_ref().map_or_else(|| "the far web-app".to_owned(), |name| Foreign(name).to_string())
    }

    /// Where its web-app runs, while it is connected.
    pub(crate) fn place(&self) -> String {
        match (&self.pod, &self.cluster) {
            (Some(pod), Some(cluster)) => format!("{} in {}", Foreign(pod), Foreign(cluster)),
            _ => "-".to_owned(),
        }
    }
}
