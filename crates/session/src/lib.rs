//! Ferry's session.
