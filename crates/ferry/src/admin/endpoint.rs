//! Which tunnel is asked, and asking it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use reqwest::{Client, StatusCode, Url};

use super::port_forward::{Place, PortForward};
use crate::exit::Usage;

/// A tunnel's admin endpoint, on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The tunnel's admin endpoint: `admin` of its tunnel.yaml.
    #[arg(default_value = "http://127.0.0.1:9900", conflicts_with = "pod")]
    url: Url,
    #[command(flatten)]
    place: Place,
}

/// Examples of naming one, for the help of this command.
pub(crate) fn examples(command: &str) -> String {
    let line = |arguments: &str, what: &str| format!("  {:<41}{what}\n", format!("ferry {command}{arguments}"));
    line("", "the tunnel on this machine, at http://127.0.0.1:9900")
        + &line(" http://127.0.0.1:9901", "the one whose `admin` that is")
        + &format!(
            "  ferry {command} --context k3d-cluster-a --namespace network-initiator-ns --pod deploy/initiator\n"
        )
}

/// An admin endpoint that can be asked. In a cluster it is reached for as long as this is held.
pub(crate) struct Endpoint {
    url: Url,
    client: Client,
    place: Place,
    forward: Option<PortForward>,
}

impl Endpoint {
    /// Finds out how to ask it, for a pod by kubectl, but does not ask yet.
    pub(crate) async fn reach(which: Which) -> anyhow::Result<Self> {
        let Which { url, place } = which;
        Self::at(url, place).await
    }

    /// The one in a pod.
    pub(crate) async fn in_pod(place: Place) -> anyhow::Result<Self> {
        // Its port on this machine is known later.
        Self::at("http://127.0.0.1".parse()?, place).await
    }

    async fn at(url: Url, place: Place) -> anyhow::Result<Self> {
        if url.scheme() != "http" || !url.has_host() {
            let hint = "give the tunnel's admin endpoint, such as http://127.0.0.1:9900";
            return Err(Usage(format!("{url} does not start with http://; {hint}")).into());
        }
        // It is on this machine or behind a port-forward: no proxy is in between. The endpoint ends a connection within a
        // minute, so none is kept to find out when.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        let client = client.context("cannot make an HTTP client")?;
        let mut endpoint = Self { url, client, place, forward: None };
        endpoint.reach_again().await?;
        Ok(endpoint)
    }

    /// To a pod, by another port-forward: its own may have ended with the pod, and another pod be in its place.
    pub(crate) async fn reach_again(&mut self) -> anyhow::Result<()> {
        let Some(pod) = &self.place.pod else { return Ok(()) };
        self.forward = None;
        let forward = PortForward::start(pod, &self.place).await?;
        self.url = format!("http://127.0.0.1:{}", forward.port()).parse()?;
        self.forward = Some(forward);
        Ok(())
    }

    /// Where it is now.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// What asks it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Its `/status`, as it is, with this many sessions or as many as it lists.
    pub(crate) async fn status(&self, sessions: Option<usize>, within: Duration) -> anyhow::Result<String> {
        let mut at = self.url.join("/status").context("the URL cannot be used")?;
        if let Some(sessions) = sessions {
            at.set_query(Some(&format!("sessions={sessions}")));
        }
        self.ask(at, within).await
    }

    /// Its `/metrics`.
    pub(crate) async fn metrics(&self, within: Duration) -> anyhow::Result<String> {
        self.ask(self.url.join("/metrics").context("the URL cannot be used")?, within).await
    }

    /// Whether it reaches its peers, by its `/readyz`; if not, the error is what it says.
    pub(crate) async fn reaches_peers(&self, within: Duration) -> anyhow::Result<()> {
        let mut at = self.url.join("/readyz").context("the URL cannot be used")?;
        at.set_query(Some("peers=1"));
        match self.get(at, within).await? {
            (code, _) if code.is_success() => Ok(()),
            (_, text) => bail!("{}", Foreign(text.trim())),
        }
    }

    async fn ask(&self, at: Url, within: Duration) -> anyhow::Result<String> {
        let (code, text) = self.get(at, within).await?;
        if !code.is_success() {
            bail!("{} answers {code}: {}; is this a tunnel's admin endpoint?", self.url, Foreign(text.trim()));
        }
        Ok(text)
    }

    async fn get(&self, at: Url, within: Duration) -> anyhow::Result<(StatusCode, String)> {
        let answer = self.client.get(at).timeout(within).send().await.map_err(|error| self.silent(error))?;
        let code = answer.status();
        Ok((code, answer.text().await.with_context(|| format!("{} broke off its answer", self.url))?))
    }

    fn silent(&self, error: reqwest::Error) -> anyhow::Error {
        let (url, error) = (&self.url, anyhow::Error::from(error));
        let hint = match (&self.place.pod, &self.forward) {
            (Some(pod), Some(forward)) => match forward.complaint() {
                Some(complaint) => format!("kubectl says: {complaint}"),
                None => format!("is `admin` of {pod} at port {}?", self.place.admin_port),
            },
            _ => "is it running, and is this its `admin` address? (in Kubernetes: --pod)".to_owned(),
        };
        anyhow::anyhow!("no tunnel answers at {url}: {}; {hint}", error.root_cause())
    }
}
