//! Looks at what a running step takes, ten times a second.

use rustix::fd::OwnedFd;

use crate::steps::Limits;

/// So much of the disk is left to others, in bytes.
const DISK_RESERVE: u64 = 128 << 20;
/// So many of its files are.
const FILES_RESERVE: u64 = 1000;

/// What there was when the step began.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: i32,
    free_bytes: u64,
}

impl Watch {
    /// `pid` is the step's PID 1, as the keeper's `/proc` knows it.
    pub(crate) fn new(pid: i32, copy: &OwnedFd) -> Watch {
        let free_bytes = rustix::fs::fstatvfs(copy).map_or(u64::MAX, |disk| free(&disk));
        Watch { pid, free_bytes }
    }

    /// What there is too much of, and the limit.
    pub(crate) fn over(&self, copy: &OwnedFd, limits: &Limits) -> Option<(&'static str, u64)> {
        let (processes, memory) = usage(self.pid, limits.processes);
        if processes > limits.processes {
            return Some(("processes", limits.processes));
        }
        if memory > limits.memory_bytes {
            return Some(("memory", limits.memory_bytes));
        }
        let disk = rustix::fs::fstatvfs(copy).ok()?;
        let left = free(&disk);
        let taken = self.free_bytes.saturating_sub(left);
        // Whoever shares the disk may take of it too; then it is not the step that ends it unless little is left.
        let full = left < DISK_RESERVE || (disk.f_files > 0 && disk.f_favail < FILES_RESERVE);
        if taken > limits.disk_bytes {
            return Some(("disk", limits.disk_bytes));
        }
        full.then_some(("disk", self.free_bytes.saturating_sub(DISK_RESERVE)))
    }
}

fn free(disk: &rustix::fs::StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

/// How many threads the step has, and what memory nobody else has: PID 1 and all its descendants. More threads than `most` are not
/// counted: there are many only where they become more while one looks.
fn usage(pid: i32, most: u64) -> (u64, u64) {
    let (mut threads, mut memory) = (0, 0);
    let mut pending = vec![pid.to_string()];
    while let Some(pid) = pending.pop() {
        if threads > most {
            break;
        }
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            threads += 1;
            if let Ok(children) = std::fs::read_to_string(task.path().join("children")) {
                pending.extend(children.split_whitespace().map(str::to_owned));
            }
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        for line in status.lines() {
            let mut fields = line.split_whitespace();
            if matches!(fields.next(), Some("RssAnon:" | "RssShmem:" | "VmSwap:")) {
                memory += fields.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
            }
        }
    }
    (threads, memory)
}
