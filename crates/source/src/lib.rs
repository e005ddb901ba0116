//! Resolves an image reference and yields its config and verified layer streams
