//! The PROXY header that a service gets in front of its bytes.

use std::net::SocketAddr;

use ferry_processes::nobody;
use ferry_relay::{Cut, Relay};
use ferry_session::{Frame, Intent, LinkKind, Origin, RejectCode};
use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::manners::Manners;
use crate::pair::{Site, far_config, near_config, status};
use crate::rogue::Rogue;
use crate::scene::{ID, hello};
use crate::watch::{PATIENCE, reaches};

/// A terminator whose service wants the header, and its application.
async fn far(far_site: &Site, near_site: &Site) -> (ferry_tunnel::Tunnel, TcpListener) {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = far_config(near_site, app.local_addr().unwrap(), "");
    (far_site.start(&text.replace("allow:", "proxy_protocol: v2, allow:")).await, app)
}

/// The header of the next connection: the addresses in it, and its peer, service and session.
async fn served(app: &TcpListener) -> (TcpStream, Option<[SocketAddr; 2]>, [String; 3]) {
    let (mut stream, _) = timeout(PATIENCE, app.accept()).await.expect("it is connected to").unwrap();
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await.unwrap();
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + rest, 0);
    stream.read_exact(&mut header[16..]).await.unwrap();
    let (parsed, length) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    assert_eq!(length, header.len());
    let addresses = parsed.proxied_address().map(|told| [told.source, told.destination]);
    let custom = |kind| {
        let mut values = parsed.tlvs().filter_map(|tlv| match tlv.unwrap() {
            Tlv::Custom(of, value) if of == kind => Some(String::from_utf8(value.into_owned()).unwrap()),
            _ => None,
        });
        values.next().unwrap()
    };
    let told = [0xe0, 0xe1, 0xe2].map(custom);
    (stream, addresses, told)
}

#[tokio::test]
async fn a_service_learns_who_connects_once_before_the_first_byte_and_never_again() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let (far, app) = far(&far_site, &near_site).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far.addresses().listen.unwrap()).unwrap();
    let near = near_site.start(&near_config(&far_site, relay.addr(), "")).await;
    let mut client = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    client.write_all(b"one").await.unwrap();
    let (mut served, addresses, told) = served(&app).await;
    assert_eq!(addresses, Some([client.local_addr().unwrap(), near.addresses().egress[0]]));
    let session = status(near.addresses().admin.unwrap()).await["sessions"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&told[0][..], &told[1][..], &told[2][..8]), ("a/near", "echo", &session[..]));

    let mut bytes = [0; 3];
    served.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"one");
    served.write_all(b"!").await.unwrap();
    client.read_u8().await.unwrap();
    relay.cut(Cut::Rst);
    reaches(far.addresses().admin.unwrap(), "ferry_resumes", 1).await;
    client.write_all(b"two").await.unwrap();
    served.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"two");
}

/// Opens a session as a peer that speaks these protocols.
async fn open(alpn: &[&[u8]], before: &[Frame<'static>]) -> (Rogue, TcpListener, ferry_tunnel::Tunnel) {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let (far, app) = far(&far_site, &near_site).await;
    let mut manners = Manners::honest(&near_site.identity());
    manners.alpn = alpn.iter().map(|name| name.to_vec()).collect();
    let mut link = Rogue::dial(far.addresses().listen.unwrap(), &manners).await.unwrap();
    link.preface(LinkKind::Own).await;
    for frame in before {
        link.say(frame).await;
    }
    link.say(&hello(ID, 1, Intent::Open, "echo")).await;
    (link, app, far)
}

fn origin() -> Frame<'static> {
    let [source, destination] = ["[2001:db8::7]:7", "[::1]:80"].map(|address| address.parse().unwrap());
    Frame::Origin(Origin { source, destination })
}

#[tokio::test]
async fn what_the_opener_tells_is_what_the_service_learns() {
    let (_link, app, _far) = open(&[b"ferry/1.1", b"ferry/1"], &[origin()]).await;
    let (_, addresses, told) = served(&app).await;
    let Frame::Origin(expected) = origin() else { unreachable!() };
    assert_eq!(addresses, Some([expected.source, expected.destination]));
    assert_eq!(told[2], "ab".repeat(16));
}

#[tokio::test]
async fn the_addresses_of_an_older_peer_are_not_known() {
    let (_link, app, _far) = open(&[b"ferry/1"], &[]).await;
    let (_, addresses, told) = served(&app).await;
    assert_eq!((addresses, &told[0][..]), (None, "a/near"));
}

#[tokio::test]
async fn an_origin_where_none_was_agreed_on_or_a_second_one_is_refused() {
    for (alpn, before) in [(&b"ferry/1"[..], &[origin()][..]), (b"ferry/1.1", &[origin(), origin()])] {
        let (mut link, _app, _far) = open(&[alpn], before).await;
        let reason = "protocol violated: Origin frame out of place".to_owned();
        assert_eq!(link.rejected().await, (RejectCode::Protocol, reason));
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_refused_as_without_a_header() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let text = far_config(&near_site, nobody(), "").replace("allow:", "proxy_protocol: v2, allow:");
    let far = far_site.start(&text).await;
    let near = near_site.start(&near_config(&far_site, far.addresses().listen.unwrap(), "")).await;
    let _client = TcpStream::connect(near.addresses().egress[0]).await;
    reaches(far.addresses().admin.unwrap(), "ferry_connections_refused{reason=\"unreachable\"}", 1).await;
}
