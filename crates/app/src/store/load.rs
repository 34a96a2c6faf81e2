//! Reading everything that a store holds, once, when a web-app starts.

use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::{StoreError, StoredSite, row, sites};
use crate::limits::{MAX_DEAD_BYTES, MAX_OUTPUT_BYTES};
use crate::message::{Arrival, DeadMessage, SenderId};
use crate::peer::PeerName;

/// What a store holds.
#[derive(Debug)]
pub(crate) struct StoredState {
    /// The far web-apps, each with its outbox; the first one is always there.
    pub(crate) sites: Vec<StoredSite>,
    /// Results by position, without gaps.
    pub(crate) output: Vec<(u64, Arrival)>,
    pub(crate) watermarks: Vec<(SenderId, u64)>,
    /// Whose senders they are, as far as that is known.
    pub(crate) peers: Vec<(SenderId, PeerName)>,
    pub(crate) dead: Vec<(u64, DeadMessage)>,
}

pub(super) fn load(connection: &Connection) -> Result<StoredState, StoreError> {
    let peers = peers(connection)?;
    let output = newest(connection, "output", "position", MAX_OUTPUT_BYTES, |_, t| parse("output", t))?;
    contiguous("output", output.first().map_or(0, |(first, _)| *first), output.iter().map(|(position, _)| *position))?;
    Ok(StoredState {
        sites: sites::load(connection, &peers)?,
        output,
        watermarks: watermarks(connection)?,
        peers,
        dead: newest(connection, "dead", "number", MAX_DEAD_BYTES, |_, t| parse("dead", t))?,
    })
}

/// The newest rows of a table that are within `max_bytes`. An earlier version may have kept more, too much to be read at once.
fn newest<T>(
    connection: &Connection,
    table: &'static str,
    key: &'static str,
    max_bytes: usize,
    decode: impl Fn(u64, &str) -> Result<T, StoreError>,
) -> Result<Vec<(u64, T)>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT {key}, length(row) FROM {table} ORDER BY {key} DESC"))?;
    let mut found = statement.query([])?;
    let (mut first, mut bytes) = (i64::MAX, 0);
    while let Some(row) = found.next()? {
        bytes += usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
        if bytes > max_bytes && first != i64::MAX {
            break;
        }
        first = row.get(0)?;
    }
    rows(connection, table, &format!("SELECT {key}, row FROM {table} WHERE {key} >= {first} ORDER BY {key}"), decode)
}

/// The rows of a table with numbered rows, checked.
pub(super) fn rows<T>(
    connection: &Connection,
    table: &'static str,
    query: &str,
    decode: impl Fn(u64, &str) -> Result<T, StoreError>,
) -> Result<Vec<(u64, T)>, StoreError> {
    let mut statement = connection.prepare(query)?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let key: i64 = row.get(0)?;
        let bytes = row.get_ref(1)?.as_blob().map_err(|error| StoreError::damaged(error.to_string()))?;
        let (number, text) = row::unseal(table, bytes)?;
        if u64::try_from(key) != Ok(number) {
            return Err(StoreError::damaged(format!("row {number} of {table} is in place {key}")));
        }
        rows.push((number, decode(number, text)?));
    }
    Ok(rows)
}

/// The rows of a table with numbered rows: each one's key, and the number and text that it seals.
pub(super) fn sealed(
    connection: &Connection,
    table: &'static str,
    query: &str,
) -> Result<Vec<(u64, u64, String)>, StoreError> {
    let mut statement = connection.prepare(query)?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let (key, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (number, text) = row::unseal(table, &bytes)?;
        let key = u64::try_from(key).map_err(|_| StoreError::damaged(format!("{table} has a row {key}")))?;
        rows.push((key, number, text.to_owned()));
    }
    Ok(rows)
}

fn watermarks(connection: &Connection) -> Result<Vec<(SenderId, u64)>, StoreError> {
    let mut statement = connection.prepare("SELECT sender, row FROM senders")?;
    let mut found = statement.query([])?;
    let mut watermarks = Vec::new();
    while let Some(row) = found.next()? {
        let (sender, bytes): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (watermark, same) = row::unseal("senders", &bytes)?;
        if same != sender {
            return Err(StoreError::damaged("a row of senders belongs to another sender".into()));
        }
        watermarks.push((SenderId::try_from(sender).map_err(StoreError::damaged)?, watermark));
    }
    Ok(watermarks)
}

fn peers(connection: &Connection) -> Result<Vec<(SenderId, PeerName)>, StoreError> {
    // A store of before has no such table until the first row of it.
    if !connection.table_exists(None, "peers")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT sender, row FROM peers")?;
    let mut found = statement.query([])?;
    let mut peers = Vec::new();
    while let Some(row) = found.next()? {
        let (sender, bytes): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let peer = row::unseal_peer(&sender, &bytes)?;
        let sender = SenderId::try_from(sender).map_err(StoreError::damaged)?;
        peers.push((sender, PeerName::try_from(peer).map_err(StoreError::damaged)?));
    }
    Ok(peers)
}

pub(super) fn parse<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::damaged(format!("a row of {table}: {error}")))
}

pub(super) fn contiguous(
    table: &'static str,
    first: u64,
    numbers: impl Iterator<Item = u64>,
) -> Result<(), StoreError> {
    for (expected, found) in (first..).zip(numbers) {
        if expected != found {
            return Err(StoreError::damaged(format!("{table} has row {found} where {expected} should be")));
        }
    }
    Ok(())
}
