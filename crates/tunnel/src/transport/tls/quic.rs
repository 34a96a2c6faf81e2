//! TLS of the QUIC connections around links (RFC 9001). It keeps a link from nobody: Ferry's own TLS inside does that, and
//! so the key of a listener lives as long as its process, is listed nowhere, and is believed by every dialler.

use std::sync::Arc;

use ferry_config::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};

use super::TlsError;
use super::policy::certified;
use super::verify::Pinned;

/// The protocol's name in the handshake of the connection: whoever speaks HTTP/3 is turned away by it.
const QUIC_ALPN: &[u8] = b"ferry-quic/1";

/// Small messages and fast ciphers: no secret depends on them.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// For dialling whoever answers.
pub(crate) fn quic_dialling() -> Result<quinn::ClientConfig, TlsError> {
    let provider = Arc::new(provider());
    let verifier = Pinned::to_nobody(&provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![QUIC_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let crypto = QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

/// For accepting whoever comes, by a key that is made here.
pub(crate) fn quic_accepting() -> Result<quinn::ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let identity = Identity::generate().map_err(|error| Error::General(error.to_string()))?;
    let certified = certified(&provider, &identity)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![QUIC_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(crypto)))
}
