//! What has a limit, and how it is shared out.

pub(crate) mod bucket;
pub(crate) mod entries;
pub(crate) mod files;
pub(crate) mod idle;
pub(crate) mod pacing;
pub(crate) mod shares;
