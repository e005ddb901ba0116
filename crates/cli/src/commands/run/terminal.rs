//! This process's terminal while the guest's is joined to it: every key goes there, Ctrl-C too.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// A terminal in raw mode. Dropping it gives the old mode back.
pub(super) struct Terminal {
    terminal: OwnedFd,
    before: Option<Termios>,
}

impl Terminal {
    /// Takes the terminal that standard input is; if it is none, nothing is changed.
    pub(super) fn take(stdin: BorrowedFd<'_>) -> anyhow::Result<Terminal> {
        let terminal = stdin.try_clone_to_owned().context("cannot use stdin")?;
        let before = isatty(&terminal)
            .then(|| tcgetattr(&terminal))
            .transpose()
            .context("cannot ask the terminal for its mode")?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&terminal, OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        }
        Ok(Terminal { terminal, before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Now, before);
        }
    }
}
