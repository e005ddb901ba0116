//! A job whose input and output flow while it runs.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use firebrick_protocol::agent::{
    Data, Exec, ExecCode, ExecResult, JobOptions, MAX_DATA_BYTES, Output, OutputStream, Resize, Signal,
    SignalJob, Stdin, TerminalSize, method,
};
use firebrick_protocol::rpc::{Id, Incoming, notification_line};
use rustix::io::Errno;

use super::{CallError, Client, response};
use crate::deadline;
use crate::interrupts::Interrupts;

/// How much input may wait to be sent before more is read.
const INPUT_AHEAD_BYTES: usize = 256 << 10;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A program.
    Exec(Exec),
    /// A snippet of code.
    Code(ExecCode),
}

impl Command {
    fn options(&mut self) -> &mut JobOptions {
        match self {
            Command::Exec(exec) => &mut exec.options,
            Command::Code(code) => &mut code.options,
        }
    }
}

/// Where a job's bytes come from and go to.
pub struct StreamIo<'a> {
    /// Its input: read until its end, as the job takes it. `None` gives it an empty one.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Where its output goes. While a write blocks, the job waits.
    pub stdout: &'a mut dyn Write,
    /// Where its errors go.
    pub stderr: &'a mut dyn Write,
    /// Signals to pass on to the job.
    pub interrupts: Option<&'a Interrupts>,
    /// How long a job may go on after a signal was passed on. A second signal ends the patience at once.
    pub patience: Duration,
    /// How long the whole may take.
    pub limit: Option<Duration>,
    /// The terminal that the job's own is to be like: it gets one, of this one's size, and what it prints all goes to `stdout`.
    pub terminal: Option<BorrowedFd<'a>>,
}

/// How often the size of a terminal is looked at.
const RESIZE_EVERY: Duration = Duration::from_millis(250);

/// A size that suits any program, for a terminal that does not tell its own.
const USUAL_SIZE: TerminalSize = TerminalSize { rows: 24, cols: 80 };

fn size_of(terminal: BorrowedFd<'_>) -> TerminalSize {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => TerminalSize {
            rows: size.ws_row,
            cols: size.ws_col,
        },
        _ => USUAL_SIZE,
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The agent's word on it.
    Result(ExecResult),
    /// A signal was passed on, and the job did not end by itself in time.
    Interrupted {
        /// The last signal's number.
        signal: i32,
    },
    /// [`StreamIo::limit`] came first.
    TimedOut,
}

impl Client {
    /// Runs a job, with its input and output flowing while it runs.
    ///
    /// After anything but [`Ended::Result`] the connection is of no further use.
    ///
    /// # Errors
    /// [`CallError`]; that the job failed is none.
    pub fn stream(&mut self, mut command: Command, io: StreamIo<'_>) -> Result<Ended, CallError> {
        let options = command.options();
        options.stream = true;
        options.stdin = io.stdin.is_some();
        let size = io.terminal.map(size_of);
        options.pty = size;
        let (method, id) = match command {
            Command::Exec(exec) => (method::EXEC, self.request(method::EXEC, exec)),
            Command::Code(code) => (method::EXEC_CODE, self.request(method::EXEC_CODE, code)),
        };
        let deadline = io.limit.map(deadline::after);
        let mut job = Running {
            client: self,
            id,
            method,
            io,
            deadline,
            interrupted: None,
            size,
        };
        loop {
            if let Some(ended) = job.turn()? {
                return Ok(ended);
            }
        }
    }
}

struct Running<'a, 'io> {
    client: &'a mut Client,
    id: Id,
    method: &'static str,
    io: StreamIo<'io>,
    deadline: Option<Instant>,
    /// The last signal that was passed on, and when patience with the job ends.
    interrupted: Option<(i32, Instant)>,
    /// The size that the job's terminal has.
    size: Option<TerminalSize>,
}

