//! The faults: what they are called, what has to be said of each, and how they are made.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Fault, Made, Site};
use crate::support::{Port, command, keygen, nobody, role};

/// Accepts connections, and answers each with `answer` once it has said something.
fn server(answer: &'static [u8]) -> SocketAddr {
    served(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer);
    })
}

fn served(with: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(with));
    at
}

fn proxy(site: &Site, proxy: SocketAddr, more: &str) -> Made {
    site.peer("b.example.com:30200", &format!(", proxy: \"http://{proxy}\"{more}")).into()
}

fn limited(site: &Site, files: u32) -> Made {
    let file = site.write("listen: 127.0.0.1:0\nlimits: {sessions: 5000}\n");
    let script = format!("ulimit -n {files}; exec {} doctor --json --config \"$0\"", env!("CARGO_BIN_EXE_ferry"));
    let mut doctor = Command::new("sh");
    doctor.args(["-c", &script]).arg(&file);
    Made { doctor: Some(doctor), ..file.into() }
}

macro_rules! faults {
    ($($what:literal: $state:ident $check:literal $exit:literal $words:expr, $make:expr;)+) => {
        &[$(Fault {
            what: $what,
            check: $check,
            state: stringify!($state),
            exit: $exit,
            words: &$words,
            make: $make,
        }),+]
    };
}

