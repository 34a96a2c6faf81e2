//! Who is let in: holders of pinned raw public keys (RFC 7250), and nobody else.

use std::sync::Arc;

use ferry_config::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
};

use super::error::Refusal;

/// A set of keys, any of which is accepted; without one, every key that is proved.
#[derive(Debug)]
struct Keys {
    keys: Option<Arc<[PublicKey]>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Keys {
    fn new(provider: &CryptoProvider, keys: Option<Arc<[PublicKey]>>) -> Self {
        Self { keys, algorithms: provider.signature_verification_algorithms }
    }

    /// Whether it is a key at all. Whether it is listed is said only once it is proved.
    fn check_form(presented: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        PublicKey::from_spki_der(presented).map(drop).map_err(refused)
    }

    /// Whether the key is proved, and listed. To a stranger both failures are one: the same alert, after the same work.
    fn check_proof(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = PublicKey::from_spki_der(presented).map_err(refused)?;
        let spki = SubjectPublicKeyInfoDer::from(presented.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms);
        match (valid, self.keys.as_ref().is_none_or(|keys| keys.contains(&key))) {
            (Ok(valid), true) => Ok(valid),
            (Ok(_), false) => Err(refused(Refusal::Unlisted(key))),
            (Err(_), _) => Err(refused(Refusal::Unproved(key))),
        }
    }
}

/// Becomes the alert `certificate_unknown`, whatever the error.
fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// Accepts one peer's keys: what a dialler trusts. Around a link it trusts nobody more than to hold the key that it proves.
#[derive(Debug)]
pub(super) struct Pinned(Keys);

impl Pinned {
    pub(super) fn new(provider: &CryptoProvider, keys: Arc<[PublicKey]>) -> Self {
        Self(Keys::new(provider, Some(keys)))
    }

    pub(super) fn to_nobody(provider: &CryptoProvider) -> Self {
        Self(Keys::new(provider, None))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Keys::check_form(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.check_proof(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts every peer's keys: what an accepting end trusts. Which peer it is, the key tells. Without keys it trusts nobody more
/// than to hold the key that it proves.
#[derive(Debug)]
pub(super) struct Trusted(Keys);

impl Trusted {
    pub(super) fn new(provider: &CryptoProvider, keys: Option<Arc<[PublicKey]>>) -> Self {
        Self(Keys::new(provider, keys))
    }
}

impl ClientCertVerifier for Trusted {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Keys::check_form(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.check_proof(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