impl Running<'_, '_> {
    fn turn(&mut self) -> Result<Option<Ended>, CallError> {
        while let Some(incoming) = self.client.channel.next_message()? {
            if let Some(result) = self.take(incoming)? {
                return Ok(Some(Ended::Result(result)));
            }
        }
        let now = Instant::now();
        if let Some((signal, patience)) = self.interrupted
            && now >= patience
        {
            return Ok(Some(Ended::Interrupted { signal }));
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(Some(Ended::TimedOut));
        }
        self.wait()
    }

    fn wait(&mut self) -> Result<Option<Ended>, CallError> {
        self.follow_size();
        let patience = self.interrupted.map(|(_, until)| until);
        let look = self.io.terminal.map(|_| Instant::now() + RESIZE_EVERY);
        let deadline = self.deadline.into_iter().chain(patience).chain(look).min();
        let stdin = self
            .io
            .stdin
            .filter(|_| self.client.channel.queued_bytes() < INPUT_AHEAD_BYTES);
        let interrupts = self.io.interrupts;
        let mut others: Vec<BorrowedFd<'_>> = Vec::new();
        others.extend(interrupts.map(AsFd::as_fd));
        others.extend(stdin);
        let ready = self.client.channel.wait(&others, deadline)?;
        let mut ready = ready.into_iter();
        if let Some(interrupts) = interrupts
            && ready.next() == Some(true)
        {
            while let Some(signal) = interrupts.take() {
                if self.interrupted.is_some() {
                    return Ok(Some(Ended::Interrupted { signal }));
                }
                self.pass_on(signal);
            }
        }
        if let Some(stdin) = stdin
            && ready.next() == Some(true)
        {
            self.feed(stdin)?;
        }
        Ok(None)
    }

    /// Tells the job when our terminal has another size.
    fn follow_size(&mut self) {
        let Some(terminal) = self.io.terminal else { return };
        let size = size_of(terminal);
        if self.size == Some(size) {
            return;
        }
        self.size = Some(size);
        let params = Resize {
            id: self.id.clone(),
            rows: size.rows,
            cols: size.cols,
        };
        self.client
            .channel
            .queue(&notification_line(method::RESIZE, params));
    }

    fn pass_on(&mut self, number: i32) {
        self.interrupted = Some((number, deadline::after(self.io.patience)));
        if let Some(signal) = Signal::new(number) {
            let params = SignalJob {
                id: self.id.clone(),
                signal,
            };
            self.client
                .channel
                .queue(&notification_line(method::SIGNAL, params));
        }
    }

    fn feed(&mut self, stdin: BorrowedFd<'_>) -> Result<(), CallError> {
        let mut bytes = vec![0; MAX_DATA_BYTES];
        match rustix::io::read(stdin, &mut *bytes) {
            Ok(count) => {
                bytes.truncate(count);
                let eof = count == 0;
                let params = Stdin {
                    id: self.id.clone(),
                    data: Data(bytes),
                    raw: None,
                    eof,
                };
                self.client
                    .channel
                    .queue(&notification_line(method::STDIN, params));
                if eof {
                    self.io.stdin = None;
                }
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(CallError::Input(errno.into())),
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<Option<ExecResult>, CallError> {
        match incoming {
            Incoming::Notification { method: name, params } if name == method::OUTPUT => {
                let output: Output = params.read().map_err(CallError::Protocol)?;
                if output.id == self.id {
                    self.write(output.stream, &output.data.0)?;
                }
                Ok(None)
            }
            incoming => match response(incoming, &self.id, self.method)? {
                Some(payload) => payload.read().map(Some).map_err(CallError::Protocol),
                None => Ok(None),
            },
        }
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<(), CallError> {
        let writer: &mut dyn Write = match stream {
            OutputStream::Stdout => &mut *self.io.stdout,
            OutputStream::Stderr => &mut *self.io.stderr,
        };
        // Flushed at once: what a job prints should be seen when it prints it.
        let written: io::Result<()> = writer.write_all(bytes).and_then(|()| writer.flush());
        written.map_err(|source| CallError::Output { stream, source })
    }
}
