//! How much the agent holds for all its clients together, and what is done when that is too much.
//!
//! Counted is what waits: parts of messages, standard input, output that is kept, answers. While it is [`FULL_BYTES`] or more the
//! agent is *full*: what makes it hold [`FLOOR_BYTES`] or more is read no further, so that those who need little go on. The
//! *turn* is that of one message or job that is read all the same, so that long ones are taken one after another, the
//! latest and the oldest in turns. It ends when all has come, when nothing comes or when it takes too long; an output is then
//! cut, and a connection ended with a word. So are the largest holders when the agent stays full and no turn ends well. Nothing is
//! ever left out of what a client has sent: what is behind would be taken for something else.

use alloc::vec::Vec;

use firebrick_protocol::rpc::{BUSY, RpcError};

use super::Agent;
use super::conn::{Conn, Speech};
use super::framed::Exchange;
use super::job::Job;
use crate::kernel::Clock;

/// With so much waiting, the agent is full.
const FULL_BYTES: usize = 2 << 20;
/// With so much it is no longer.
const EASY_BYTES: usize = 3 << 19;

/// What a client may always make the agent hold, and an output of a job.
pub(super) const FLOOR_BYTES: usize = 4 * 1024;

/// Nobody's turn begins while more waits: what a turn has brought must go first.
const TURN_BYTES: usize = FULL_BYTES + (2 << 20);

/// How long a turn lasts at most, and how long when nothing comes, while others wait; where nobody does, it ends when nothing has
/// come for the longer of the two.
const TURN_NS: u64 = 10_000_000_000;
const TURN_REST_NS: u64 = 500_000_000;

/// Who sends nothing of an unfinished message for so long is ended when the agent is full and somebody waits.
const IDLE_NS: u64 = 2_000_000_000;

/// How long somebody waits for room, while no turn ends well, before somebody else loses something, and then how often.
const PATIENCE_NS: u64 = 5_000_000_000;
const EVERY_NS: u64 = 500_000_000;
/// How long somebody waits at most for those who take what is theirs.
const STRICT_NS: u64 = 60_000_000_000;

/// The jobs of all clients together.
pub(super) const MAX_JOBS_OF_ALL: usize = 512;

const TOO_MUCH: &str =
    "the agent holds too much for its clients: connect and send this again, or less at a time";

/// See the module.
#[derive(Default)]
pub(super) struct Budget {
    is_full: bool,
    turn: Option<Turn>,
    /// Whether the next turn is the oldest's.
    oldest_next: bool,
    /// When to look again who does not go on.
    look_at_ns: Option<u64>,
    /// From when on the largest holder loses what it holds.
    patient_until_ns: u64,
    /// From when on those lose it, too, who take a little now and then.
    strict_from_ns: u64,
}

/// Whose turn it can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Conn(u32),
    Job(u32),
}

impl Who {
    /// Connections and jobs are numbered together, in the order in which they came.
    fn number(self) -> u32 {
        match self {
            Who::Conn(number) | Who::Job(number) => number,
        }
    }
}

struct Turn {
    who: Who,
    /// What it held when that was last looked at, and when it had become more.
    bytes: usize,
    moved_ns: u64,
    ends_ns: u64,
}

/// Who can lose what.
#[derive(Clone, Copy)]
enum Holder {
    /// A connection all that it has; a batch half of an output.
    Conn(u32),
    /// A job half of an output.
    Output(u32, usize),
}

impl Agent {
    /// How much more may be read for what holds so much already.
    pub(super) fn room(&self, held_bytes: usize) -> usize {
        if self.budget.is_full {
            FLOOR_BYTES.saturating_sub(held_bytes)
        } else {
            usize::MAX
        }
    }

    fn is_turn_of(&self, who: Who) -> bool {
        self.budget.turn.as_ref().is_some_and(|turn| turn.who == who)
    }

    /// The same for a client's messages.
    pub(super) fn room_of_conn(&self, number: u32, held_bytes: usize) -> usize {
        if self.is_turn_of(Who::Conn(number)) {
            return usize::MAX;
        }
        self.room(held_bytes)
    }

    /// The same for a job's output.
    pub(super) fn room_of_job(&self, number: u32, held_bytes: usize) -> usize {
        if self.is_turn_of(Who::Job(number)) {
            return usize::MAX;
        }
        self.room(held_bytes)
    }

    /// When time alone changes something.
    pub(super) fn budget_deadline(&self) -> Option<u64> {
        let turn = self.budget.turn.as_ref().map(|turn| self.end_of(turn));
        turn.into_iter().chain(self.budget.look_at_ns).min()
    }

    /// When a turn is over at the latest: soon, where somebody else waits for it.
    fn end_of(&self, turn: &Turn) -> u64 {
        if self.somebody_waits(Some(turn.who)) {
            turn.ends_ns.min(turn.moved_ns.saturating_add(TURN_REST_NS))
        } else {
            turn.moved_ns.saturating_add(TURN_NS)
        }
    }

