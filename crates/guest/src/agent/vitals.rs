//! What `status` tells: versions, times, memory and disk.

use alloc::string::String;

use firebrick_protocol::PROTOCOL_VERSION;
use firebrick_protocol::agent::{Space, Status};

use super::Agent;
use crate::kernel::Clock;

impl Agent {
    pub(super) fn status(&self) -> Status {
        // The connection that asks is taken out of `conns` while it is answered.
        let connections = self.conns.len().saturating_add(1);
        Status {
            version: crate::version::version().into(),
            protocol: PROTOCOL_VERSION,
            pid1: self.is_init,
            boottime_us: Clock::Boottime.now_ns() / 1000,
            boot: self.boot.stamps.clone(),
            jobs: u32::try_from(self.jobs.len()).unwrap_or(u32::MAX),
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            warnings: self.boot.warnings.clone(),
            kernel: String::from_utf8_lossy(rustix::system::uname().release().to_bytes()).into_owned(),
            unix_us: Clock::Realtime.now_ns() / 1000,
            memory: memory(),
            disk: disk(),
            agent_bytes: kibibytes(&crate::file::text("/proc/self/status"), "VmRSS:"),
        }
    }
}

fn memory() -> Space {
    let text = crate::file::text("/proc/meminfo");
    Space {
        total_bytes: kibibytes(&text, "MemTotal:"),
        available_bytes: kibibytes(&text, "MemAvailable:"),
    }
}

fn disk() -> Space {
    let Ok(disk) = rustix::fs::statvfs("/") else {
        return Space::default();
    };
    Space {
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        available_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
    }
}

/// The number behind `key` in one of the kernel's tables of kibibytes, in bytes.
fn kibibytes(table: &str, key: &str) -> u64 {
    table
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |number| number.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_found() {
        let table = "MemTotal:       16384 kB\nMemFree: 5 kB\nHugePages: x\n";
        assert_eq!(super::kibibytes(table, "MemTotal:"), 16 << 20);
        assert_eq!(super::kibibytes(table, "MemAvailable:"), 0);
        assert_eq!(super::kibibytes(table, "HugePages:"), 0);
    }
}
