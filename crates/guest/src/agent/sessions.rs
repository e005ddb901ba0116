//! Ending all that a job has started: its session, which outlives its first process and has any number of process groups where
//! a shell does job control, and whatever descends from it, in sessions of their own or not.
//!
//! A copy of the agent looks through `/proc` for that, stops it, and kills it, until nothing is left. What has left the session *and* is nobody's
//! child any more, a daemon, is not found, and lives on.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rustix::fd::RawFd;

use crate::kernel::{self, Clock};

/// Nanoseconds of the unit in which `/proc` tells when a process started.
const TICK_NS: u64 = 10_000_000;

/// How long the copy goes on at most.
const PATIENCE_NS: u64 = 5_000_000_000;

/// How long the agent itself does where no copy can be made. It could start nothing else meanwhile.
const OWN_PATIENCE_NS: u64 = 1_000_000_000;

/// How long what is to be ended may go on once it was told to stop.
const HALT_NS: u64 = 2_000_000_000;

const KILL: i32 = 9;
const STOP: i32 = 19;

/// A session that a job has started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// The number of its first process.
    pub(super) leader: i32,
    /// When that was there already (CLOCK_BOOTTIME).
    pub(super) since_ns: u64,
}

/// A process as `/proc` has it.
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    is_dead: bool,
    is_stopped: bool,
    started_ticks: u64,
}

/// Kills these sessions with all that descends from them, soon. Until then our ends of their pipes and terminals, whose numbers
/// rise, are not all closed, though the caller closes his: who ended with that would leave others behind as nobody's children.
pub(super) fn end(sessions: &[Session], ends: &[RawFd]) {
    if sessions.is_empty() {
        return;
    }
    let agent = rustix::process::getpid().as_raw_nonzero().get();
    // The process is reaped like any other that nobody waits for.
    match kernel::fork() {
        Ok(Some(_)) => {}
        Ok(None) => {
            kernel::close_from_but(3, ends);
            sweep(sessions, agent, PATIENCE_NS);
            kernel::exit(0);
        }
        // Perhaps because of the very processes that are to end: one look at them is not enough, they start others meanwhile.
        Err(_) => sweep(sessions, agent, OWN_PATIENCE_NS),
    }
}

fn sweep(sessions: &[Session], agent: i32, patience_ns: u64) {
    let deadline = Clock::Boottime.now_ns().saturating_add(patience_ns);
    while end_members(sessions, agent, deadline) && Clock::Boottime.now_ns() < deadline {
        kernel::sleep_ms(2);
    }
}

/// Kills all that is there; tells whether there was something.
fn end_members(sessions: &[Session], agent: i32, deadline: u64) -> bool {
    let halt_until = Clock::Boottime.now_ns().saturating_add(HALT_NS);
    let members = halt_members(sessions, agent, halt_until.min(deadline));
    signal_members(&members, KILL);
    !members.alive.is_empty()
}

/// Stops all that is there, so that nobody starts another who would be nobody's child once he is killed: until all stand still,
/// or too long.
fn halt_members(sessions: &[Session], agent: i32, deadline: u64) -> Members {
    let mut still = Vec::new();
    loop {
        let members = members(sessions, agent);
        // A look takes its time: whoever stood still at the last one has started nobody since.
        let stood_still = |pid: &i32| still.binary_search(pid).is_ok();
        if members.alive.iter().all(stood_still) || Clock::Boottime.now_ns() > deadline {
            return members;
        }
        signal_members(&members, STOP);
        still = members.still;
    }
}

/// Signals the groups in one stroke, and whoever is in none of them.
fn signal_members(members: &Members, signal: i32) {
    for leader in &members.leaders {
        let _ = kernel::kill(leader.wrapping_neg(), signal);
    }
    for pid in &members.alive {
        let _ = kernel::kill(*pid, signal);
    }
}

/// What there is of sessions now.
struct Members {
    /// The first process of each session that has any.
    leaders: Vec<i32>,
    /// All that have not ended.
    alive: Vec<i32>,
    /// Those of them that are stopped, in order.
    still: Vec<i32>,
}

fn members(sessions: &[Session], agent: i32) -> Members {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let processes = processes();
    // A session's number is given out again once it is empty: then its leader is a younger one.
    let is_ours = |session: &&Session| {
        let mut all = processes.iter();
        let leader = all.find(|process| process.pid == session.leader);
        leader.is_none_or(|leader| leader.started_ticks <= session.since_ns / TICK_NS)
    };
    let mut leaders: Vec<i32> = sessions
        .iter()
        .filter(is_ours)
        .map(|session| session.leader)
        .collect();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for process in &processes {
            let belongs = leaders.contains(&process.session)
                || leaders.contains(&process.pid)
                || found.contains(&process.parent);
            if belongs && ![1, agent, own].contains(&process.pid) {
                found.insert(process.pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    leaders.retain(|leader| processes.iter().any(|process| process.session == *leader));
    let (mut alive, mut still) = (Vec::new(), Vec::new());
    for process in &processes {
        if !process.is_dead && found.contains(&process.pid) {
            alive.push(process.pid);
            if process.is_stopped {
                still.push(process.pid);
            }
        }
    }
    still.sort_unstable();
    Members {
        leaders,
        alive,
        still,
    }
}

/// Whether a child of this process is in that session. Where the kernel does not list children, there may be.
pub(super) fn has_orphans(session: Session) -> bool {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let path = alloc::format!("/proc/self/task/{pid}/children");
    if !crate::file::exists(&path) {
        return true;
    }
    let children = crate::file::text(&path);
    let mut children = children
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children.any(|pid| process(pid).is_some_and(|child| child.session == session.leader && !child.is_dead))
}

fn processes() -> Vec<Process> {
    let names = crate::file::names("/proc");
    let pids = names.iter().filter_map(|name| name.parse().ok());
    pids.filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    parse(pid, &crate::file::text(&alloc::format!("/proc/{pid}/stat")))
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    // The name before may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    Some(Process {
        pid,
        parent: number(1)?,
        session: number(3)?,
        is_dead: matches!(fields.first(), Some(&("Z" | "X"))),
        is_stopped: matches!(fields.first(), Some(&("T" | "t"))),
        started_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn processes_are_read() {
        let stat = "7 (a) Z (b)) S 5 6 4 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 1234 5 6";
        let process = super::parse(7, stat).expect("a process");
        assert_eq!(
            (process.parent, process.session, process.started_ticks),
            (5, 4, 1234)
        );
        assert!(!process.is_dead && !process.is_stopped);
        let stopped = super::parse(7, &stat.replace(") S ", ") T ")).expect("a process");
        assert!(stopped.is_stopped);
        assert!(super::parse(7, "7 (x) Z 5 6 4").is_none());
    }
}
