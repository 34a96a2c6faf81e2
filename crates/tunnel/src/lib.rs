//! Ferry's tunnel.
