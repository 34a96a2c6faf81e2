//! What carries links into a cluster: how it is read, and what does not go together.

use super::raw::{RawBlueprint, RawCluster};
use super::{Carrier, Cluster, Scope};
use ferry_config::fields::{Field, Located, Position, Problems};
use ferry_config::{ValueError, quoted};

/// The value of `links`.
pub(super) struct RawLinks {
    position: Position,
    carriers: Vec<Located<Carrier>>,
}

impl RawLinks {
    pub(super) fn read(field: &Field<'_>) -> Self {
        if field.is_empty_list() {
            field.problem::<()>("no links", "list what may carry them: `[tcp]`, or `[quic, tcp]`");
        }
        let carriers = field.items().iter().filter_map(read_carrier).collect();
        Self { position: field.position.clone(), carriers }
    }

    pub(super) fn build(self) -> Vec<Carrier> {
        self.carriers.into_iter().map(|located| located.value).collect()
    }

    fn check(&self, cluster: &RawCluster, problems: &Problems) {
        for (i, carrier) in self.carriers.iter().enumerate() {
            if self.carriers[..i].iter().any(|other| other.value == carrier.value) {
                let message = format!("`{}` is listed twice", carrier.value);
                problems.add(&carrier.position, ValueError::new(message, "list each once, the preferred one first"));
            } else if !cluster.has_port {
                let message = format!("`{}` needs a `port` of the cluster", carrier.value);
                problems
                    .add(&carrier.position, ValueError::new(message, "give the cluster one, such as `port: 30200`"));
            }
        }
    }
}

fn read_carrier(field: &Field<'_>) -> Option<Located<Carrier>> {
    field.text(|text| match text {
        "tcp" => Ok(Carrier::Tcp),
        "quic" => Ok(Carrier::Quic),
        _ => {
            let message = format!("{} carries no links", quoted(text));
            Err(ValueError::new(message, "what does: `tcp`, `quic`"))
        }
    })
}

impl RawBlueprint {
    pub(super) fn check_links(&self, problems: &Problems) {
        let single = self
            .network
            .as_ref()
            .and_then(|network| network.scope.as_ref())
            .is_some_and(|scope| scope.value == Scope::SingleCluster);
        for (cluster, links) in self.clusters.iter().filter_map(|cluster| Some((cluster, cluster.links.as_ref()?))) {
            match single {
                true => {
                    let message = "within one cluster, links are always over TCP";
                    problems.add(&links.position, ValueError::new(message, "remove the key"));
                }
                false => links.check(cluster, problems),
            }
        }
    }
}

impl Cluster {
    /// What carries links where a blueprint does not say it.
    pub(super) const DEFAULT_LINKS: [Carrier; 1] = [Carrier::Tcp];

    /// Whether links come in by this.
    pub(crate) fn takes(&self, carrier: &Carrier) -> bool {
        self.links.contains(carrier)
    }
}
