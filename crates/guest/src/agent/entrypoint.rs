//! The image's own program, started by PID 1 beside the agent: `firebrick.run=entrypoint`.
//!
//! It is no job: no client waits for it, its output goes to the console, and the machine ends with it.

use alloc::string::String;

use firebrick_protocol::agent::{JobOptions, Signal};
use rustix::fd::AsFd;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::{Agent, Ending, spawn};
use crate::errno::describe;
use crate::kernel::{self, Clock};
use crate::say;

impl Agent {
    /// Starts ENTRYPOINT and CMD as the image's user, in its folder, with its environment.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn start_entrypoint(&mut self) -> Result<(), String> {
        let options = JobOptions {
            image_defaults: true,
            ..JobOptions::default()
        };
        let command = self
            .argv_of(None, None, true)
            .and_then(|argv| self.command(argv, &options))
            .map_err(|error| error.message)?;
        self.wait_for_child();
        let forked = kernel::fork().map_err(|error| alloc::format!("cannot fork: {}", describe(error)))?;
        let Some(pid) = forked else {
            let standard = [0, 1, 2].map(kernel::standard);
            let failure = spawn::become_program(&command, standard.each_ref().map(AsFd::as_fd), false);
            say(format_args!("{}", failure.in_words(&command.asked())));
            kernel::exit(127);
        };
        self.entrypoint = Some(pid.as_raw_nonzero().get());
        Ok(())
    }

    /// A child has ended; if it was the entrypoint, so does the machine.
    pub(super) fn note_entrypoint_end(&mut self, pid: i32, status: WaitStatus) {
        if self.entrypoint.take_if(|entrypoint| *entrypoint == pid).is_some() {
            match (status.exit_status(), status.terminating_signal()) {
                (_, Some(signal)) => say(format_args!("the entrypoint was ended by signal {signal}")),
                (code, None) => say(format_args!(
                    "the entrypoint has ended with exit code {}",
                    code.unwrap_or(-1)
                )),
            }
            self.end(Ending::Entrypoint);
        }
    }

    /// Passes a signal on to the entrypoint; says whether there is one.
    pub(super) fn signal_entrypoint(&self, number: i32) -> bool {
        if let Some(pid) = self.entrypoint {
            let _ = kernel::kill(pid, number);
        }
        self.entrypoint.is_some()
    }

    /// Asks the entrypoint to end as its image wants to be asked, and waits for so long.
    pub(crate) fn stop_entrypoint(&mut self, grace_ms: u64) {
        const TERM: i32 = 15;
        let Some(pid) = self.entrypoint.take() else { return };
        let signal = Signal::named(&self.image.stop_signal).map_or(TERM, Signal::number);
        let _ = kernel::kill(pid, signal);
        let deadline = Clock::Boottime
            .now_ns()
            .saturating_add(grace_ms.saturating_mul(1_000_000));
        while let Ok(None) = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG) {
            if Clock::Boottime.now_ns() >= deadline {
                return;
            }
            kernel::sleep_ms(2);
        }
    }
}
