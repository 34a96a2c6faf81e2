//! Ferry beside its peers.
fn main() {}
