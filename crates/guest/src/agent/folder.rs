//! The work folder of a framed job: made for it alone, and gone after it.

use alloc::string::String;
use core::fmt;

use firebrick_protocol::jobs::SourceFile;
use rustix::fd::AsFd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::work::remove;
use crate::kernel::{self, Clock};

/// Where the folders are.
const PLACE: &str = "/tmp";

/// So many entries are removed at once; a process of its own removes what is more, so that nobody waits for it.
const REMOVED_AT_ONCE: usize = 64;

/// How long that process goes on, while dying jobs still write.
const PATIENCE_NS: u64 = 10_000_000_000;

/// A work folder. It must be given to [`Folder::remove`].
#[derive(Debug)]
pub(super) struct Folder {
    path: String,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Folder {
    /// Makes an empty folder that only the agent's user may enter.
    pub(super) fn make() -> Result<Folder, Errno> {
        let mut stamp = Clock::Boottime.now_ns();
        loop {
            let path = alloc::format!("{PLACE}/job-{}-{stamp:x}", rustix::process::getpid());
            match rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o700)) {
                Ok(()) => return Ok(Folder { path }),
                Err(Errno::EXIST) => stamp = stamp.wrapping_add(1),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes it this process's working directory. What is then made there is made nowhere else, even if it is gone by then.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        rustix::process::chdir(self.path.as_str())
    }

    /// Puts a file into the folder that was entered, whose name is good, with the folders above it.
    pub(super) fn write(file: &SourceFile<'_>) -> Result<(), Errno> {
        if let Some((above, _)) = file.name.rsplit_once('/') {
            crate::file::make_dirs(above, 0o755)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&*file.name, flags, Mode::from_raw_mode(0o644))?;
        crate::file::write_all(opened.as_fd(), file.content.as_bytes())
    }

    /// Removes it with all that is in it, now or soon.
    pub(super) fn remove(self) {
        let mut left = REMOVED_AT_ONCE;
        let gone = remove::tree_at(rustix::fs::CWD, &self.path, &mut left).is_ok();
        if gone {
            return;
        }
        // The process is reaped like any other that nobody waits for. Without one the folder is removed here after all.
        match kernel::fork() {
            Ok(Some(_)) => {}
            Ok(None) => {
                kernel::close_from(3);
                remove_patiently(&self.path);
                kernel::exit(0);
            }
            Err(_) => {
                let _ = remove::tree_at(rustix::fs::CWD, &self.path, &mut usize::MAX.clone());
            }
        }
    }
}

/// Removes the work folders that agents before this one left, because they were killed: ours by their owner and name, and
/// of a process that is not there. One of our own number is of an earlier life, since this one has made none yet.
pub(super) fn sweep() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let is_gone = |pid: i32| pid == own || kernel::kill(pid, 0) == Err(Errno::SRCH);
    for name in crate::file::names(PLACE) {
        if !maker(&name).is_some_and(is_gone) {
            continue;
        }
        let path = alloc::format!("{PLACE}/{name}");
        let is_ours = rustix::fs::lstat(path.as_str()).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                && stat.st_uid == rustix::process::geteuid().as_raw()
        });
        if is_ours {
            Folder { path }.remove();
        }
    }
}

/// The process that made the work folder of that name, if it is one.
fn maker(name: &str) -> Option<i32> {
    let (pid, stamp) = name.strip_prefix("job-")?.split_once('-')?;
    let is_stamp = !stamp.is_empty() && stamp.bytes().all(|byte| byte.is_ascii_hexdigit());
    pid.parse().ok().filter(|pid| *pid > 0 && is_stamp)
}

fn remove_patiently(path: &str) {
    let deadline = Clock::Boottime.now_ns().saturating_add(PATIENCE_NS);
    while let Err(error) = remove::tree_at(rustix::fs::CWD, path, &mut usize::MAX.clone()) {
        if error == Errno::NOENT || Clock::Boottime.now_ns() > deadline {
            return;
        }
        kernel::sleep_ms(5);
    }
}
