//! RFC 8446 §5 against rustls' own record layer, both ways, and everything that an honest peer never sends.

use std::io::{Read, Write};
use std::sync::Arc;

use ferry_config::{Identity, PublicKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::ServerName;
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::version::TLS13;
use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection, SupportedCipherSuite};

use super::*;
use crate::transport::tls::policy;
use crate::transport::tls::verify::Trusted;

/// One end of a finished handshake is plain rustls, the other has only this module.
struct Halves {
    theirs: Connection,
    sealer: RecordEncryptor,
    opener: RecordDecryptor,
}

/// A handshake between our client and a server of theirs, over this suite.
fn halves_over(suite: SupportedCipherSuite, library: Library, tickets: usize) -> Halves {
    let (near, far) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let only = |identity: &Identity| Arc::<[PublicKey]>::from([identity.public_key()]);
    let provider = CryptoProvider { cipher_suites: vec![suite], ..policy::provider() };
    let verifier = Trusted::new(&provider, Some(only(&near)));
    let certified = policy::certified(&provider, &far).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    server.alpn_protocols = vec![policy::ALPN.to_vec()];
    server.send_tls13_tickets = tickets;
    let provider = CryptoProvider { cipher_suites: vec![suite], ..policy::provider() };
    let client = policy::dialling_by(provider, &near, only(&far)).unwrap();
    let mut ours = ClientConnection::new(Arc::new(client), ServerName::try_from("ferry").unwrap()).unwrap();
    let mut theirs = ServerConnection::new(Arc::new(server)).unwrap();
    while theirs.is_handshaking() {
        let mut wire = Vec::new();
        ours.write_tls(&mut wire).unwrap();
        theirs.read_tls(&mut &*wire).unwrap();
        theirs.process_new_packets().unwrap();
        wire.clear();
        if ours.is_handshaking() {
            theirs.write_tls(&mut wire).unwrap();
            ours.read_tls(&mut &*wire).unwrap();
            ours.process_new_packets().unwrap();
        }
    }
    let secrets = ours.dangerous_extract_secrets().unwrap();
    Halves {
        theirs: theirs.into(),
        sealer: RecordEncryptor(Cipher::new(library, secrets.tx.0, &secrets.tx.1).unwrap()),
        opener: RecordDecryptor(Cipher::new(library, secrets.rx.0, &secrets.rx.1).unwrap()),
    }
}

const LIBRARIES: [Library; 2] = [Library::AwsLc, Library::Ring];

fn by_each_library<T: Copy>(this: T) -> [(T, Library); 2] {
    LIBRARIES.map(|library| (this, library))
}

/// Over each suite of links, and the one that is preferred with endpoints, by each library.
fn each_suite() -> impl Iterator<Item = Halves> {
    let suites = policy::provider().cipher_suites.into_iter().chain([TLS13_AES_128_GCM_SHA256]);
    suites.flat_map(|suite| LIBRARIES.map(|library| halves_over(suite, library, 0)))
}

fn halves() -> Halves {
    halves_over(policy::provider().cipher_suites[0], Library::here(), 0)
}

/// A sealer and an opener of the same direction, after `first` records.
pub(crate) fn handshaken_pair(first: u64) -> (RecordEncryptor, RecordDecryptor) {
    twins_by(Library::here(), first)
}

fn twins_by(library: Library, first: u64) -> (RecordEncryptor, RecordDecryptor) {
    let secrets = ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::copy(&[9; 12]) };
    let cipher = || Cipher::new(library, first, &secrets).unwrap();
    (RecordEncryptor(cipher()), RecordDecryptor(cipher()))
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

fn seal(sealer: &mut RecordEncryptor, plaintext: &[u8]) -> Vec<u8> {
    let mut record = room_for(plaintext);
    sealer.seal(&mut record).unwrap();
    record
}

/// Plaintext with room for what makes a record of it.
fn room_for(plaintext: &[u8]) -> Vec<u8> {
    [&[0; HEADER][..], plaintext, &[0; SEAL]].concat()
}

/// A record of `front` and of a payload that is kept elsewhere.
fn seal_from(sealer: &mut RecordEncryptor, front: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut record = room_for(&[front, &vec![0; payload.len()]].concat());
    sealer.seal_from(&mut record, &[payload, &[APPLICATION_DATA]].concat()).unwrap();
    record
}

impl Halves {
    /// What rustls makes of these bytes.
    fn their_reading(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !wire.is_empty() {
            self.theirs.read_tls(&mut wire).unwrap();
            let count = self.theirs.process_new_packets()?.plaintext_bytes_to_read();
            let held = plain.len();
            plain.resize(held + count, 0);
            self.theirs.reader().read_exact(&mut plain[held..]).unwrap();
        }
        Ok(plain)
    }

