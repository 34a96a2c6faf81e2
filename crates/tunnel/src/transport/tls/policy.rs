//! The whole cryptographic policy: TLS 1.3, X25519MLKEM768, raw Ed25519 keys, no tickets, no early data, no fallback.

use std::sync::Arc;

use ferry_config::{Identity, PublicKey};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, NamedGroup, ServerConfig};

use super::TlsError;
use super::verify::{Pinned, Trusted};

/// The protocol's name in the handshake (RFC 7301), and that of the same with the frame Origin. Both ends offer and take
/// both; the latter is preferred.
pub(super) const ALPN: &[u8] = b"ferry/1";
pub(super) const ALPN_WITH_ORIGIN: &[u8] = b"ferry/1.1";

/// The name of what an invitation is redeemed by: a connection that becomes no link.
pub(super) const JOIN_ALPN: &[u8] = b"ferry-join/1";

/// The name of what a peer's key is replaced by: the same.
pub(super) const ROLL_ALPN: &[u8] = b"ferry-roll/1";

/// What the two ends of a link may agree on, those of what redeems an invitation, and those of what replaces a key.
pub(super) const LINK_PROTOCOLS: &[&[u8]] = &[ALPN_WITH_ORIGIN, ALPN];
pub(super) const JOIN_PROTOCOLS: &[&[u8]] = &[JOIN_ALPN];
pub(super) const ROLL_PROTOCOLS: &[&[u8]] = &[ROLL_ALPN];

/// The names as rustls takes them.
pub(super) fn alpn(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

/// The only key exchange: hybrid post-quantum (draft-ietf-tls-ecdhe-mlkem).
pub(super) const KEY_EXCHANGE: NamedGroup = NamedGroup::X25519MLKEM768;

/// What every link has agreed on: a handshake with another fails.
pub(crate) fn key_exchange() -> &'static str {
    KEY_EXCHANGE.as_str().unwrap_or_default()
}

pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

pub(super) fn certified(provider: &CryptoProvider, identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let pkcs8 = PrivatePkcs8KeyDer::from(identity.pkcs8_der().expose().clone());
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(pkcs8))?;
    let spki = CertificateDer::from(identity.public_key().spki_der().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![spki], key)))
}

/// For dialling one peer: only a holder of one of `keys` is spoken to.
pub(super) fn dialling(identity: &Identity, keys: impl Into<Arc<[PublicKey]>>) -> Result<ClientConfig, TlsError> {
    dialling_by(provider(), identity, keys)
}

/// The same, with the suites of `provider`.
pub(super) fn dialling_by(
    provider: CryptoProvider,
    identity: &Identity,
    keys: impl Into<Arc<[PublicKey]>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider);
    let certified = certified(&provider, identity)?;
    let verifier = Pinned::new(&provider, keys.into());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    config.alpn_protocols = vec![ALPN_WITH_ORIGIN.to_vec(), ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// For accepting: only a holder of one of `keys` gets in.
pub(super) fn accepting(identity: &Identity, keys: impl Into<Arc<[PublicKey]>>) -> Result<ServerConfig, TlsError> {
    accepting_any_of(identity, Trusted::new(&provider(), Some(keys.into())), LINK_PROTOCOLS)
}

/// For accepting a holder of one of `keys` that asks for no link: one of the keys is to be replaced.
pub(super) fn accepting_rolls(
    identity: &Identity,
    keys: impl Into<Arc<[PublicKey]>>,
) -> Result<ServerConfig, TlsError> {
    accepting_any_of(identity, Trusted::new(&provider(), Some(keys.into())), ROLL_PROTOCOLS)
}

/// For accepting whoever proves a key, whichever it is: to be asked for an invitation, and for nothing else.
pub(super) fn accepting_joiners(identity: &Identity) -> Result<ServerConfig, TlsError> {
    accepting_any_of(identity, Trusted::new(&provider(), None), JOIN_PROTOCOLS)
}

fn accepting_any_of(identity: &Identity, verifier: Trusted, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let certified = certified(&provider, identity)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.alpn_protocols = alpn(protocols);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    fn configs() -> (ClientConfig, ServerConfig) {
        let (near, far) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        (dialling(&near, [far.public_key()]).unwrap(), accepting(&far, [near.public_key()]).unwrap())
    }

    /// What is offered, to the letter: a change here is a change of the policy.
    #[test]
    fn only_the_hybrid_group_and_two_suites_are_offered() {
        let (client, server) = configs();
        for provider in [client.crypto_provider(), server.crypto_provider()] {
            let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
            assert_eq!(groups, [NamedGroup::X25519MLKEM768]);
            let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
            let expected = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];
            assert_eq!(suites, expected);
        }
        let names = vec![b"ferry/1.1".to_vec(), b"ferry/1".to_vec()];
        assert_eq!((&client.alpn_protocols, &server.alpn_protocols), (&names, &names));
    }

    /// TLS 1.2 is compiled in, for endpoints around a link: that a link does not offer it is our doing.
    #[test]
    fn the_client_hello_offers_tls_1_3_and_one_group() {
        let name = rustls::pki_types::ServerName::try_from("ferry").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(configs().0), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let has = |extension: &[u8]| hello.windows(extension.len()).any(|bytes| bytes == extension);
        assert!(has(&[0, 43, 0, 3, 2, 3, 4]), "supported_versions: 0x0304");
        assert!(has(&[0, 10, 0, 4, 0, 2, 0x11, 0xec]), "supported_groups: 0x11ec, X25519MLKEM768");
        assert!(has(b"\x00\x10\x00\x14\x00\x12\x09ferry/1.1\x07ferry/1"), "ALPN");
        assert!(!has(b"\x05ferry"), "no server name");
    }

    #[test]
    fn what_invitations_are_redeemed_by_is_another_protocol_under_the_same_policy() {
        let identity = Identity::generate().unwrap();
        let (links, joiners) = (configs().1, accepting_joiners(&identity).unwrap());
        assert_eq!(joiners.alpn_protocols, [b"ferry-join/1".to_vec()]);
        let rolls = accepting_rolls(&identity, [Identity::generate().unwrap().public_key()]).unwrap();
        assert_eq!(rolls.alpn_protocols, [b"ferry-roll/1".to_vec()]);
        assert_eq!((joiners.send_tls13_tickets, joiners.max_early_data_size), (0, 0));
        let groups =
            |config: &ServerConfig| config.crypto_provider().kx_groups.iter().map(|group| group.name()).collect();
        let [links, joiners]: [Vec<NamedGroup>; 2] = [groups(&links), groups(&joiners)];
        assert_eq!(links, joiners);
    }

    #[test]
    fn nothing_is_resumed_and_no_name_is_sent() {
        let (client, server) = configs();
        assert!(!client.enable_sni && !client.enable_early_data);
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    }
}
