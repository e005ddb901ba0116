//! What firebrick says on stderr beside its data.

use std::io::Write as _;

/// How much is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    verbose: u8,
    quiet: bool,
}

impl Talk {
    pub(crate) fn new(verbose: u8, quiet: bool) -> Talk {
        Talk { verbose, quiet }
    }

    /// Says a line, unless told to be quiet.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{line}"); // a closed stderr is no reason to stop
        }
    }

    /// Says a line only with `-v`.
    pub(crate) fn detail(&self, line: &str) {
        if self.verbose >= 1 {
            self.say(line);
        }
    }
}
