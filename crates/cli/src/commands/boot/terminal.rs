//! The user's terminal in raw mode: every key goes to the guest, and whatever happens the terminal is put back.
//!
//! It is put back when [`Terminal`] is dropped, so on every return and panic, and while firebrick is stopped (SIGTSTP). Signals that
//! end firebrick are caught, and end it through a return.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH};

/// Rows and columns.
pub(super) type Size = (u16, u16);

/// The terminal of stdin, in raw mode.
#[derive(Debug)]
pub(super) struct Terminal {
    modes: Arc<Mutex<Modes>>,
    sizes: Option<Receiver<Size>>,
}

#[derive(Debug)]
struct Modes {
    original: Termios,
    /// The terminal is no longer ours.
    over: bool,
}

impl Terminal {
    /// Makes the terminal raw; `None` where stdin is none.
    pub(super) fn raw() -> anyhow::Result<Option<Terminal>> {
        if !isatty(io::stdin()) {
            return Ok(None);
        }
        let original = tcgetattr(io::stdin()).context("cannot ask the terminal for its mode")?;
        let modes = Arc::new(Mutex::new(Modes {
            original,
            over: false,
        }));
        // From here on it is put back.
        let mut terminal = Terminal {
            modes: Arc::clone(&modes),
            sizes: None,
        };
        let signals = signal_hook::iterator::Signals::new([SIGWINCH, SIGTSTP, SIGCONT]);
        let mut signals = signals.context("cannot listen for signals")?;
        let (sender, sizes) = mpsc::channel();
        terminal.sizes = Some(sizes);
        lock(&modes).set_raw().context("cannot make the terminal raw")?;
        if let Some(size) = size() {
            let _ = sender.send(size);
        }
        std::thread::Builder::new()
            .name("terminal".into())
            .spawn(move || {
                for signal in signals.forever() {
                    match signal {
                        SIGTSTP => stop(&modes),
                        SIGCONT => {
                            let _ = lock(&modes).set_raw();
                        }
                        _ => {}
                    }
                    if let Some(size) = size().filter(|_| signal != SIGTSTP)
                        && sender.send(size).is_err()
                    {
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Some(terminal))
    }

    /// The terminal's sizes: the one it has, and each that it gets.
    pub(super) fn sizes(&mut self) -> Option<Receiver<Size>> {
        self.sizes.take()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut modes = lock(&self.modes);
        modes.over = true;
        modes.set_original();
    }
}

impl Modes {
    fn set_raw(&self) -> io::Result<()> {
        if self.over {
            return Ok(());
        }
        let mut raw = self.original.clone();
        raw.make_raw();
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &raw)?)
    }

    fn set_original(&self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.original);
    }
}

fn lock(modes: &Mutex<Modes>) -> std::sync::MutexGuard<'_, Modes> {
    modes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stops as anyone would, with the terminal as it was.
fn stop(modes: &Mutex<Modes>) {
    lock(modes).set_original();
    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
    // Somebody has let us go on.
    let _ = lock(modes).set_raw();
}

fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
