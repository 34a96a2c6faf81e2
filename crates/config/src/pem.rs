//! Just as much of PEM (RFC 7468) as an identity file needs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const LABEL: &str = "PRIVATE KEY";

/// Why a text has no PKCS#8 private key in it.
pub(crate) enum PemError {
    /// It has a private key in a form that only other algorithms have.
    OtherAlgorithm,
    /// It has none, and why that is.
    NotAKey(&'static str),
}

/// The DER of the one block in `bytes`, if that is a PKCS#8 private key. Text around the block is skipped, as RFC 7468
/// (section 2) allows.
pub(crate) fn private_key(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PemError::NotAKey("it is not text"))?;
    let mut lines = text.lines().map(str::trim);
    let label =
        lines.find_map(|line| boundary(line, "-----BEGIN ")).ok_or(PemError::NotAKey("there is no PEM block in it"))?;
    match label {
        LABEL => {}
        "EC PRIVATE KEY" | "EC PARAMETERS" | "RSA PRIVATE KEY" | "DSA PRIVATE KEY" => {
            return Err(PemError::OtherAlgorithm);
        }
        "ENCRYPTED PRIVATE KEY" => return Err(PemError::NotAKey("the key is encrypted")),
        "OPENSSH PRIVATE KEY" => return Err(PemError::NotAKey("it is a key for OpenSSH")),
        "PUBLIC KEY" => return Err(PemError::NotAKey("it is a public key")),
        "CERTIFICATE" => return Err(PemError::NotAKey("it is a certificate")),
        _ => return Err(PemError::NotAKey("it is something else in PEM")),
    }
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    loop {
        let line = lines.next().ok_or(PemError::NotAKey("the PEM block has no end"))?;
        if boundary(line, "-----END ") == Some(LABEL) {
            break;
        }
        encoded.push_str(line);
    }
    if lines.any(|line| boundary(line, "-----BEGIN ").is_some()) {
        return Err(PemError::NotAKey("there is more than one PEM block in it"));
    }
    let mut der = Zeroizing::new(Vec::with_capacity(encoded.len()));
    STANDARD.decode_vec(encoded.as_bytes(), &mut der).map_err(|_| PemError::NotAKey("the PEM block is not base64"))?;
    Ok(der)
}

/// `der` as one PEM block.
pub(crate) fn render_private_key(der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() * 2 + 80));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // base64 is ASCII, and 64 characters are a line.
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

fn boundary<'t>(line: &'t str, start: &str) -> Option<&'t str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}