    /// The records that rustls makes of these bytes.
    fn their_writing(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.theirs.writer().write_all(plaintext).unwrap();
        self.their_wire()
    }

    fn their_wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// What the opener makes of records that arrive in pieces of `piece` bytes.
    fn our_reading(&mut self, wire: &[u8], piece: usize) -> Vec<u8> {
        let (mut held, mut plain) = (Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            held.extend_from_slice(piece);
            while let Some(length) = RecordDecryptor::length(&held).unwrap() {
                let Opened::Data(data) = self.opener.open(&mut held[..length]).unwrap() else { panic!("no data") };
                plain.extend_from_slice(data);
                held.drain(..length);
            }
        }
        assert!(held.is_empty(), "half a record is left");
        plain
    }
}

const LENGTHS: [usize; 9] = [0, 1, 2, 15, 16, 255, 1000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT];

#[test]
fn rustls_opens_what_is_sealed_here() {
    for mut halves in each_suite() {
        for length in LENGTHS {
            let wire = seal(&mut halves.sealer, &payload(length));
            assert_eq!(halves.their_reading(&wire).unwrap(), payload(length), "{length} bytes");
        }
    }
}

#[test]
fn rustls_opens_what_is_sealed_from_elsewhere() {
    for mut halves in each_suite() {
        for front in [0, 1, 11, 16, 300] {
            for length in LENGTHS.map(|length| length.min(MAX_PLAINTEXT - front)) {
                let wire = seal_from(&mut halves.sealer, &payload(front), &payload(length));
                let read = halves.their_reading(&wire).unwrap();
                assert!(read == [payload(front), payload(length)].concat(), "{front} and {length} bytes");
            }
        }
    }
}

#[test]
fn what_rustls_seals_is_opened_into_room_elsewhere() {
    for mut halves in each_suite() {
        for length in LENGTHS {
            let (mut wire, mut room) = (halves.their_writing(&payload(length)), vec![7; MAX_PLAINTEXT + 1]);
            let mut plain = Vec::new();
            while let Some(length) = RecordDecryptor::length(&wire).unwrap() {
                let record: Vec<u8> = wire.drain(..length).collect();
                assert!(RecordDecryptor::inner_length(length) <= room.len());
                let opened = halves.opener.open_into(&record, &mut room);
                let Opened::Data(data) = opened.unwrap() else { panic!("no data") };
                plain.extend_from_slice(data);
            }
            assert_eq!(plain, payload(length), "{length} bytes");
        }
    }
}

#[test]
fn what_rustls_seals_is_opened_to_the_front_of_where_it_stands() {
    for mut halves in each_suite() {
        for (length, free) in LENGTHS.into_iter().flat_map(|length| [0, 1, 20, 5_000].map(|free| (length, free))) {
            let (mut wire, mut plain) = (halves.their_writing(&payload(length)), Vec::new());
            while let Some(length) = RecordDecryptor::length(&wire).unwrap() {
                let mut bytes = vec![7; free];
                bytes.extend(wire.drain(..length));
                let opened = halves.opener.open_to_front(&mut bytes, free);
                let Opened::Data(data) = opened.unwrap() else { panic!("no data") };
                plain.extend_from_slice(data);
                let count = data.len();
                assert!(bytes[..count] == plain[plain.len() - count..], "at the front");
            }
            assert_eq!(plain, payload(length), "{length} bytes behind {free}");
        }
    }
}

#[test]
fn what_was_changed_on_its_way_is_not_opened_into_room_elsewhere() {
    let record = seal(&mut handshaken_pair(0).0, &payload(1000));
    for (at, library) in [0, 3, HEADER, HEADER + 500, record.len() - 1].into_iter().flat_map(by_each_library) {
        let mut changed = record.clone();
        changed[at] ^= 1;
        let opened = twins_by(library, 0).1.open_into(&changed, &mut [0; 2000]).map(|_| ());
        assert!(matches!(opened, Err(TlsError::Record(_))), "byte {at}, {library:?}");
        let opened = twins_by(library, 0).1.open_to_front(&mut [&[7; 9], &changed[..]].concat(), 9).map(|_| ());
        assert!(matches!(opened, Err(TlsError::Record(_))), "byte {at}, {library:?}, to the front");
    }
}

#[test]
fn what_rustls_seals_is_opened_here() {
    for mut halves in each_suite() {
        for length in LENGTHS {
            let wire = halves.their_writing(&payload(length));
            assert_eq!(halves.our_reading(&wire, wire.len().max(1)), payload(length), "{length} bytes");
        }
    }
}

