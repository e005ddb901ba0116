//! Boots an image: launches the machine of a [`BootSpec`] and waits until its agent answers.

use std::time::{Duration, Instant};

use crate::client::{CallError, Client};
use crate::deadline;
use crate::interrupts::Interrupts;
use crate::kernel::KernelError;
use crate::last_words;
use crate::machine::{Exit, LaunchError, Machine, Port, Vmm};
use crate::spec::BootSpec;

/// How long a single attempt to reach the agent may take before the machine is looked at again.
const ATTEMPT: Duration = Duration::from_millis(200);

/// A machine whose agent has answered.
pub struct Booted {
    machine: Box<dyn Machine>,
    /// The connection on which it answered.
    pub client: Client,
    /// From the start of the VMM to the agent's answer.
    pub took: Duration,
}

impl std::fmt::Debug for Booted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Booted")
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

impl Booted {
    /// The machine.
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// One more connection to the agent.
    ///
    /// # Errors
    /// As [`Machine::dial`].
    pub fn connect(&self, limit: Duration) -> std::io::Result<Client> {
        Client::new(self.machine.dial(Port::AGENT, limit)?)
    }

    /// Gives up the parts.
    pub fn into_parts(self) -> (Box<dyn Machine>, Client) {
        (self.machine, self.client)
    }
}

/// Why a guest did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// A part of the kernel cannot be read.
    #[error("cannot make the initramfs")]
    Initramfs(#[source] KernelError),
    /// The command line would be cut or misread.
    #[error("{what} {text:?} cannot stand on a kernel command line")]
    CommandLine {
        /// Which part.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The VMM does not start.
    #[error("cannot launch the machine")]
    Launch(#[source] LaunchError),
    /// No answer in time.
    #[error("the guest did not answer within {} s; {}", limit.as_secs_f32(), last_words::of(console, complaints))]
    NoAnswer {
        /// How long it had.
        limit: Duration,
        /// The newest bytes of its console.
        console: Vec<u8>,
        /// What the VMM complained about.
        complaints: String,
    },
    /// The machine ended before it answered.
    #[error(
        "the machine ended before its agent answered; {}",
        last_words::of(console, complaints)
    )]
    Ended {
        /// How the VMM ended.
        exit: Option<Exit>,
        /// The newest bytes of its console.
        console: Vec<u8>,
        /// What the VMM complained about.
        complaints: String,
    },
    /// A signal came before the guest was up.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// What answers is no agent that we know.
    #[error("what answered is not firebrick's agent")]
    Agent(#[source] CallError),
}

/// Boots an image and waits for its agent.
///
/// With `interrupts`, a signal ends the wait and the machine.
///
/// # Errors
/// [`BootError`]; the machine is gone then.
pub fn boot(
    vmm: &dyn Vmm,
    spec: &BootSpec<'_>,
    interrupts: Option<&Interrupts>,
) -> Result<Booted, BootError> {
    let machine_spec = spec.machine(&vmm.facts())?;
    let started = Instant::now();
    let deadline = deadline::after(spec.answer_limit);
    let machine = vmm.launch(&machine_spec).map_err(BootError::Launch)?;
    loop {
        if let Some(signal) = interrupts.and_then(Interrupts::take) {
            return Err(BootError::Interrupted { signal });
        }
        match attempt(&*machine, deadline)? {
            Some(client) => {
                return Ok(Booted {
                    machine,
                    client,
                    took: started.elapsed(),
                });
            }
            None if machine.wait(Duration::ZERO).is_ok_and(|exit| exit.is_some()) => {
                let exit = machine.wait(Duration::ZERO).ok().flatten();
                // The last words are still on their way through the collecting threads.
                std::thread::sleep(Duration::from_millis(50));
                let (console, complaints) = (machine.console(), machine.complaints());
                return Err(BootError::Ended {
                    exit,
                    console,
                    complaints,
                });
            }
            None if Instant::now() >= deadline => {
                let (console, complaints) = (machine.console(), machine.complaints());
                return Err(BootError::NoAnswer {
                    limit: spec.answer_limit,
                    console,
                    complaints,
                });
            }
            None => {}
        }
    }
}

/// Tries to reach the agent for a moment. Only its answer counts: that a stream opens is no sign of readiness.
pub(crate) fn attempt(machine: &dyn Machine, deadline: Instant) -> Result<Option<Client>, BootError> {
    let Ok(stream) = machine.dial(Port::AGENT, ATTEMPT) else {
        // When the machine has ended every dial fails at once, perhaps before its process is reaped.
        let _ = machine.wait(Duration::from_millis(5));
        return Ok(None);
    };
    let Ok(mut client) = Client::new(stream) else {
        return Ok(None);
    };
    let left = deadline
        .saturating_duration_since(Instant::now())
        .min(Duration::from_secs(10));
    match client.ping(left) {
        Ok(()) => Ok(Some(client)),
        Err(CallError::TimedOut { .. } | CallError::Closed | CallError::Channel(_)) => Ok(None),
        Err(error) => Err(BootError::Agent(error)),
    }
}
