//! The line that one administrator gives to the other.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::address::Address;
use crate::key::PublicKey;
use crate::name::{Name, ServiceName};
use crate::report::{ValueError, quoted};
use crate::secret::Secret;

/// What every token begins with; the version follows.
const PREFIX: &str = "ferry:join:";
const VERSION: &str = "1";

/// The longest token, in bytes: it comes from a terminal or a mail.
const MAX_LEN: usize = 16 * 1024;

/// Bytes of SHA-256 at the end, which tell a token that is cut off or retyped from a whole one.
const CHECKSUM: usize = 4;

const HINT: &str = "copy the whole line that `ferry invite` printed, or ask for another one";

/// Which invitation it is: 64 random bits, 16 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvitationId([u8; 8]);

impl InvitationId {
    /// The id with these bytes.
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for InvitationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for InvitationId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits && text.len() == 16);
        let number = number.ok_or_else(|| ValueError::new(format!("{} is no invitation's id", quoted(text)), ""))?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A service that a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedService {
    /// Its name.
    pub service: ServiceName,
    /// The port of the application behind it, which is a good one for the way to it, too.
    pub port: u16,
}

/// What `ferry join` needs to know: where the inviting tunnel is, how it proves itself, and a secret that works once.
#[derive(Debug)]
pub struct Token {
    /// The inviting tunnel's name.
    pub peer: Name,
    /// Its key.
    pub key: PublicKey,
    /// Where it is dialled; never empty.
    pub addresses: Vec<Address>,
    /// What the other end will reach there.
    pub services: Vec<OfferedService>,
    /// Which invitation it is.
    pub id: InvitationId,
    /// What proves that the bearer was invited.
    pub secret: Secret<[u8; 32]>,
    /// When it stops to work, by the inviting host's clock: seconds since 1970.
    pub expires: u64,
}

#[derive(Serialize, Deserialize)]
struct Body {
    peer: String,
    key: String,
    addresses: Vec<String>,
    services: Vec<(String, u16)>,
    id: String,
    secret: String,
    expires: u64,
}

impl Token {
    /// The token as one line of visible ASCII. Whoever reads it can use it.
    ///
    /// # Errors
    ///
    /// If it would be longer than a token may be.
    pub fn render(&self) -> Result<Secret<String>, ValueError> {
        let body = Body {
            peer: self.peer.to_string(),
            key: self.key.to_string(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            services: self.services.iter().map(|offered| (offered.service.to_string(), offered.port)).collect(),
            id: self.id.to_string(),
            secret: URL_SAFE_NO_PAD.encode(self.secret.expose()),
            expires: self.expires,
        };
        let failed = |message: String| ValueError::new(message, "");
        let mut bytes = Zeroizing::new(serde_json::to_vec(&body).map_err(|error| failed(error.to_string()))?);
        let checksum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(&checksum.as_ref()[..CHECKSUM]);
        let text = format!("{PREFIX}{VERSION}:{}", URL_SAFE_NO_PAD.encode(&*bytes));
        if text.len() > MAX_LEN {
            return Err(ValueError::new("the token would be too long", "give it fewer addresses or services"));
        }
        Ok(Secret::new(text))
    }
}

impl FromStr for Token {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // Mail and terminals break long lines.
        let text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
        let damaged = || ValueError::new("the token is cut off, or has changed on its way", HINT);
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| {
            // What it is is not shown: it may be some other secret.
            ValueError::new("that is no token, which begins with `ferry:join:`", HINT)
        })?;
        let (version, encoded) = rest.split_once(':').ok_or_else(damaged)?;
        if version != VERSION {
            let message =
                format!("the token is of version {}, and this ferry knows version {VERSION}", quoted(version));
            return Err(ValueError::new(message, "use the same version of ferry at both ends"));
        }
        if text.len() > MAX_LEN {
            return Err(ValueError::new("the token is longer than any", HINT));
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| damaged())?);
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(damaged)?;
        if digest(&SHA256, body).as_ref()[..CHECKSUM] != checksum[..] {
            return Err(damaged());
        }
        let body: Body = serde_json::from_slice(body).map_err(|_| damaged())?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&*Zeroizing::new(body.secret)).map_err(|_| damaged())?);
        let services = body.services.into_iter().map(|(service, port)| {
            let service = service.parse::<ServiceName>()?;
            Ok(OfferedService { service, port })
        });
        let token = Self {
            peer: body.peer.parse()?,
            key: body.key.parse()?,
            addresses: body.addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?,
            services: services.collect::<Result<_, ValueError>>()?,
            id: body.id.parse()?,
            secret: Secret::new(secret.as_slice().try_into().map_err(|_| damaged())?),
            expires: body.expires,
        };
        if token.addresses.is_empty() { Err(damaged()) } else { Ok(token) }
    }
}