    /// Whether somebody, other than `who`, would go on if there were room.
    fn somebody_waits(&self, who: Option<Who>) -> bool {
        let mut conns = self.conns.iter();
        let mut jobs = self.jobs.iter();
        conns.any(|(number, conn)| who != Some(Who::Conn(*number)) && self.waits(conn))
            || jobs.any(|(number, job)| job.waits_for_room() && who != Some(Who::Job(*number)))
    }

    /// Whether there is more of its messages, which room alone keeps from being read.
    fn waits(&self, conn: &Conn) -> bool {
        conn.waits_for_room && !self.is_stalled(conn)
    }

    /// Finds out whether the agent is full, and does what follows from that.
    pub(super) fn weigh(&mut self) {
        let of_jobs: usize = self.jobs.values().map(Job::held_bytes).sum();
        let of_conns: usize = self.conns.values().map(Conn::held_bytes).sum();
        let held_bytes = of_jobs.saturating_add(of_conns);
        if held_bytes >= FULL_BYTES {
            if !self.budget.is_full {
                let now = Clock::Boottime.now_ns();
                self.budget.is_full = true;
                self.budget.look_at_ns = Some(now.saturating_add(EVERY_NS));
                self.budget.patient_until_ns = now.saturating_add(PATIENCE_NS);
                self.budget.strict_from_ns = now.saturating_add(STRICT_NS);
            }
        } else if held_bytes < EASY_BYTES && self.budget.is_full {
            let oldest_next = self.budget.oldest_next;
            self.budget = Budget {
                oldest_next,
                ..Budget::default()
            };
            self.go_on();
        }
        if self.budget.is_full {
            self.follow_turn();
            if self.budget.turn.is_none() && held_bytes < TURN_BYTES {
                self.give_turn();
            }
        }
    }

    /// Reads all again.
    fn go_on(&mut self) {
        for job in self.jobs.values_mut() {
            job.watch_kept(&self.poller);
        }
        for number in self.conns.keys().copied().collect::<Vec<_>>() {
            self.resume(number);
        }
    }

    /// Reads a connection again.
    fn resume(&mut self, number: u32) {
        if let Some(conn) = self.conns.get_mut(&number) {
            conn.waits_for_room = false;
        }
        self.touch(number);
    }

    /// What the one whose turn it is holds because of it; `None` when that has come to its end.
    fn bytes_of(&self, who: Who) -> Option<usize> {
        let bytes = match who {
            Who::Conn(number) => self.conns.get(&number)?.message_bytes(),
            Who::Job(number) => self.jobs.get(&number)?.held_bytes(),
        };
        Some(bytes).filter(|bytes| *bytes >= FLOOR_BYTES)
    }

    /// Notes what has come in this turn, or that it has ended well.
    fn follow_turn(&mut self) {
        let Some(who) = self.budget.turn.as_ref().map(|turn| turn.who) else {
            return;
        };
        let bytes = self.bytes_of(who);
        let now = Clock::Boottime.now_ns();
        match (bytes, &mut self.budget.turn) {
            (Some(bytes), Some(turn)) => {
                if bytes > turn.bytes {
                    turn.bytes = bytes;
                    turn.moved_ns = now;
                }
            }
            _ => {
                self.budget.turn = None;
                self.budget.patient_until_ns = now.saturating_add(PATIENCE_NS);
            }
        }
    }

    /// Lets one of those go on who wait for room.
    fn give_turn(&mut self) {
        let conns = self.conns.iter().filter(|(_, conn)| self.waits(conn));
        let jobs = self.jobs.iter().filter(|(_, job)| job.waits_for_room());
        let waiting = conns
            .map(|(number, _)| Who::Conn(*number))
            .chain(jobs.map(|(number, _)| Who::Job(*number)))
            .filter(|who| self.bytes_of(*who).is_some());
        let next = if self.budget.oldest_next {
            waiting.min_by_key(|who| who.number())
        } else {
            waiting.max_by_key(|who| who.number())
        };
        let Some(who) = next else { return };
        let now = Clock::Boottime.now_ns();
        self.budget.oldest_next = !self.budget.oldest_next;
        self.budget.turn = Some(Turn {
            who,
            bytes: self.bytes_of(who).unwrap_or(0),
            moved_ns: now,
            ends_ns: now.saturating_add(TURN_NS),
        });
        match who {
            Who::Conn(number) => self.resume(number),
            Who::Job(number) => {
                if let Some(job) = self.jobs.get_mut(&number) {
                    job.watch_kept(&self.poller);
                }
            }
        }
    }

