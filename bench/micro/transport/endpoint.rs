//! The keys that a dialler and an endpoint of `wss://` agree on.

use std::error::Error;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection};

use super::ciphers;
use super::test_endpoint::{Anyone, config};
use crate::tls::{Keys, keys};

/// Both ends' keys, of a handshake in memory.
pub(super) fn agree() -> Result<(Keys, Keys), Box<dyn Error>> {
    let mut client = ClientConfig::builder_with_provider(Arc::new(ciphers::provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let mut server = config(&TLS13)?;
    (client.enable_secret_extraction, server.enable_secret_extraction) = (true, true);
    server.send_tls13_tickets = 0;
    let name = ServerName::try_from("endpoint.example")?;
    let mut near = Connection::Client(ClientConnection::new(Arc::new(client), name)?);
    let mut far = Connection::Server(ServerConnection::new(Arc::new(server))?);
    while near.is_handshaking() || far.is_handshaking() {
        hand_over(&mut near, &mut far)?;
        hand_over(&mut far, &mut near)?;
    }
    Ok((keys(near)?, keys(far)?))
}

fn hand_over(from: &mut Connection, to: &mut Connection) -> Result<(), Box<dyn Error>> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight)?;
    }
    let mut rest = &flight[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(())
}