#[test]
fn records_that_arrive_together_or_in_pieces_are_the_same_records() {
    let mut halves = halves();
    let plain = payload(3 * MAX_PLAINTEXT + 77);
    for piece in [1, 4, 5, 6, 1000, 20_000, 100_000] {
        let wire = halves.their_writing(&plain);
        assert_eq!(halves.our_reading(&wire, piece), plain, "in pieces of {piece}");
    }
    let wire: Vec<u8> = plain.chunks(MAX_PLAINTEXT).flat_map(|chunk| seal(&mut halves.sealer, chunk)).collect();
    assert_eq!(halves.their_reading(&wire).unwrap(), plain);
}

/// Also the empty one, which hides that there is nothing to say.
#[test]
fn a_record_of_nothing_is_opened() {
    let (mut sealer, mut opener) = handshaken_pair(0);
    let mut record = seal(&mut sealer, b"");
    assert_eq!(opener.open(&mut record).unwrap(), Opened::Data(b""));
}

#[test]
fn close_notify_goes_both_ways() {
    let mut halves = halves();
    let mut wire = seal(&mut halves.sealer, b"last words");
    wire.extend(halves.sealer.close_notify().unwrap());
    assert_eq!(halves.their_reading(&wire).unwrap(), b"last words");
    assert_eq!(halves.theirs.reader().read(&mut [0; 1]).unwrap(), 0, "a clean end, not a cut");
    halves.theirs.send_close_notify();
    let mut wire = halves.their_wire();
    assert_eq!(halves.opener.open(&mut wire).unwrap(), Opened::CloseNotify);
}

// --- what is refused -------------------------------------------------------------------------------------------------

/// A record around this TLSInnerPlaintext, whatever it is.
fn raw(sealer: &mut RecordEncryptor, inner: &[u8]) -> Vec<u8> {
    let mut record = vec![APPLICATION_DATA, 3, 3];
    record.extend_from_slice(&((inner.len() + TAG) as u16).to_be_bytes());
    let (mut body, mut tag) = (inner.to_vec(), [0; TAG]);
    let nonce = sealer.0.next_nonce();
    sealer.0.key.seal(nonce, &record, &mut body, &mut tag).unwrap();
    [record, body, tag.to_vec()].concat()
}

/// The record as the link takes it: measured, then opened.
fn receive<'a>(opener: &mut RecordDecryptor, record: &'a mut [u8]) -> Result<Option<Opened<'a>>, TlsError> {
    match RecordDecryptor::length(record)? {
        Some(length) => opener.open(&mut record[..length]).map(Some),
        None => Ok(None),
    }
}

#[track_caller]
fn assert_refused(opener: &mut RecordDecryptor, mut record: Vec<u8>) {
    let outcome = receive(opener, &mut record).and_then(|opened| opened.map(Opened::data).transpose());
    assert!(matches!(outcome, Err(TlsError::Record(_))), "{outcome:?}");
}

