//! Where links come in: a port of the tunnel's container, and what leads to it.

use k8s_openapi::api::core::v1::{ContainerPort, ServicePort};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;

use super::network::{service_port, transport};
use super::sidecar;
use super::site::{TUNNEL_PORT, WEBSOCKET_PORT};
use crate::{Carrier, Cluster};

/// What the port for WebSockets is called, in the container and in the Service.
pub(super) const WEBSOCKET: &str = "tunnel-ws";

/// A port for one kind of link.
pub(super) struct LinkPort {
    /// What it is called in the container and in the Service.
    name: &'static str,
    protocol: &'static str,
    /// In the pod.
    number: u16,
}

/// The ports of a tunnel in a cluster. Their order is not the blueprint's: a change of that would be another pod.
pub(super) fn ports(cluster: &Cluster) -> Vec<LinkPort> {
    let websocket = cluster.websocket();
    let websocket = websocket.map(|_| LinkPort { name: WEBSOCKET, protocol: "TCP", number: WEBSOCKET_PORT });
    balanced_ports(cluster).into_iter().chain(websocket).collect()
}

/// Those that the load balancer leads to.
pub(super) fn balanced_ports(cluster: &Cluster) -> Vec<LinkPort> {
    let ports = [
        (Carrier::Tcp, LinkPort { name: "tunnel", protocol: "TCP", number: TUNNEL_PORT }),
        (Carrier::Quic, LinkPort { name: "tunnel-quic", protocol: "UDP", number: TUNNEL_PORT }),
    ];
    ports.into_iter().filter(|(carrier, _)| cluster.takes(carrier)).map(|(_, port)| port).collect()
}

/// What a network policy has to let out for links to a cluster, whose load balancer is dialled at `number`.
pub(super) fn dialled_ports(cluster: &Cluster, number: Option<u16>) -> Vec<NetworkPolicyPort> {
    let balanced = number
        .into_iter()
        .flat_map(|number| balanced_ports(cluster).into_iter().map(move |port| transport(port.protocol, number)));
    let mut ports: Vec<_> = balanced.collect();
    let websocket = cluster.websocket().map(|websocket| transport("TCP", websocket.url.endpoint.port));
    ports.extend(websocket.filter(|port| !ports.contains(port)));
    ports
}

impl LinkPort {
    pub(super) fn in_container(&self) -> ContainerPort {
        // What is not said is TCP.
        let protocol = (self.protocol != "TCP").then(|| self.protocol.to_owned());
        ContainerPort { protocol, ..sidecar::port(self.name, self.number) }
    }

    /// In a Service, where it has the number `number`.
    pub(super) fn in_service(&self, number: u16) -> ServicePort {
        ServicePort { protocol: Some(self.protocol.into()), ..service_port(self.name, number, self.name) }
    }

    /// In a network policy that lets in.
    pub(super) fn at_pod(&self) -> NetworkPolicyPort {
        transport(self.protocol, self.number)
    }
}
