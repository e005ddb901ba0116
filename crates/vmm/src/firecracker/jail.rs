//! Seeing to it that a jailed Firecracker ends with us.
//!
//! The kernel forgets that a process shall end with its parent when that process becomes another user, as the jailer does. So a guard
//! waits beside it: a shell that reads from a pipe of ours, and kills Firecracker when the pipe ends, however that came about.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A guard of one process.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// A guard of the process of this number.
    pub(super) fn of(process: u32) -> io::Result<Guard> {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "read -r line; kill -9 \"$1\"",
            "guard",
            &process.to_string(),
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.process_group(0);
        Ok(Guard(command.spawn()?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Its process has ended, and the number may be another's: it must not come to the kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
