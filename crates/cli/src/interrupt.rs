//! Ending as a signal would have ended the process.
//!
//! Only commands that hold a VM catch signals. The others need not: what they write has no name before it is whole,
//! so ending at any point leaves nothing behind.

/// Ends this process as the signal would have, so that a shell script stops too.
pub(crate) fn die_by(signal: i32) {
    let _ = signal_hook::low_level::emulate_default_handler(signal); // where it fails, the exit code says the same
}
