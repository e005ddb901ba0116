//! Ending as a signal would have ended the process.
//!
//! Only commands that hold a VM, or work in a folder, catch signals. The others need not: what they write has no name before it
//! is whole, so ending at any point leaves nothing behind.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// How often what is still written to is removed.
const TRIES: usize = 20;

/// Ends this process as the signal would have, so that a shell script stops too.
pub(crate) fn die_by(signal: i32) {
    let _ = signal_hook::low_level::emulate_default_handler(signal); // where it fails, the exit code says the same
}

/// Folders that go when a signal ends this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch(Arc<Mutex<Vec<PathBuf>>>);

impl Scratch {
    /// From now on a signal removes the folders, and then ends the process as it would have.
    pub(crate) fn guarded() -> io::Result<Scratch> {
        let scratch = Scratch::default();
        let folders = Arc::clone(&scratch.0);
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    // Held to the end, so that no other folder is begun.
                    let folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
                    for folder in folders.iter() {
                        let _ = (0..TRIES).find(|_| fs::remove_dir_all(folder).is_ok() || !folder.exists());
                    }
                    die_by(signal);
                }
            })?;
        Ok(scratch)
    }

    /// One more.
    pub(crate) fn add(&self, folder: PathBuf) {
        let mut folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        folders.push(folder);
    }
}
