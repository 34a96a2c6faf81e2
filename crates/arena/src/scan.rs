//! What a process left behind. All of it is checked: what does not add up is not taken over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ferry_session::{Block, Slot};
use thiserror::Error;

use crate::record::{self, Contents, Damaged, Identity, Record, State};
use crate::slot::{Header, LentSlot};
use crate::space::Space;

/// What is found in an arena.
pub struct Inheritance {
    /// The sessions that are noted there.
    pub sessions: Vec<Found>,
    /// How many records could not be read.
    pub damaged: usize,
}

/// A session of a process that is gone.
pub struct Found {
    /// Its record. Dropped, the session is forgotten.
    pub record: Record,
    /// Which session it is.
    pub identity: Identity,
    /// What was stored of it last.
    pub state: State,
    /// The process had noted that everything below this offset was read from the application; it may have read more.
    pub read: u64,
    /// It had noted that everything below this offset was written to the application; it may have written more.
    pub written: u64,
    index: u32,
    slots: Vec<(u64, LentSlot)>,
}

/// Why a session's bytes cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// The end of what was read is in no slot.
    #[error("bytes that were read are missing")]
    Missing,
    /// More is in a slot than it holds, or two hold the same.
    #[error("bytes overlap")]
    Overlap,
}

/// Bytes that may not have been acknowledged.
pub struct Kept {
    /// Offset of the first one, or of the next one to be read.
    pub base: u64,
    /// They are the first ones of each block, as many as it says.
    pub blocks: Vec<(Block, usize)>,
}

/// Finds all sessions, and gives back all slots that are of none of them.
pub(crate) fn scan(space: &Arc<Space>, records: u32, slots: u32) -> Inheritance {
    let mut damaged = 0;
    let mut found = HashMap::new();
    for index in 0..records {
        match Contents::read(space.record(index), space.format(), index) {
            Ok(None) => {}
            Err(Damaged) => damaged += 1,
            Ok(Some(Contents { generation, identity, state, read, written })) => {
                let record = Record::new(space.clone(), index, generation, Some(state));
                let slots = Vec::new();
                let session = Found { record, identity, state, read, written, index, slots };
                found.insert(record::key(index, generation), session);
            }
        }
    }
    let (memory, sizes) = (space.memory(), space.sizes());
    let placed = |index: u32| match Header::read(memory, sizes, index) {
        Header::Placed { owner, offset } if found.contains_key(&owner) => Some((owner, offset)),
        Header::Placed { .. } | Header::Free | Header::Damaged => None,
    };
    let placed: HashMap<u32, (u64, u64)> = (0..slots).filter_map(|index| Some((index, placed(index)?))).collect();
    for bytes in memory.restore(slots, |index| placed.contains_key(&index)) {
        let Some((owner, offset)) = placed.get(&bytes.index()) else { continue };
        let slot = LentSlot::new(sizes, *owner, bytes);
        if let Some(found) = found.get_mut(owner) {
            found.slots.push((*offset, slot));
        }
    }
    let mut sessions: Vec<Found> = found.into_values().collect();
    sessions.sort_by_key(|found| found.index);
    let taken: HashSet<u32> = sessions.iter().map(|found| found.index).collect();
    space.restore_records(records, |index| taken.contains(&index));
    Inheritance { sessions, damaged }
}

impl Found {
    /// The bytes that are kept of what the application sent, of which everything below `read` was read. Slots with anything
    /// else are given back.
    ///
    /// # Errors
    /// See [`Damage`].
    pub fn kept(&mut self, read: u64) -> Result<Kept, Damage> {
        let mut slots = std::mem::take(&mut self.slots);
        // What was made ready and not read into.
        slots.retain(|(offset, _)| *offset < read);
        slots.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
        let (mut end, mut blocks) = (read, Vec::with_capacity(slots.len()));
        for (offset, slot) in slots {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let is_last = blocks.is_empty();
            if length > Block::ROOM {
                // Slots are given back once they are acknowledged, in any order, and the last one as well as all before.
                if is_last {
                    return Err(Damage::Missing);
                }
                break;
            }
            // All but the last are full.
            if length == 0 || (length < Block::ROOM && !is_last) {
                return Err(Damage::Overlap);
            }
            blocks.push((Block::in_slot(Box::new(slot) as Box<dyn Slot>), length));
            end = offset;
        }
        blocks.reverse();
        Ok(Kept { base: end, blocks })
    }
}
