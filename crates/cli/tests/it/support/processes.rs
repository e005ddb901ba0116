//! Which processes there are.

use std::fs;
use std::path::PathBuf;

/// The command lines of those that have this word, `NAME=VALUE`, in their environment.
pub(crate) fn with_variable(variable: &str) -> Vec<String> {
    let command_of = |process: PathBuf| {
        let environ = fs::read(process.join("environ")).ok()?;
        let is_it = environ
            .split(|byte| *byte == 0)
            .any(|word| word == variable.as_bytes());
        let command = fs::read(process.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (is_it && !command.is_empty()).then_some(command)
    };
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| command_of(entry.ok()?.path()))
        .collect()
}
