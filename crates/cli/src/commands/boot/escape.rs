//! The escape key of the console: Ctrl-A, as in QEMU, and a letter.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What the keys do, for who asks.
pub(super) const HELP: &str = "\
Ctrl-A x       end the VM, in order if its agent answers; once more: at once
Ctrl-A a       send Ctrl-A to the VM (Ctrl-A twice, too)
Ctrl-A h       this help";

/// What was asked for by an escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// End the VM.
    End,
    /// Tell the keys.
    Help,
}

/// Takes escapes out of what is typed.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    escaped: bool,
}

impl Escapes {
    /// What of these bytes is for the guest, and what for us.
    pub(super) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, Vec<Command>) {
        let (mut through, mut commands) = (Vec::with_capacity(typed.len()), Vec::new());
        for &byte in typed {
            match (std::mem::take(&mut self.escaped), byte) {
                (false, ESCAPE) => self.escaped = true,
                (false, _) => through.push(byte),
                (true, b'x' | b'X') => commands.push(Command::End),
                (true, b'h' | b'H' | b'?') => commands.push(Command::Help),
                (true, ESCAPE | b'a') => through.push(ESCAPE),
                // Whoever is used to Ctrl-A in the guest's shell goes on typing.
                (true, _) => through.extend([ESCAPE, byte]),
            }
        }
        (through, commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_out_wherever_the_bytes_are_cut() {
        let typed = b"ab\x01xc\x01a\x01\x01\x01e\x01hd";
        for cut in 0..typed.len() {
            let mut escapes = Escapes::default();
            let (mut through, mut commands) = escapes.take(&typed[..cut]);
            let (more, others) = escapes.take(&typed[cut..]);
            through.extend(more);
            commands.extend(others);
            assert_eq!(through, b"abc\x01\x01\x01ed", "{cut}");
            assert_eq!(commands, [Command::End, Command::Help], "{cut}");
        }
    }
}
