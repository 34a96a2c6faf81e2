//! The tunnel's buffers, compiled here alone.

#[allow(dead_code, reason = "only what carriers borrow is run")]
#[path = "../../crates/tunnel/src/memory/scratch.rs"]
pub(crate) mod scratch;
