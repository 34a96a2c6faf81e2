//! Outboxes by site. The first has the tables that every store has; the others share two that are made when they are needed
//! first, so that versions that know one site only can still open the store. They leave those two as they are.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::about::{set_number, set_text, text};
use super::{Commit, KeyRecord, StoreError, about, headers, load, row, signed};
use crate::message::{Message, MessageId, SenderId};
use crate::peer::PeerName;

/// The number of the first site.
const FIRST: u64 = 0;
/// What `about` says of the first site: the name of its peer, empty if it has none.
const FIRST_NAME: &str = "site";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sites (site INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS site_outbox (
        site INTEGER NOT NULL, seq INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (site, seq)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS site_keys (
        site INTEGER NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (site, key)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS site_keys_by_seq ON site_keys (site, seq);
";

/// What changes in one site's outbox.
#[derive(Debug, Default)]
pub(crate) struct OutboxCommit {
    /// The site's number; the first has 0.
    pub(crate) site: u64,
    /// The site itself, if the store does not have it yet.
    pub(crate) record: Option<SiteRecord>,
    /// Messages that enter, as JSON.
    pub(crate) outbox: Vec<(u64, Arc<str>)>,
    /// The headers of some of them, as JSON.
    pub(crate) headers: Vec<(MessageId, Arc<str>)>,
    /// Everything up to here is acknowledged.
    pub(crate) acked: u64,
    /// Idempotency keys of the messages that enter, and of those whose fate has changed.
    pub(crate) keys: Vec<(String, KeyRecord)>,
    /// Keys of messages up to here are forgotten.
    pub(crate) keys_start: u64,
}

/// A site without its outbox.
#[derive(Debug, Clone)]
pub(crate) struct SiteRecord {
    pub(crate) name: Option<PeerName>,
    pub(crate) sender: SenderId,
}

/// A site as the store holds it.
#[derive(Debug)]
pub(crate) struct StoredSite {
    pub(crate) number: u64,
    pub(crate) name: Option<PeerName>,
    /// As whom this end sends to it.
    pub(crate) sender: SenderId,
    /// Messages up to here are acknowledged.
    pub(crate) acked: u64,
    /// Those after it, in order, each with its JSON.
    pub(crate) outbox: Vec<(Message, String)>,
    /// The headers of some of them, as JSON, by their numbers.
    pub(crate) headers: HashMap<u64, Arc<str>>,
    /// In the order of their messages.
    pub(crate) keys: Vec<(String, KeyRecord)>,
}

impl OutboxCommit {
    /// The part of it that only frees space.
    pub(super) fn trim(self) -> Self {
        let Self { site, acked, keys_start, .. } = self;
        Self { site, acked, keys_start, ..Self::default() }
    }
}

/// Removes what is acknowledged, and sites that are forgotten.
pub(super) fn free(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    let has_table = || transaction.table_exists(None, "sites");
    for site in &commit.forgotten {
        if *site == FIRST {
            transaction.execute_batch("DELETE FROM outbox; DELETE FROM keys;")?;
        } else if has_table()? {
            for table in ["sites", "site_outbox", "site_keys"] {
                transaction.execute(&format!("DELETE FROM {table} WHERE site = ?"), [signed(*site)])?;
            }
        }
    }
    for OutboxCommit { site, acked, keys_start, .. } in &commit.outboxes {
        if *site == FIRST {
            transaction.prepare_cached("DELETE FROM outbox WHERE seq <= ?")?.execute([signed(*acked)])?;
            transaction.prepare_cached("DELETE FROM keys WHERE seq <= ?")?.execute([signed(*keys_start)])?;
        } else if has_table()? {
            let mut delete = transaction.prepare_cached("DELETE FROM site_outbox WHERE site = ? AND seq <= ?")?;
            delete.execute([signed(*site), signed(*acked)])?;
            let mut delete = transaction.prepare_cached("DELETE FROM site_keys WHERE site = ? AND seq <= ?")?;
            delete.execute([signed(*site), signed(*keys_start)])?;
        }
    }
    Ok(())
}

/// Adds what is new.
pub(super) fn write(transaction: &Transaction<'_>, outboxes: &[OutboxCommit]) -> Result<(), StoreError> {
    for outbox in outboxes {
        match outbox.site {
            FIRST => write_first(transaction, outbox)?,
            _ => write_other(transaction, outbox)?,
        }
    }
    Ok(())
}

fn write_first(transaction: &Transaction<'_>, commit: &OutboxCommit) -> Result<(), StoreError> {
    set_number(transaction, "acked", commit.acked)?;
    if let Some(record) = &commit.record {
        set_text(transaction, FIRST_NAME, record.name.as_ref().map_or("", PeerName::as_str))?;
    }
    let mut insert = transaction.prepare_cached("INSERT INTO outbox VALUES (?, ?)")?;
    for (seq, text) in &commit.outbox {
        insert.execute(params![signed(*seq), row::seal(*seq, text)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)")?;
    for (key, row) in &commit.keys {
        insert.execute(params![key, signed(row.seq), row::seal_key(key, *row)])?;
    }
    Ok(())
}

fn write_other(transaction: &Transaction<'_>, commit: &OutboxCommit) -> Result<(), StoreError> {
    let site = signed(commit.site);
    if let Some(record) = &commit.record {
        transaction.execute_batch(TABLES)?;
        let name = record.name.as_ref().map_or("", PeerName::as_str);
        let row = row::seal(commit.acked, &format!("{} {} {name}", commit.site, record.sender.as_str()));
        transaction.prepare_cached("INSERT OR REPLACE INTO sites VALUES (?, ?)")?.execute(params![site, row])?;
    } else {
        // Its number is in the row's seal.
        let known: Vec<u8> =
            transaction.prepare_cached("SELECT row FROM sites WHERE site = ?")?.query_row([site], |row| row.get(0))?;
        let (acked, text) = row::unseal("sites", &known)?;
        if acked != commit.acked {
            let row = row::seal(commit.acked, text);
            transaction.prepare_cached("UPDATE sites SET row = ? WHERE site = ?")?.execute(params![row, site])?;
        }
    }
    let mut insert = transaction.prepare_cached("INSERT INTO site_outbox VALUES (?, ?, ?)")?;
    for (seq, text) in &commit.outbox {
        insert.execute(params![site, signed(*seq), row::seal(*seq, text)])?;
    }
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO site_keys VALUES (?, ?, ?, ?)")?;
    for (key, row) in &commit.keys {
        insert.execute(params![site, key, signed(row.seq), row::seal_key(key, *row)])?;
    }
    Ok(())
}

/// The sites, the first one included. `peers` are those of the senders: the first site of a store that knows nothing of sites
/// is that of the only peer, if there is just one.
pub(super) fn load(connection: &Connection, peers: &[(SenderId, PeerName)]) -> Result<Vec<StoredSite>, StoreError> {
    let name = match text(connection, FIRST_NAME)? {
        Some(name) => named(name)?,
        None => peers.first().filter(|first| peers.iter().all(|peer| peer.1 == first.1)).map(|(_, peer)| peer.clone()),
    };
    let sender = SenderId::try_from(about::sender(connection)?).map_err(StoreError::damaged)?;
    let acked = about::number(connection, "acked")?;
    let mut sites = vec![StoredSite {
        number: FIRST,
        name,
        sender,
        acked,
        headers: HashMap::new(),
        outbox: outbox(connection, "outbox", "SELECT seq, row FROM outbox ORDER BY seq", acked)?,
        keys: keys(connection, "SELECT key, row FROM keys ORDER BY seq")?,
    }];
    if !connection.table_exists(None, "sites")? {
        headers::load(connection, &mut sites)?;
        return Ok(sites);
    }
    for (number, acked, text) in load::sealed(connection, "sites", "SELECT site, row FROM sites ORDER BY site")? {
        let damaged = || StoreError::damaged(format!("row {number} of sites is not what it says"));
        let mut parts = text.splitn(3, ' ');
        let (same, sender, name) = (parts.next(), parts.next(), parts.next());
        let number = same.and_then(|same| same.parse().ok()).filter(|same| *same == number).ok_or_else(damaged)?;
        let sender = SenderId::try_from(sender.ok_or_else(damaged)?.to_owned()).map_err(StoreError::damaged)?;
        let query = format!("SELECT seq, row FROM site_outbox WHERE site = {number} ORDER BY seq");
        let name = named(name.ok_or_else(damaged)?.to_owned())?;
        let outbox = outbox_of(connection, &query, acked, &sender)?;
        let query = format!("SELECT key, row FROM site_keys WHERE site = {number} ORDER BY seq");
        let (headers, keys) = (HashMap::new(), keys(connection, &query)?);
        sites.push(StoredSite { number, name, sender, acked, outbox, headers, keys });
    }
    headers::load(connection, &mut sites)?;
    Ok(sites)
}

fn named(name: String) -> Result<Option<PeerName>, StoreError> {
    if name.is_empty() { Ok(None) } else { PeerName::try_from(name).map(Some).map_err(StoreError::damaged) }
}

/// The messages of one of the other sites, each of which names its sender.
fn outbox_of(
    connection: &Connection,
    query: &str,
    acked: u64,
    sender: &SenderId,
) -> Result<Vec<(Message, String)>, StoreError> {
    let messages = outbox(connection, "site_outbox", query, acked)?;
    match messages.iter().find(|(message, _)| message.id != sender.message(message.seq)) {
        None => Ok(messages),
        Some((message, _)) => {
            Err(StoreError::damaged(format!("message {} is in the outbox of another site", message.id)))
        }
    }
}

fn outbox(
    connection: &Connection,
    table: &'static str,
    query: &str,
    acked: u64,
) -> Result<Vec<(Message, String)>, StoreError> {
    let rows =
        load::rows(connection, table, query, |_, text| Ok((load::parse::<Message>(table, text)?, text.to_owned())))?;
    let outbox: Vec<_> = rows.into_iter().map(|(_, message)| message).filter(|(m, _)| m.seq > acked).collect();
    load::contiguous(table, acked + 1, outbox.iter().map(|(message, _)| message.seq))?;
    Ok(outbox)
}

fn keys(connection: &Connection, query: &str) -> Result<Vec<(String, KeyRecord)>, StoreError> {
    let mut statement = connection.prepare(query)?;
    let mut found = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = found.next()? {
        let (key, bytes): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let row = row::unseal_key(&key, &bytes)?;
        keys.push((key, row));
    }
    Ok(keys)
}
