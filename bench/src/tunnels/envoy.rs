//! Envoy's TCP proxy: TLS 1.3 with a certificate at both ends, each trusted by the other alone.

use super::certificates::generate;
use super::{Site, Started, Tunnel, need, version};
use anyhow::Result;
use std::net::SocketAddr;
use std::path::Path;

/// A pair of Envoy processes.
pub(super) struct Envoy;

impl Tunnel for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn settings(&self) -> &'static str {
        "`tcp_proxy`, mutual TLS 1.3; a worker per core, idle time-out off; resumes TLS sessions (default), so that not every \
         session costs it a full handshake"
    }

    fn version(&self) -> Result<String> {
        // Its own path, "version:", and commit/number/state of the tree/kind of build/TLS library.
        let text = version("envoy", "--version")?;
        Ok(format!("envoy {}", text.split('/').rev().nth(3).unwrap_or(&text)))
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let (near, far) = (generate(site, "near")?, generate(site, "far")?);
        let trust = |own: &super::certificates::Identity, other: &Path| {
            format!(
                "common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: \
                 TLSv1_3}}, tls_certificates: [{{certificate_chain: {{filename: {pem:?}}}, private_key: {{filename: \
                 {pem:?}}}}}], validation_context: {{trusted_ca: {{filename: {other:?}}}}}}}",
                pem = own.pem,
            )
        };
        let dial = socket("UpstreamTlsContext", &trust(&near, &far.certificate));
        let accept = socket(
            "DownstreamTlsContext",
            &format!("require_client_certificate: true, {}", trust(&far, &near.certificate)),
        );
        let near_conf = config(site.near.addr(), "", site.relay, &dial);
        let far_conf = config(site.link.addr(), &accept, site.app, "");
        let envoy = need("envoy")?;
        let end = |name: &str, text: &str| -> Result<_> {
            let program = site.program(&envoy, name).args(["--disable-hot-restart", "--log-level", "warn", "-c"]);
            Ok(program.arg(site.write(&format!("{name}.yaml"), text)?))
        };
        site.start(end("near", &near_conf)?, end("far", &far_conf)?)
    }
}

fn socket(context: &str, fields: &str) -> String {
    let kind = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}");
    format!(", transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": {kind}, {fields}}}}}")
}

fn config(listen: SocketAddr, accept: &str, to: SocketAddr, dial: &str) -> String {
    let address =
        |addr: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", addr.ip(), addr.port());
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let (listen, to) = (address(listen), address(to));
    format!(
        "static_resources:\n  listeners:\n  - {{name: app, address: {listen}, filter_chains: [{{filters: [{{name: \
         envoy.filters.network.tcp_proxy, typed_config: {{\"@type\": {proxy}, stat_prefix: app, cluster: app, \
         idle_timeout: 0s}}}}]{accept}}}]}}\n  clusters:\n  - {{name: app, type: STATIC, connect_timeout: 5s, \
         circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000}}]}}, load_assignment: \
         {{cluster_name: app, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {to}}}}}]}}]}}{dial}}}\n"
    )
}
