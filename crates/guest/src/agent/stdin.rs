//! Standard input of jobs: what clients send for it, until the program reads it.

use alloc::borrow::Cow;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::Agent;
use super::job::{Job, Purpose};
use super::work::put;
use crate::kernel::{self, Clock};

/// What ends a terminal's input when it is typed at the start of a line; elsewhere it only hands the line over.
const END_OF_TRANSMISSION: u8 = 4;

/// Behind these a terminal's line is empty.
const LINE_ENDS: [u8; 3] = [b'\n', b'\r', END_OF_TRANSMISSION];

impl Agent {
    /// Takes standard input for a job. What is owned is kept without a copy: it may be millions of bytes.
    pub(super) fn job_stdin(&mut self, number: u32, bytes: Cow<'_, [u8]>, ended: bool) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        if let (Some(stdin), false) = (&job.stdin, job.stdin_ended) {
            job.stdin_ended = ended;
            if let Some(last) = bytes.last() {
                job.is_within_line = !LINE_ENDS.contains(last);
            }
            // What goes at once needs no place to wait.
            let gone = if job.stdin_queue.is_empty() && !bytes.is_empty() {
                rustix::io::write(&stdin.fd, &bytes).unwrap_or(0)
            } else {
                0
            };
            match bytes {
                Cow::Borrowed(bytes) => job.stdin_queue.push(bytes.get(gone..).unwrap_or_default()),
                Cow::Owned(bytes) => {
                    job.stdin_queue.push_owned(bytes);
                    job.stdin_queue.consume(gone);
                }
            }
            if ended && job.has_pty {
                let typed = if job.is_within_line { 2 } else { 1 };
                job.stdin_queue.push(&[END_OF_TRANSMISSION; 2][..typed]);
            }
            self.write_stdin(number);
        }
    }

    pub(super) fn job_stdin_ready(&mut self, number: u32) {
        let was_much = self.jobs.get(&number).is_some_and(Job::has_much_stdin);
        self.write_stdin(number);
        if let Some(job) = self.jobs.get(&number)
            && was_much
            && !job.has_much_stdin()
        {
            self.touch(job.conn);
        }
    }

    fn write_stdin(&mut self, number: u32) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let Some(stdin) = &mut job.stdin else { return };
        while !job.stdin_queue.is_empty() {
            match rustix::io::write(&stdin.fd, job.stdin_queue.front()) {
                Ok(count) => {
                    job.stdin_queue.consume(count);
                    if let Some(conn) = self.conns.get_mut(&job.conn) {
                        conn.taken_at_ns = Clock::Boottime.now_ns();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    stdin.set(&self.poller, EventFlags::OUT);
                    return;
                }
                Err(_) => {
                    // It reads no more: what its client still sends is for nobody.
                    job.stdin_queue.clear();
                    job.stdin_ended = true;
                    job.stdin = None;
                    return;
                }
            }
        }
        stdin.set(&self.poller, EventFlags::empty());
        if job.stdin_ended {
            if let Purpose::Work { takes: true, .. } = job.purpose
                && job.status.is_none()
            {
                let _ = kernel::kill(job.pid, put::COMPLETE);
            }
            job.stdin = None;
        }
    }
}
