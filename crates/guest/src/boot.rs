//! What happened while the guest started: *stamps* and *warnings*, for `status`.
//!
//! Stage 1 ends by becoming another program; it hands its record over in two environment variables, which that program
//! takes out of its environment. An init of the image's own would pass them on to whatever it starts; so for that they are left in
//! a file of `/dev`, the one file system that it finds mounted and keeps, where an agent that it starts finds them.

use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use firebrick_protocol::agent::Stamp;

use crate::file;
use crate::kernel::Clock;

const STAMPS: &str = "FIREBRICK_STAMPS=";
const WARNINGS: &str = "FIREBRICK_WARNINGS=";
/// Where the record is left for agents that another init starts.
const LEFT: &str = "/dev/.firebrick-boot";
/// More warnings than this say nothing more.
const MAX_WARNINGS: usize = 64;

/// The record.
#[derive(Debug, Default)]
pub struct Boot {
    /// In order of time.
    pub stamps: Vec<Stamp>,
    /// In order of time, as printed.
    pub warnings: Vec<String>,
}

impl Boot {
    /// What the program before this one handed over, if there was one.
    pub fn from_environment(environment: &[&CStr]) -> Boot {
        Boot::from_variables(environment.iter().filter_map(|variable| variable.to_str().ok()))
    }

    /// What was left for agents that another init starts, if anything was.
    pub fn left() -> Boot {
        const LIMIT_BYTES: usize = 64 << 10;
        let left = file::read(LEFT, LIMIT_BYTES).unwrap_or_default();
        let variables = left.split(|byte| *byte == 0);
        Boot::from_variables(variables.filter_map(|variable| str::from_utf8(variable).ok()))
    }

    fn from_variables<'a>(variables: impl Iterator<Item = &'a str>) -> Boot {
        let mut boot = Boot::default();
        for variable in variables {
            if let Some(stamps) = variable.strip_prefix(STAMPS) {
                let parse = |stamp: &str| {
                    let (event, time) = stamp.split_once(':')?;
                    Some(Stamp {
                        event: event.to_string(),
                        boottime_us: time.parse().ok()?,
                    })
                };
                boot.stamps = stamps.split(',').filter_map(parse).collect();
            } else if let Some(warnings) = variable.strip_prefix(WARNINGS) {
                boot.warnings = warnings.lines().take(MAX_WARNINGS).map(String::from).collect();
            }
        }
        boot
    }

    /// Leaves the record for [`Boot::left`]. Where that cannot be, `status` tells less.
    pub fn leave(&self) {
        let mut bytes = Vec::new();
        for variable in self.to_environment() {
            bytes.extend_from_slice(variable.as_bytes_with_nul());
        }
        let _ = file::write(LEFT, &bytes);
    }

    /// The record as environment variables.
    pub fn to_environment(&self) -> Vec<CString> {
        let stamps: Vec<String> = self
            .stamps
            .iter()
            .map(|stamp| alloc::format!("{}:{}", stamp.event, stamp.boottime_us))
            .collect();
        let warnings = self.warnings.join("\n");
        [
            alloc::format!("{STAMPS}{}", stamps.join(",")),
            alloc::format!("{WARNINGS}{warnings}"),
        ]
        .into_iter()
        .filter_map(|variable| CString::new(variable).ok())
        .collect()
    }

    /// Notes that `event` has happened now.
    pub fn stamp(&mut self, event: &str) {
        self.stamps.push(Stamp {
            event: event.to_string(),
            boottime_us: Clock::Boottime.now_ns() / 1000,
        });
    }

    /// Prints and keeps something that went wrong but did not stop us.
    pub fn warn(&mut self, message: fmt::Arguments<'_>) {
        crate::say(format_args!("warning: {message}"));
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(message.to_string().replace(['\n', '\0'], " "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_the_change_of_program() {
        let mut boot = Boot::default();
        boot.stamp("stage1_start");
        boot.stamp("root_mounted");
        boot.warn(format_args!("no\nmodule"));
        boot.warn(format_args!("no eth0"));
        let environment = boot.to_environment();
        let environment: Vec<&CStr> = environment.iter().map(|variable| variable.as_c_str()).collect();
        let read = Boot::from_environment(&environment);
        assert_eq!((read.stamps, read.warnings), (boot.stamps, boot.warnings));
    }

    #[test]
    fn foreign_variables_are_no_record() {
        let boot = Boot::from_environment(&[c"FIREBRICK_STAMPS=x,y:z,a:1", c"HOME=/"]);
        assert_eq!(boot.stamps.len(), 1);
        assert!(boot.warnings.is_empty());
    }
}
