//! What has a limit, and how it is shared out.

pub(crate) mod files;
pub(crate) mod idle;
pub(crate) mod shares;
