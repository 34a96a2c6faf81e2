//! A tunnel's admin endpoint, as the commands that show it use it: where it is, and what it says.

mod endpoint;
mod events;
mod port_forward;
mod problems;
mod quantity;
mod sites;
mod status;

pub(crate) use endpoint::{Endpoint, Which, examples};
pub(crate) use events::{Event, Follower, Mood};
pub(crate) use port_forward::Place;
pub(crate) use problems::{Problem, problems};
pub(crate) use quantity::{plural, size, time};
pub(crate) use sites::{Answer, Site};
pub(crate) use status::{Limit, MostBytes, Pace, Peer, Session, Status};