#[test]
fn padding_is_taken_off() {
    let (mut sealer, mut opener) = handshaken_pair(0);
    for zeros in [1, 16, 255, 16_000] {
        let mut inner = b"padded".to_vec();
        inner.push(APPLICATION_DATA);
        inner.resize(inner.len() + zeros, 0);
        let mut record = raw(&mut sealer, &inner);
        assert_eq!(receive(&mut opener, &mut record).unwrap(), Some(Opened::Data(b"padded")));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let record = seal(&mut handshaken_pair(0).0, b"attack at dawn");
    for (bit, library) in (0..record.len() * 8).flat_map(by_each_library) {
        let (_, mut opener) = twins_by(library, 0);
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match receive(&mut opener, &mut flipped) {
            Err(TlsError::Record(_)) => {}
            // A longer record is announced than there is.
            Ok(None) => assert!((3..5).contains(&(bit / 8)), "bit {bit}"),
            other => panic!("bit {bit}, {library:?}: {other:?}"),
        }
    }
}

#[test]
fn a_record_that_comes_again_or_out_of_order_or_after_a_lost_one_is_refused() {
    let (mut sealer, _) = handshaken_pair(0);
    let records: Vec<Vec<u8>> = (0..3).map(|_| seal(&mut sealer, b"same bytes")).collect();
    for order in [&[0, 0][..], &[1], &[0, 2], &[0, 1, 0], &[0, 1, 1]] {
        let (_, mut opener) = handshaken_pair(0);
        let (last, before) = order.split_last().unwrap();
        for &index in before {
            assert!(receive(&mut opener, &mut records[index].clone()).is_ok());
        }
        assert_refused(&mut opener, records[*last].clone());
    }
}

#[test]
fn a_record_of_another_connection_is_refused() {
    let (mut here, mut there) = (halves(), halves());
    let record = there.their_writing(b"not for you");
    assert_refused(&mut here.opener, record);
}

#[test]
fn a_record_longer_than_records_are_is_refused_before_it_is_read() {
    let header = |length: u16| [[23, 3, 3].as_slice(), &length.to_be_bytes()].concat();
    for length in [0, 1, TAG as u16, MAX_BODY as u16 + 1, u16::MAX] {
        assert!(RecordDecryptor::length(&header(length)).is_err(), "{length}");
    }
    for length in [TAG as u16 + 1, MAX_BODY as u16] {
        assert!(matches!(RecordDecryptor::length(&header(length)), Ok(None)), "{length}");
    }
    // The body may be longer than the plaintext, but not because of more plaintext.
    let (mut sealer, mut opener) = handshaken_pair(0);
    let mut inner = payload(MAX_PLAINTEXT + 1);
    inner.push(APPLICATION_DATA);
    assert_refused(&mut opener, raw(&mut sealer, &inner));
}

#[test]
fn no_more_is_sealed_than_a_record_holds() {
    let (mut sealer, _) = handshaken_pair(0);
    assert!(matches!(sealer.seal(&mut room_for(&payload(MAX_PLAINTEXT + 1))), Err(TlsError::Record(_))));
    for size in [0, HEADER, HEADER + SEAL - 1] {
        assert!(matches!(sealer.seal(&mut vec![0; size]), Err(TlsError::Record(_))));
    }
    let far = [payload(1000), vec![APPLICATION_DATA]].concat();
    assert!(matches!(sealer.seal_from(&mut room_for(&payload(999)), &far), Err(TlsError::Record(_))));
}

#[test]
fn a_record_without_content_type_is_refused() {
    let (mut sealer, mut opener) = handshaken_pair(0);
    assert_refused(&mut opener, raw(&mut sealer, &[0; 40]));
}

#[test]
fn plaintext_records_are_refused_after_the_handshake() {
    for kind in [20, 21, 22, 24] {
        let (_, mut opener) = handshaken_pair(0);
        let mut record = seal(&mut handshaken_pair(0).0, b"hello");
        record[0] = kind;
        assert_refused(&mut opener, record);
    }
}

#[test]
fn a_key_update_is_refused() {
    let mut halves = halves();
    halves.theirs.refresh_traffic_keys().unwrap();
    let wire = halves.their_wire();
    assert_refused(&mut halves.opener, wire);
}

#[test]
fn a_session_ticket_is_refused() {
    let mut halves = halves_over(policy::provider().cipher_suites[0], Library::here(), 1);
    let wire = halves.their_wire();
    assert!(!wire.is_empty(), "the ticket");
    assert_refused(&mut halves.opener, wire);
}

#[test]
fn a_content_type_that_has_no_place_is_refused() {
    for content in [1, 20, 22, 24, 255] {
        let (mut sealer, mut opener) = handshaken_pair(0);
        assert_refused(&mut opener, raw(&mut sealer, &[b'x', content]));
    }
}

#[test]
fn an_alert_tells_why() {
    let mut halves = halves();
    // Their end cannot open this, and says so.
    halves.their_reading(&[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
    let mut wire = halves.their_wire();
    assert!(matches!(receive(&mut halves.opener, &mut wire), Err(TlsError::Alert(20))), "bad_record_mac");
    let (mut sealer, mut opener) = handshaken_pair(0);
    let mut refusal = raw(&mut sealer, &[2, 46, ALERT]);
    assert!(matches!(receive(&mut opener, &mut refusal), Err(TlsError::KeyRefused)), "certificate_unknown");
    assert_refused(&mut opener, raw(&mut sealer, &[2, ALERT]));
}

#[test]
fn a_key_that_is_used_up_seals_its_close_notify_and_nothing_else() {
    let (mut sealer, mut opener) = handshaken_pair(MAX_RECORDS - 1);
    let mut last = seal(&mut sealer, b"the last one");
    assert_eq!(receive(&mut opener, &mut last).unwrap(), Some(Opened::Data(b"the last one")));
    assert!(matches!(sealer.seal(&mut room_for(b"more")), Err(TlsError::KeyExhausted)));
    assert!(matches!(sealer.seal_from(&mut room_for(b"more"), b"more\x17"), Err(TlsError::KeyExhausted)));
    let mut last = sealer.close_notify().unwrap();
    assert_eq!(receive(&mut opener, &mut last).unwrap(), Some(Opened::CloseNotify));
}
