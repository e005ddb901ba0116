//! Work on files that may take long: a copy of the agent does it, so that the loop waits for no disk.

pub(super) mod remove;
