//! Ferry's relay.