    /// Ends a turn whose time is up, and takes back from those who do not go on.
    pub(super) fn relieve(&mut self) {
        if !self.budget.is_full {
            return;
        }
        let now = Clock::Boottime.now_ns();
        let is_over = self
            .budget
            .turn
            .as_ref()
            .is_some_and(|turn| now >= self.end_of(turn));
        if let Some(turn) = self.budget.turn.take_if(|_| is_over) {
            match turn.who {
                // It is not the client for whom a job must read first.
                Who::Conn(number) if self.is_stalled_conn(number) => {}
                Who::Conn(number) => self.refuse(number),
                Who::Job(number) => {
                    if let Some(job) = self.jobs.get_mut(&number) {
                        job.cut_output(0, FLOOR_BYTES, &self.poller);
                        job.cut_output(1, FLOOR_BYTES, &self.poller);
                    }
                }
            }
        }
        if self.budget.look_at_ns.take_if(|at_ns| *at_ns <= now).is_some() {
            self.budget.look_at_ns = Some(now.saturating_add(EVERY_NS));
            if self.somebody_waits(None) {
                self.refuse_idle(now);
            } else {
                // Nobody needs the room of those who have it: a batch, for example, has its inputs until it is done.
                self.budget.patient_until_ns = now.saturating_add(PATIENCE_NS);
                self.budget.strict_from_ns = now.saturating_add(STRICT_NS);
            }
            if now >= self.budget.patient_until_ns {
                self.take_back(now);
            }
        }
        self.weigh();
    }

    fn is_stalled_conn(&self, number: u32) -> bool {
        self.conns.get(&number).is_some_and(|conn| self.is_stalled(conn))
    }

    /// Ends those of whose unfinished messages nothing comes.
    fn refuse_idle(&mut self, now: u64) {
        let is_idle = |conn: &Conn| {
            conn.message_bytes() >= FLOOR_BYTES
                && !conn.waits_for_room
                && !self.is_stalled(conn)
                && now >= conn.read_at_ns.saturating_add(IDLE_NS)
        };
        let idle = self.conns.iter().filter(|(_, conn)| is_idle(conn));
        for number in idle.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.refuse(number);
        }
    }

    /// Ends a connection whose client still hears why. Its jobs end with it.
    fn refuse(&mut self, number: u32) {
        let Some(mut conn) = self.conns.remove(&number) else {
            return;
        };
        self.kill_jobs_of(&mut conn);
        if let Speech::Frame(_) = conn.speech {
            self.end_exchange(&mut conn);
            self.refuse_frame(&mut conn, TOO_MUCH);
        } else {
            conn.break_off(&RpcError::new(BUSY, TOO_MUCH));
        }
        self.settle(number, conn);
    }

    /// Takes from the largest holder that does not take what is its own.
    fn take_back(&mut self, now: u64) {
        let is_strict = now >= self.budget.strict_from_ns;
        let of_conn = |number: u32| {
            let conn = self.conns.get(&number)?;
            if !is_strict && now < conn.taken_at_ns.saturating_add(IDLE_NS) {
                return None;
            }
            let stdin = conn.jobs.iter().filter_map(|job| self.jobs.get(job));
            let stdin: usize = stdin.map(|job| job.stdin_bytes()).sum();
            // Unfinished messages have their turn, where it is the client who must go on.
            let waits = if self.is_stalled(conn) {
                0
            } else {
                conn.message_bytes()
            };
            let other = conn.held_bytes().saturating_sub(waits);
            Some((other.saturating_add(stdin), Holder::Conn(number)))
        };
        let conns = self.conns.keys().filter_map(|number| of_conn(*number));
        let outputs = self.jobs.iter().flat_map(|(number, job)| {
            let is_turn = self.is_turn_of(Who::Job(*number));
            let of_output = |which| {
                let bytes = if is_turn { 0 } else { job.kept_bytes(which) };
                (bytes, Holder::Output(*number, which))
            };
            [of_output(0), of_output(1)]
        });
        let largest = conns.chain(outputs).max_by_key(|(bytes, _)| *bytes);
        match largest {
            Some((FLOOR_BYTES.., Holder::Conn(number))) => {
                if let Some(conn) = self.conns.get_mut(&number)
                    && let Speech::Frame(Exchange::Running(run)) = &mut conn.speech
                    && run.output_bytes() >= FLOOR_BYTES
                {
                    run.cut_output();
                } else if self.conns.get(&number).is_some_and(|conn| conn.out.is_empty()) {
                    self.refuse(number);
                } else {
                    self.drop_conn(number);
                }
            }
            Some((FLOOR_BYTES.., Holder::Output(number, which))) => {
                if let Some(job) = self.jobs.get_mut(&number) {
                    job.cut_output(which, job.kept_bytes(which) / 2, &self.poller);
                }
            }
            _ => {}
        }
    }
}
