//! Ciphers for TLS to endpoints.

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;

/// The cheapest of those that every endpoint has. Nothing depends on their strength: what they protect is sealed already.
const CHEAP: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// All of the library's, the cheap ones first.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(|cipher| !CHEAP.contains(&cipher.suite()));
    provider
}
