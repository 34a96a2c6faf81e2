//! The headers of messages in the outboxes, in a table that is made when it is needed first, so that versions that do not know
//! it can still open the store. They deliver the messages without headers, and leave the table as it is: a row may be left
//! that no message has any more.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::{Commit, StoreError, StoredSite, row, signed};

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS headers (
        site INTEGER NOT NULL, seq INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (site, seq)
    ) WITHOUT ROWID
";

pub(super) fn are_stored(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.table_exists(None, "headers")?)
}

pub(super) fn are_in(commit: &Commit) -> bool {
    commit.outboxes.iter().any(|outbox| !outbox.headers.is_empty())
}

/// Removes those of messages that are gone, and adds what is new.
pub(super) fn write(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    transaction.prepare_cached(TABLE)?.execute([])?;
    for site in &commit.forgotten {
        transaction.prepare_cached("DELETE FROM headers WHERE site = ?")?.execute([signed(*site)])?;
    }
    for outbox in &commit.outboxes {
        let site = signed(outbox.site);
        let mut delete = transaction.prepare_cached("DELETE FROM headers WHERE site = ? AND seq <= ?")?;
        delete.execute([site, signed(outbox.acked)])?;
        let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO headers VALUES (?, ?, ?)")?;
        for (id, headers) in &outbox.headers {
            let Some((_, seq)) = id.split() else { continue };
            insert.execute(params![site, signed(seq), row::seal(seq, &format!("{id} {headers}"))])?;
        }
    }
    Ok(())
}

/// Gives them to the messages that have them.
pub(super) fn load(connection: &Connection, sites: &mut [StoredSite]) -> Result<(), StoreError> {
    if !are_stored(connection)? {
        return Ok(());
    }
    let mut statement = connection.prepare("SELECT site, row FROM headers ORDER BY site, seq")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (site, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (seq, text) = row::unseal("headers", &bytes)?;
        let Some((id, headers)) = text.split_once(' ') else {
            return Err(StoreError::damaged(format!("row {seq} of headers is not what it says")));
        };
        let Some(site) = sites.iter_mut().find(|known| signed(known.number) == site) else { continue };
        if seq > site.acked && site.sender.message(seq).as_str() == id {
            site.headers.insert(seq, Arc::from(headers));
        }
    }
    Ok(())
}
