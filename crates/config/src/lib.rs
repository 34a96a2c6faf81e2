//! Ferry's config.
