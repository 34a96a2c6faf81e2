//! What the tunnel says of a connection before its first byte: a header of the PROXY protocol, version 2, as
//! `docs/proxy-protocol.md` has it. Connections without one are as good; no request begins like a header.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use proxy_header::{Error, ParseConfig, ProxyHeader, Tlv};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::peer::{PeerName, SessionId};

/// How every header begins (section 2.2 of the specification).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The header of a tunnel has some 400 bytes.
const MAX_HEADER_BYTES: usize = 4096;
/// The type of the field with the peer's name.
const PEER: u8 = 0xe0;
/// That of the field with the session's id.
const SESSION: u8 = 0xe2;

/// What a header says.
#[derive(Debug, Default)]
pub(super) struct Announced {
    pub(super) peer: Option<PeerName>,
    pub(super) session: Option<SessionId>,
}

/// Reads the header, if there is one. Returns what it says, and the stream with what follows it.
pub(super) async fn read_announced<S>(mut stream: S) -> io::Result<(Announced, Unread<S>)>
where
    S: AsyncRead + Unpin,
{
    let mut read = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut read).await? == 0 || !may_be_header(&read) {
            return Ok((Announced::default(), Unread { bytes: read.into(), stream }));
        }
        match ProxyHeader::parse(&read, ParseConfig { allow_v1: false, ..ParseConfig::default() }) {
            Ok((header, length)) => {
                let announced = announced(&header)?;
                return Ok((announced, Unread { bytes: Bytes::from(read).slice(length..), stream }));
            }
            Err(Error::BufferTooShort) if read.len() < MAX_HEADER_BYTES => {}
            Err(Error::BufferTooShort) => return Err(invalid(format!("it is longer than {MAX_HEADER_BYTES} bytes"))),
            Err(error) => return Err(invalid(error)),
        }
    }
}

fn may_be_header(read: &[u8]) -> bool {
    read.iter().zip(SIGNATURE).all(|(read, expected)| read == expected)
}

fn announced(header: &ProxyHeader<'_>) -> io::Result<Announced> {
    let mut announced = Announced::default();
    for tlv in header.tlvs() {
        match tlv.map_err(invalid)? {
            Tlv::Custom(PEER, name) => {
                let name = String::from_utf8(name.into_owned()).map_err(invalid)?;
                announced.peer = Some(PeerName::try_from(name).map_err(invalid)?);
            }
            // For spans alone: nothing depends on it.
            Tlv::Custom(SESSION, id) => announced.session = SessionId::parse(&id),
            _ => {}
        }
    }
    Ok(announced)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A stream of which some bytes have been read already: they are read first.
#[derive(Debug)]
pub(super) struct Unread<S> {
    bytes: Bytes,
    stream: S,
}

impl<S> From<S> for Unread<S> {
    fn from(stream: S) -> Self {
        Self { bytes: Bytes::new(), stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.bytes.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let length = this.bytes.len().min(buf.remaining());
        buf.put_slice(&this.bytes.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::ProxiedAddress;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn header(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let addresses = ProxiedAddress::stream("192.0.2.1:5".parse().unwrap(), "192.0.2.2:6".parse().unwrap());
        let tlvs = tlvs.iter().map(|(kind, value)| Tlv::Custom(*kind, (*value).into()));
        let mut bytes = Vec::new();
        ProxyHeader::with_tlvs(Some(addresses), tlvs).encode_v2(&mut bytes).unwrap();
        bytes
    }

    /// What a connection that sends these pieces, one after the other, and ends is taken for: its peer, and what is left.
    async fn read(pieces: &[&[u8]]) -> io::Result<(Option<String>, Vec<u8>)> {
        let (mut near, far) = tokio::io::duplex(1);
        let pieces = pieces.concat();
        let writing = async move { near.write_all(&pieces).await };
        let reading = async {
            let (announced, mut stream) = read_announced(far).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            Ok((announced.peer.map(|peer| peer.as_str().to_owned()), rest))
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn a_tunnels_header_names_the_peer_and_is_not_part_of_what_follows() {
        let named = header(&[(0xe1, b"web"), (0xe0, b"cluster-a/initiator"), (0xe2, b"00")]);
        let (peer, rest) = read(&[&named, b"GET / HTTP/1.1\r\n"]).await.unwrap();
        assert_eq!((peer.as_deref(), &*rest), (Some("cluster-a/initiator"), &b"GET / HTTP/1.1\r\n"[..]));
        let (peer, rest) = read(&[&header(&[(0xe1, b"web")])]).await.unwrap();
        assert_eq!((peer, rest), (None, Vec::new()));
    }

    #[tokio::test]
    async fn what_is_not_a_header_is_left_as_it_came() {
        for text in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\r\nGET / HTTP/1.1\r\n",
            b"\r\n\r\n",
            b"",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\r\n",
        ] {
            let (peer, rest) = read(&[text]).await.unwrap();
            assert_eq!((peer, &*rest), (None, text));
        }
    }

    #[tokio::test]
    async fn a_header_that_is_damaged_too_long_or_names_no_name_is_refused() {
        let long = vec![b'x'; MAX_HEADER_BYTES];
        for (tlvs, says) in [
            (&[(0xe0, &b"a b"[..])][..], "not the name of a peer"),
            (&[(0xe0, b"")], "not the name of a peer"),
            (&[(0xe0, b"\xff")], "utf-8"),
            (&[(0xe1, &long)], "longer than 4096 bytes"),
        ] {
            let error = read(&[&header(tlvs)]).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut damaged = header(&[]);
        damaged[12] = 0x51;
        assert!(read(&[&damaged]).await.is_err());
    }
}
