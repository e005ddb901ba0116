//! Scans one tar layer: entries into an index, file bytes to their place, digests on the way
