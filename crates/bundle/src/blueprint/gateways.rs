//! Which gateways there are, and which of two dials the other.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Blueprint, Cluster, Connection, GATEWAY, Label, Pod, Template};

/// How well a cluster can be dialled. Of two clusters the higher one is dialled by the lower one: one that can be
/// dialled before one that cannot, one with an address before one whose address is yet to be found, the first in the list.
pub(super) type Rank = (bool, bool, Reverse<usize>);

/// The [`Rank`] of a cluster at an index of the list.
pub(super) fn rank(dialable: bool, address: bool, index: usize) -> Rank {
    (dialable, address, Reverse(index))
}

impl Blueprint {
    /// Adds the gateways that services need and that are not among the pods, and connects those that share a service.
    /// `None` if something refers to what there is not.
    pub(super) fn with_gateways(mut self) -> Option<Self> {
        let clusters: BTreeSet<&Label> =
            self.services.iter().flat_map(|s| s.reach_from.iter().chain([&s.cluster])).collect();
        let missing = self.clusters.iter().filter(|cluster| clusters.contains(&cluster.id));
        let missing = missing.filter(|cluster| self.gateway_in(&cluster.id).is_none());
        let gateways = missing.map(|cluster| implied_gateway(&cluster.id)).collect::<Option<Vec<_>>>()?;
        self.pods.extend(gateways);
        let mut pairs = BTreeSet::new();
        for service in &self.services {
            for reached_from in &service.reach_from {
                let (here, there) = (self.ranked(&service.cluster)?, self.ranked(reached_from)?);
                let (dialled, dialling) = if here.0 > there.0 { (here, there) } else { (there, here) };
                pairs.insert((dialling.1, dialled.1));
            }
        }
        let ids = |cluster: &Label| self.gateway_in(cluster).map(|pod| pod.id.clone());
        let ways = pairs.into_iter().map(|(from, to)| Some(Connection { from: ids(from)?, to: ids(to)? }));
        let ways = ways.collect::<Option<Vec<_>>>()?;
        self.connections.extend(ways);
        Some(self)
    }

    /// The clusters in the order in which their scripts are best run: those that are dialled come first.
    pub(crate) fn dialled_first(&self) -> Vec<&Cluster> {
        let mut clusters: Vec<_> = self.clusters.iter().enumerate().collect();
        clusters.sort_by_key(|(index, cluster)| Reverse(cluster.rank(*index)));
        clusters.into_iter().map(|(_, cluster)| cluster).collect()
    }

    fn ranked(&self, id: &Label) -> Option<(Rank, &Label)> {
        let (index, cluster) = self.clusters.iter().enumerate().find(|(_, cluster)| cluster.id == *id)?;
        Some((cluster.rank(index), &cluster.id))
    }
}

impl Cluster {
    fn rank(&self, index: usize) -> Rank {
        rank(self.is_dialable(), self.address.is_some(), index)
    }
}

/// The name of a gateway that a blueprint does not list.
pub(super) fn implied_id(cluster: &Label) -> Option<Label> {
    GATEWAY.parse::<Label>().ok()?.joined(cluster)
}

fn implied_gateway(cluster: &Label) -> Option<Pod> {
    Some(Pod {
        id: implied_id(cluster)?,
        template: Template::Gateway,
        cluster: cluster.clone(),
        expose: None,
        auto_trigger: 0,
        namespace: None,
        port: None,
        replicas: 1,
    })
}
