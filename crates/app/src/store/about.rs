//! The table `about`: the values that a store has one of.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{StoreError, row};

/// Reads a number.
pub(super) fn number(connection: &Connection, name: &'static str) -> Result<u64, StoreError> {
    let (number, same) = value(connection, name)?;
    if same == name { Ok(number) } else { Err(StoreError::damaged(format!("{name} is not what it says"))) }
}

/// Reads the id of this store as a sender.
pub(super) fn sender(connection: &Connection) -> Result<String, StoreError> {
    Ok(value(connection, "sender")?.1)
}

pub(super) fn set_number(transaction: &Transaction<'_>, name: &str, number: u64) -> Result<(), StoreError> {
    set(transaction, name, number, name)
}

/// Reads a text that may be missing.
pub(super) fn text(connection: &Connection, name: &'static str) -> Result<Option<String>, StoreError> {
    Ok(found(connection, name)?.map(|(_, text)| text))
}

pub(super) fn set_text(transaction: &Transaction<'_>, name: &str, text: &str) -> Result<(), StoreError> {
    set(transaction, name, 0, text)
}

pub(super) fn set_sender(transaction: &Transaction<'_>, sender: &str) -> Result<(), StoreError> {
    set(transaction, "sender", 0, sender)
}

fn set(transaction: &Transaction<'_>, name: &str, number: u64, text: &str) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO about VALUES (?, ?)")?;
    insert.execute(params![name, row::seal(number, text)])?;
    Ok(())
}

fn value(connection: &Connection, name: &'static str) -> Result<(u64, String), StoreError> {
    found(connection, name)?.ok_or_else(|| StoreError::damaged(format!("{name} is missing")))
}

fn found(connection: &Connection, name: &'static str) -> Result<Option<(u64, String)>, StoreError> {
    let query = connection.query_row("SELECT row FROM about WHERE name = ?", [name], |row| row.get::<_, Vec<u8>>(0));
    let Some(bytes) = query.optional()? else { return Ok(None) };
    let (number, text) = row::unseal("about", &bytes)?;
    Ok(Some((number, text.to_owned())))
}
