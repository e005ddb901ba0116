//! Starts microVMs and dials their guests