pub(super) const FAULTS: &[Fault] = faults! {
    // The configuration.
    "no such file": failed "configuration" 78 ["cannot read the file", "name a tunnel.yaml that exists"],
        |site| site.path("tunnel.yaml").into();
    "half-written YAML": failed "configuration" 78 ["line"],
        |site| site.write("peers: [").into();
    "a key that is none": failed "configuration" 78 ["unknown key", "listen"],
        |site| site.write("lisen: 127.0.0.1:0\n").into();
    "a duration without a unit that exists": failed "configuration" 78 ["not a duration", "30s"],
        |site| site.write("drain: soon\n").into();
    "a peer with our own name": failed "configuration" 78 ["is our own name"],
        |site| site.write(&format!("peers: [{{name: near, keys: [\"{}\"]}}]\n", site.other)).into();
    "two peers with one name": failed "configuration" 78 ["is already the name"],
        |site| {
            let third = keygen(&site.path("third.key"));
            let peers = format!("{{name: far, keys: [\"{}\"]}}, {{name: far, keys: [\"{third}\"]}}", site.other);
            site.write(&format!("peers: [{peers}]\n")).into()
        };
    "one key of two peers": failed "configuration" 78 ["the key of both"],
        |site| {
            let entry = |name: &str| format!("{{name: {name}, keys: [\"{}\"]}}", site.other);
            site.write(&format!("peers: [{}, {}]\n", entry("far"), entry("further"))).into()
        };
    "our own key as a peer's": failed "configuration" 78 ["this is our own key", "over there"],
        |site| site.write(&format!("peers: [{{name: far, keys: [\"{}\"]}}]\n", site.key)).into();
    "a public key with a slip in it": failed "configuration" 78 ["key"],
        |site| site.write(&format!("peers: [{{name: far, keys: [\"{}\"]}}]\n", &site.other[..site.other.len() - 2])).into();
    "an egress to a peer that is not listed": failed "configuration" 78 ["is not a listed peer"],
        |site| site.write("egress: [{listen: \"127.0.0.1:0\", peer: far, service: app}]\n").into();
    "two sockets at one port": failed "configuration" 78 ["is in use by", "choose another port"],
        |site| site.write("listen: 127.0.0.1:18000\nadmin: 127.0.0.1:18000\n").into();
    "nothing to carry": warning "configuration" 0 ["nothing to carry"],
        |site| site.write("listen: 127.0.0.1:0\n").into();
    "a peer with no way to meet": warning "configuration" 0 ["has no address yet and cannot dial us"],
        |site| {
            let egress = "egress: [{listen: \"127.0.0.1:0\", peer: far, service: app}]\n";
            site.write(&format!("peers: [{{name: far, keys: [\"{}\"]}}]\n{egress}", site.other)).into()
        };
    "no identity": failed "configuration" 78 ["identity.key", "keygen"],
        |site| {
            fs::remove_file(site.path("identity.key")).unwrap();
            site.write("listen: 127.0.0.1:0\n").into()
        };
    "an identity that others can read": failed "configuration" 78 ["identity.key", "chmod"],
        |site| {
            fs::set_permissions(site.path("identity.key"), Permissions::from_mode(0o644)).unwrap();
            site.write("listen: 127.0.0.1:0\n").into()
        };
    "an identity that is no key": failed "configuration" 78 ["identity.key"],
        |site| {
            fs::write(site.path("identity.key"), "swordfish\n").unwrap();
            site.write("listen: 127.0.0.1:0\n").into()
        };
    "credentials for a proxy that are not there": failed "credentials" 1 ["cannot be read", "user:password"],
        |site| proxy(site, nobody(), ", proxy_credentials: nowhere");

    // This host.
    "a clock that is behind": warning "clock" 0 ["in the future", "set the clock"],
        |site| {
            let file = site.write("listen: 127.0.0.1:0\n");
            let future = SystemTime::now() + Duration::from_secs(4000);
            fs::File::options().write(true).open(&file).unwrap().set_modified(future).unwrap();
            file.into()
        };
    "too few open files for the sessions": warning "open files" 0 ["of 5000", "ulimit"],
        |site| limited(site, 1000);
    "too few open files for anything": failed "open files" 1 ["only 100", "ulimit"],
        |site| limited(site, 100);
    "a state directory that is a file": failed "state" 1 ["not a directory"],
        |site| {
            fs::write(site.path("in-the-way"), "").unwrap();
            site.write("listen: 127.0.0.1:0\nstate: in-the-way\n").into()
        };
    "a keeper that is not there": failed "keeper" 1 ["no socket there", "ferry keeper"],
        |site| site.write("listen: 127.0.0.1:0\nkeeper: keeper.sock\n").into();
    "a keeper's socket that is a file": failed "keeper" 1 ["is no socket"],
        |site| {
            fs::write(site.path("keeper.sock"), "").unwrap();
            site.write("listen: 127.0.0.1:0\nkeeper: keeper.sock\n").into()
        };
    "a port that another process has": failed "listens" 1 ["(listen)", "another process"],
        |site| {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            Made::from(site.write(&format!("listen: {}\n", taken.local_addr().unwrap()))).with(taken)
        };
    "an address that is another host's": failed "listens" 1 ["does not have that address"],
        |site| site.write("listen: 192.0.2.1:18000\n").into();
    "a port that changed since the tunnel was started": failed "listens" 1 ["does not listen there", "restart"],
        |site| {
            let (admin, listen) = (Port::reserve(), Port::reserve());
            let text = |listen: SocketAddr| site.write(&format!("admin: {}\nlisten: {listen}\n", admin.address()));
            let file = text("127.0.0.1:0".parse().unwrap());
            let (near, _) = role(command(&["tunnel", "--config"]).arg(&file));
            text(listen.address());
            // What the system holds for it, it gives to no one.
            let at = listen.address();
            drop(listen);
            text(at);
            Made::from(file).with((near, admin))
        };

    // Applications here.
    "an application that does not listen": failed "application" 1 ["no connection", "start the application"],
        |site| site.forward(&nobody().to_string()).into();
    "an application whose name has no address": failed "application" 1 ["does not resolve", "DNS"],
        |site| site.forward("nowhere.invalid:80").into();

    // The way to a peer.
    "a peer whose name has no address": failed "name" 1 ["nowhere.invalid", "DNS"],
        |site| site.peer("nowhere.invalid:30200", "").into();
    "an address file that is not there": failed "address" 1 ["cannot be read", "one host:port a line"],
        |site| site.peer("file:addresses", "").into();
    "an address file without an address": failed "address" 1 ["no address in it"],
        |site| {
            fs::write(site.path("addresses"), "# none yet\n").unwrap();
            site.peer("file:addresses", "").into()
        };
    "an address without a port": failed "address" 1 ["one host:port a line"],
        |site| {
            fs::write(site.path("addresses"), "b.example.com\n").unwrap();
            site.peer("file:addresses", "").into()
        };
    "a port at which nothing listens": failed "link" 1 ["refused", "nothing listens there"],
        |site| site.peer(nobody(), "").into();
    "a firewall that drops connections": failed "link" 1 ["no answer to a connection", "firewall"],
        |site| {
            // A listener whose queue is full answers no further SYN.
            let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
            let socket = socket.unwrap();
            rustix::net::bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
            rustix::net::listen(&socket, 0).unwrap();
            let at: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
            let wait = Duration::from_millis(300);
            let filling: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&at, wait).ok()).collect();
            Made::from(site.peer(at, "")).with((socket, filling))
        };
    "a web server at that port": failed "link" 1 ["no tunnel", "another program"],
        |site| site.peer(server(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "").into();
    "a TLS server that is no tunnel": failed "link" 1 ["no tunnel", "ends TLS"],
        // It agrees on nothing: the alert handshake_failure.
        |site| site.peer(server(&[21, 3, 3, 0, 2, 2, 40]), "").into();
    "an SSH server at that port": failed "link" 1 ["no tunnel", "another program"],
        |site| site.peer(served(|mut stream| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
            let _ = stream.read(&mut [0; 4096]);
        }), "").into();
    "a load balancer whose backend is away": failed "link" 1 ["ended during the handshake", "backend"],
        |site| site.peer(served(drop), "").into();
    "something that accepts and says nothing, as over a path that drops large packets":
        failed "link" 1 ["no answer to a handshake", "MTU"],
        |site| site.peer(served(std::mem::forget), "").into();
    "a proxy that is not there": failed "link" 1 ["the proxy", "refused", "does the proxy run"],
        |site| proxy(site, nobody(), "");
    "a proxy that asks for credentials (407)": failed "link" 1 ["407", "proxy_credentials"],
        |site| proxy(site, server(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), "");
    "a proxy that forbids the peer (403)": failed "link" 1 ["403", "does not allow"],
        |site| proxy(site, server(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "");
    "a proxy that does not reach the peer (502)": failed "link" 1 ["502", "cannot reach"],
        |site| proxy(site, server(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "");
    "a proxy that says nothing": failed "link" 1 ["the proxy", "no answer"],
        |site| proxy(site, served(std::mem::forget), "");
    "a WebSocket's path that is another": failed "link" 1 ["404", "ws_path"],
        |site| site.peer(format!("ws://{}", server(b"HTTP/1.1 404 Not Found\r\n\r\n")), "").into();
    "a WebSocket's load balancer without a tunnel": failed "link" 1 ["503", "listen_ws"],
        |site| site.peer(format!("ws://{}", server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")), "").into();
    "a login page in front of a WebSocket": failed "link" 1 ["asks for a login", "401"],
        |site| site.peer(format!("ws://{}", server(b"HTTP/1.1 401 Unauthorized\r\n\r\n")), "").into();
    "`wss://` where there is no TLS": failed "link" 1 ["TLS to the endpoint failed", "speaks no TLS", "ws://"],
        |site| site.peer(format!("wss://{}", server(b"HTTP/1.1 400 Bad Request\r\n\r\n")), "").into();
    "authorities for `wss://` that are not there": failed "link" 1 ["ca_file", "cannot be read"],
        |site| site.peer(format!("wss://{}", server(b"")), ", ca_file: ca.pem").into();
    "no QUIC at that port": failed "link" 1 ["no answer", "listen_quic"],
        |site| site.peer(format!("quic://{}", nobody()), "").into();

    // The peer.
    "another tunnel's key": failed "link" 1 ["not listed here", "compare"],
        |site| {
            let (far, at) = site.far(&site.key, "");
            let third = keygen(&site.path("third.key"));
            let peers = format!("peers: [{{name: far, keys: [\"{third}\"], addresses: [\"{at}\"]}}]\n");
            Made::from(site.write(&peers)).with(far)
        };
    "a peer that does not list us": failed "link" 1 ["is not accepted there", "list this tunnel's key there"],
        |site| {
            let (far, at) = site.far(&keygen(&site.path("third.key")), "");
            Made::from(site.peer(at, "")).with(far)
        };
    "a peer that was to dial us, and does not": failed "peer" 1 ["no link of it is here", "run doctor there"],
        |site| {
            let admin = Port::reserve();
            let file = site.write(&format!(
                "admin: {}\nlisten: 127.0.0.1:0\npeers: [{{name: far, keys: [\"{}\"]}}]\n",
                admin.address(),
                site.other
            ));
            let (near, _) = role(command(&["tunnel", "--config"]).arg(&file));
            Made::from(file).with((near, admin))
        };
    "a service that the peer does not offer us": warning "refused" 0 ["no such service", "`ingress`"],
        |site| site.refused("");
    "an application that is down at the peer": warning "refused" 0 ["cannot be reached", "at the peer"],
        |site| site.refused(&format!("ingress: [{{service: app, forward: \"{}\", allow: [near]}}]\n", nobody()));
    "a limit of the peer": warning "refused" 0 ["the limit of 1 sessions", "limits"],
        |site| {
            let app = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = app.local_addr().unwrap();
            let (far, link) = site.far(
                &site.key,
                &format!("ingress: [{{service: app, forward: \"{at}\", allow: [near], limits: {{sessions: 1}}}}]\n"),
            );
            let (admin, egress) = (Port::reserve(), Port::reserve());
            let file = site.write(&format!(
                "admin: {}\npeers: [{{name: far, keys: [\"{}\"], addresses: [\"{link}\"]}}]\n\
                 egress: [{{listen: \"{}\", peer: far, service: app}}]\n",
                admin.address(),
                site.other,
                egress.address()
            ));
            let (near, _) = role(command(&["tunnel", "--config"]).arg(&file));
            let first = TcpStream::connect(egress.address()).unwrap();
            let served = app.accept().unwrap();
            let mut second = TcpStream::connect(egress.address()).unwrap();
            assert!(second.read(&mut [0]).is_err(), "the application is reset");
            Made::from(file).with((far, near, admin, egress, first, served))
        };
};
