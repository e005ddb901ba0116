//! This process's terminal while the guest's is joined to it: every key goes there, Ctrl-C too.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// A terminal that can be in raw mode. Dropping it gives the old mode back.
pub(super) struct Terminal {
    terminal: OwnedFd,
    before: Option<Termios>,
    is_raw: bool,
}

impl Terminal {
    /// The terminal that standard input is, as it is; if it is none, nothing will be changed.
    pub(super) fn of(stdin: BorrowedFd<'_>) -> anyhow::Result<Terminal> {
        let terminal = stdin.try_clone_to_owned().context("cannot use stdin")?;
        let before = isatty(&terminal)
            .then(|| tcgetattr(&terminal))
            .transpose()
            .context("cannot ask the terminal for its mode")?;
        Ok(Terminal {
            terminal,
            before,
            is_raw: false,
        })
    }

    /// From here on every key is the guest's.
    pub(super) fn go_raw(&mut self) -> io::Result<()> {
        if let Some(before) = &self.before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&self.terminal, OptionalActions::Now, &raw)?;
            self.is_raw = true;
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let (Some(before), true) = (&self.before, self.is_raw) {
            let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Now, before);
        }
    }
}
