//! Where links come in: a port of the tunnel's container, and what leads to it.

use k8s_openapi::api::core::v1::{ContainerPort, ServicePort};
use k8s_openapi::api::networking::v1::NetworkPolicyPort;

use super::network::{service_port, transport};
use super::sidecar;
use super::site::TUNNEL_PORT;
use crate::{Carrier, Cluster};

/// A port for one kind of link.
pub(super) struct LinkPort {
    /// What it is called in the container and in the Service.
    name: &'static str,
    protocol: &'static str,
}

/// The ports of a tunnel in a cluster. Their order is not the blueprint's: a change of that would be another pod.
pub(super) fn ports(cluster: &Cluster) -> Vec<LinkPort> {
    let ports = [
        (Carrier::Tcp, LinkPort { name: "tunnel", protocol: "TCP" }),
        (Carrier::Quic, LinkPort { name: "tunnel-quic", protocol: "UDP" }),
    ];
    ports.into_iter().filter(|(carrier, _)| cluster.takes(carrier)).map(|(_, port)| port).collect()
}

impl LinkPort {
    pub(super) fn in_container(&self) -> ContainerPort {
        // What is not said is TCP.
        let protocol = (self.protocol != "TCP").then(|| self.protocol.to_owned());
        ContainerPort { protocol, ..sidecar::port(self.name, TUNNEL_PORT) }
    }

    /// In a Service, where it has the number `number`.
    pub(super) fn in_service(&self, number: u16) -> ServicePort {
        ServicePort { protocol: Some(self.protocol.into()), ..service_port(self.name, number, self.name) }
    }

    /// In a network policy that lets in.
    pub(super) fn at_pod(&self) -> NetworkPolicyPort {
        transport(self.protocol, TUNNEL_PORT)
    }

    /// In a network policy that lets out, to where it has the number `number`.
    pub(super) fn dialled(&self, number: u16) -> NetworkPolicyPort {
        transport(self.protocol, number)
    }
}
