//! How a peer behaves in the handshake, honest or not.

use std::sync::Arc;

use ferry_config::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};

/// What a peer offers in the handshake: that of an honest one, until a test changes it.
pub struct Manners {
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    pub alpn: Vec<Vec<u8>>,
    pub credential: Credential,
    /// It takes no other's raw public key.
    pub wants_x509: bool,
    /// Session tickets that it sends behind the handshake.
    pub tickets: usize,
}

/// What a peer proves itself with.
pub enum Credential {
    RawKey(Identity),
    /// These bytes instead of the raw public key that they are announced as.
    NotAKey(Identity, Vec<u8>),
    X509(Identity),
    /// It announces a raw public key, and then presents none.
    NoKey,
    Nothing,
}

impl Manners {
    pub fn honest(identity: &Identity) -> Self {
        Self {
            versions: vec![&TLS13],
            groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            alpn: vec![b"ferry/1".to_vec()],
            credential: Credential::RawKey(identity.clone()),
            wants_x509: false,
            tickets: 0,
        }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider { kx_groups: self.groups.clone(), ..aws_lc_rs::default_provider() })
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let (identity, bytes) = match &self.credential {
            Credential::RawKey(identity) => (identity, identity.public_key().spki_der().to_vec()),
            Credential::NotAKey(identity, bytes) => (identity, bytes.clone()),
            // No end of ours gets as far as to read it.
            Credential::X509(identity) => (identity, b"a certificate".to_vec()),
            Credential::NoKey | Credential::Nothing => return None,
        };
        let pkcs8 = PrivatePkcs8KeyDer::from(identity.pkcs8_der().expose().clone());
        let key = self.provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(pkcs8)).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![bytes.into()], key)))
    }

    pub fn client(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { raw: !self.wants_x509 }));
        let mut config = match (self.certified(), &self.credential) {
            (None, Credential::NoKey) => builder.with_client_cert_resolver(Arc::new(NoKey)),
            (None, _) => builder.with_no_client_auth(),
            (Some(key), Credential::X509(_)) => {
                let key: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(key)));
                builder.with_client_cert_resolver(key)
            }
            (Some(key), _) => builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key))),
        };
        config.alpn_protocols = self.alpn.clone();
        config
    }

    pub fn server(&self) -> ServerConfig {
        let key = self.certified().unwrap();
        let resolver: Arc<dyn ResolvesServerCert> = match &self.credential {
            Credential::X509(_) => Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(key))),
            _ => Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)),
        };
        let mut config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody { raw: !self.wants_x509 }))
            .with_cert_resolver(resolver);
        config.alpn_protocols = self.alpn.clone();
        config.send_tls13_tickets = self.tickets;
        config
    }
}

/// A raw public key was promised, and there is none.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes everybody.
#[derive(Debug)]
pub struct Anybody {
    /// Keys come without certificates (RFC 7250).
    pub raw: bool,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}
