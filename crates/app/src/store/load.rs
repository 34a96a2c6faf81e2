//! Reading everything that a store holds, once, when a web-app starts.

use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::{KeyRecord, StoreError, about, row};
use crate::limits::{MAX_DEAD_BYTES, MAX_OUTPUT_BYTES};
use crate::message::{Arrival, DeadMessage, Message, SenderId};
use crate::peer::PeerName;

/// What a store holds.
#[derive(Debug)]
pub(crate) struct StoredState {
    pub(crate) sender: SenderId,
    /// Messages up to here are acknowledged.
    pub(crate) acked: u64,
    /// Those after it, in order, each with its JSON.
    pub(crate) outbox: Vec<(Message, String)>,
    /// Results by position, without gaps.
    pub(crate) output: Vec<(u64, Arrival)>,
    pub(crate) watermarks: Vec<(SenderId, u64)>,
    /// Whose senders they are, as far as that is known.
    pub(crate) peers: Vec<(SenderId, PeerName)>,
    pub(crate) dead: Vec<(u64, DeadMessage)>,
    /// In the order of their messages.
    pub(crate) keys: Vec<(String, KeyRecord)>,
}

pub(super) fn load(connection: &Connection) -> Result<StoredState, StoreError> {
    let acked = about::number(connection, "acked")?;
    let outbox = rows(connection, "outbox", "SELECT seq, row FROM outbox ORDER BY seq", |_, text| {
        Ok((parse::<Message>("outbox", text)?, text.to_owned()))
    })?;
    let outbox: Vec<_> = outbox.into_iter().map(|(_, message)| message).filter(|(m, _)| m.seq > acked).collect();
    contiguous("outbox", acked + 1, outbox.iter().map(|(message, _)| message.seq))?;
    let output = newest(connection, "output", "position", MAX_OUTPUT_BYTES, |_, t| parse("output", t))?;
    contiguous("output", output.first().map_or(0, |(first, _)| *first), output.iter().map(|(position, _)| *position))?;
    Ok(StoredState {
        sender: SenderId::try_from(about::sender(connection)?).map_err(StoreError::damaged)?,
        acked,
        outbox,
        output,
        watermarks: watermarks(connection)?,
        peers: peers(connection)?,
        dead: newest(connection, "dead", "number", MAX_DEAD_BYTES, |_, t| parse("dead", t))?,
        keys: keys(connection)?,
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
fn rows<T>(
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

fn keys(connection: &Connection) -> Result<Vec<(String, KeyRecord)>, StoreError> {
    let mut statement = connection.prepare("SELECT key, row FROM keys ORDER BY seq")?;
    let mut found = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = found.next()? {
        let (key, bytes): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let row = row::unseal_key(&key, &bytes)?;
        keys.push((key, row));
    }
    Ok(keys)
}

fn parse<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::damaged(format!("a row of {table}: {error}")))
}

fn contiguous(table: &'static str, first: u64, numbers: impl Iterator<Item = u64>) -> Result<(), StoreError> {
    for (expected, found) in (first..).zip(numbers) {
        if expected != found {
            return Err(StoreError::damaged(format!("{table} has row {found} where {expected} should be")));
        }
    }
    Ok(())
}
