//! Heads of HTTP/1.1 messages (RFC 9112), read from a stream that may bring them byte by byte.

use std::io::{self, IoSliceMut};

use thiserror::Error;

use crate::net::Stream;

/// Longest head in bytes: more than any proxy or load balancer sends.
const MAX_HEAD: usize = 16 * 1024;

/// Most header fields of a head.
pub(super) const MAX_FIELDS: usize = 64;

/// Why there is no head.
#[derive(Debug, Error)]
pub(crate) enum HeadError {
    #[error("did not answer: {0}")]
    Io(#[from] io::Error),
    #[error("closed the connection without an answer")]
    Closed,
    #[error("sent an HTTP head of more than {MAX_HEAD} bytes")]
    TooLong,
    #[error("does not speak HTTP/1.1")]
    NotHttp,
}

/// Reads up to the empty line that ends a head. Returns what was read, which may end behind it, and the head's length.
pub(super) async fn read(stream: &mut dyn Stream) -> Result<(Vec<u8>, usize), HeadError> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 2048];
        let count = std::future::poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut chunk)])).await?;
        if count == 0 {
            return Err(if bytes.is_empty() { HeadError::Closed } else { HeadError::NotHttp });
        }
        let searched = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&chunk[..count]);
        // Whatever speaks another protocol is not waited for until it has sent a whole head of it.
        if bytes.first().is_some_and(|first| !first.is_ascii_uppercase()) {
            return Err(HeadError::NotHttp);
        }
        if let Some(end) = bytes[searched..].windows(4).position(|window| window == b"\r\n\r\n") {
            let length = searched + end + 4;
            return if length <= MAX_HEAD { Ok((bytes, length)) } else { Err(HeadError::TooLong) };
        }
        if bytes.len() > MAX_HEAD {
            return Err(HeadError::TooLong);
        }
    }
}

/// The status of a response's head.
pub(super) fn status(head: &[u8]) -> Result<u16, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => response.code.ok_or(HeadError::NotHttp),
        Ok(httparse::Status::Partial) | Err(_) => Err(HeadError::NotHttp),
    }
}

/// The value of the field `name` in a parsed head.
pub(super) fn field<'a>(fields: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok().map(str::trim)
}

/// Whether a field is a list that has `word` in it.
pub(super) fn lists(value: Option<&str>, word: &str) -> bool {
    value.is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
}
