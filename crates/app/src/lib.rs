//! Ferry's app.
