//! How a pool gets its next machine: restored from a snapshot where the VMM has them, booted elsewhere.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::boot::{BootError, boot};
use crate::client::{CallError, Client};
use crate::deadline;
use crate::interrupts::Interrupts;
use crate::machine::{ControlError, LaunchError, Machine, Port, Snapshot, Vmm};
use crate::spec::BootSpec;

/// How long a restored guest may take to answer; it was up already.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long to wait before a guest that has cut a connection is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A machine that has answered, with a stream for who will use it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) machine: Box<dyn Machine>,
    /// On this one it answers to us.
    pub(super) client: Client,
    /// This one is passed on.
    pub(super) stream: OwnedFd,
}

/// Why there is no next machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    #[error("cannot boot a VM")]
    Boot(#[source] BootError),
    #[error("cannot restore a VM")]
    Restore(#[source] LaunchError),
    #[error("cannot make a snapshot")]
    Snapshot(#[source] ControlError),
    #[error("cannot reach the agent")]
    Dial(#[source] io::Error),
    #[error("cannot set the clock and the random numbers of a restored VM right")]
    Repair(#[source] CallError),
    #[error("cannot keep a snapshot")]
    Keep(#[source] io::Error),
}

/// What members are made from.
pub(super) struct Template<'a> {
    vmm: &'a dyn Vmm,
    spec: &'a BootSpec<'a>,
    /// Wakes the boots that are under way.
    interrupts: &'a Interrupts,
}

impl<'a> Template<'a> {
    pub(super) fn new(vmm: &'a dyn Vmm, spec: &'a BootSpec<'a>, interrupts: &'a Interrupts) -> Template<'a> {
        Template {
            vmm,
            spec,
            interrupts,
        }
    }

    /// Boots a member.
    pub(super) fn boot(&self) -> Result<Member, FillError> {
        let booted = boot(self.vmm, self.spec, Some(self.interrupts)).map_err(FillError::Boot)?;
        let (machine, client) = booted.into_parts();
        Member::of(machine, client)
    }

    /// Boots a machine and makes a snapshot of it in `folder`, which is made anew, for its owner only: a guest's memory is in it.
    pub(super) fn snapshot(&self, folder: &Path) -> Result<Snapshot, FillError> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(FillError::Keep(error)),
            _ => {}
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(FillError::Keep)?;
        let booted = boot(self.vmm, self.spec, Some(self.interrupts)).map_err(FillError::Boot)?;
        // No connection is kept in it: they would be dead in who is restored.
        let (machine, client) = booted.into_parts();
        drop(client);
        machine.pause().map_err(FillError::Snapshot)?;
        machine.snapshot(folder).map_err(FillError::Snapshot)
    }

    /// Restores a member, and sets right what it brings from the past.
    pub(super) fn restore(&self, snapshot: &Snapshot) -> Result<Member, FillError> {
        let machine = self.vmm.restore(snapshot).map_err(FillError::Restore)?;
        let mut client = reach(&*machine)?;
        repair(&mut client)?;
        Member::of(machine, client)
    }
}

/// A connection on which a restored guest has answered.
///
/// Its kernel hears only now that the connections of its past are gone, and may cut the first new ones with them.
fn reach(machine: &dyn Machine) -> Result<Client, FillError> {
    let deadline = deadline::after(ANSWER_LIMIT);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let stream = machine.dial(Port::AGENT, left).map_err(FillError::Dial)?;
        let mut client = Client::new(stream).map_err(FillError::Dial)?;
        match client.ping(left) {
            Ok(()) => return Ok(client),
            Err(CallError::Closed | CallError::Channel(_)) if Instant::now() < deadline => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => return Err(FillError::Repair(error)),
        }
    }
}

/// All members come from one moment: each gets the time of now, and random numbers that no other has.
fn repair(client: &mut Client) -> Result<(), FillError> {
    let mut seed = [0; 64];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| FillError::Keep(errno.into()))?;
    client.reseed(&seed, ANSWER_LIMIT).map_err(FillError::Repair)?;
    client
        .clock_sync(ANSWER_LIMIT)
        .map(drop)
        .map_err(FillError::Repair)
}

impl Member {
    fn of(machine: Box<dyn Machine>, client: Client) -> Result<Member, FillError> {
        let stream = machine.dial(Port::AGENT, ANSWER_LIMIT).map_err(FillError::Dial)?;
        Ok(Member {
            machine,
            client,
            stream,
        })
    }
}
