//! A VM of a pool instead of a boot.

use std::time::Duration;

use anyhow::Context as _;
use firebrick_vmm::client::Client;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::pool::{self, Lease, PoolFiles, Taking};
use firebrick_vmm::{JobSpec, RunError, RunOutcome, Streams};

use super::args::{Args, PoolUse};
use crate::error::CliError;
use crate::home::Home;
use crate::images;
use crate::talk::Talk;
use crate::trust::Admitted;

/// A VM that is up.
pub(super) struct Warm {
    client: Client,
    lease: Lease,
}

/// What came of looking for one.
pub(super) enum Found {
    Vm(Warm),
    /// One is to be booted.
    Nothing,
    /// A signal ended the wait.
    Interrupted {
        signal: i32,
    },
}

/// A VM of the image's pool, if there is one that will do.
pub(super) fn take(
    args: &Args,
    home: &Home,
    image: &Admitted,
    interrupts: &Interrupts,
    talk: &Talk,
) -> anyhow::Result<Found> {
    let Some(pool_use) = args.pool() else {
        return Ok(Found::Nothing);
    };
    let files = PoolFiles::of(home.run(), images::name_of(&image.path));
    let wait = match pool_use {
        PoolUse::May => Duration::ZERO,
        PoolUse::Must => args.boot_timeout(),
    };
    let asking = || format!("cannot ask the pool {:?}", files.name());
    let wish = args.machine.wish(home, image, wait).with_context(asking)?;
    let reason = match pool::take(&files, wish, Some(interrupts)) {
        Ok(Taking::Taken(mut lease)) => {
            let agent = lease.agent().context("the pool gave no VM")?;
            talk.detail(&format!("a VM of the pool {}", files.name()));
            let client = Client::new(agent).context("cannot use the VM of the pool")?;
            return Ok(Found::Vm(Warm { client, lease }));
        }
        Ok(Taking::Interrupted { signal }) => return Ok(Found::Interrupted { signal }),
        Ok(Taking::NoPool) if pool_use == PoolUse::Must => {
            let name = files.name().to_owned();
            return Err(CliError::NoPool { name }.into());
        }
        Ok(Taking::NoPool) => return Ok(Found::Nothing),
        Ok(Taking::Empty) => "none is warm".to_owned(),
        Ok(Taking::Refused(reason)) => reason,
        Err(error) if pool_use == PoolUse::Must => return Err(error).with_context(asking),
        Err(error) => error.to_string(),
    };
    if pool_use == PoolUse::Must {
        return Err(CliError::NotFromPool { reason }.into());
    }
    talk.detail(&format!("no VM of the pool {}: {reason}", files.name()));
    Ok(Found::Nothing)
}

impl Warm {
    pub(super) fn run(self, job: &JobSpec, streams: Streams<'_>) -> Result<RunOutcome, RunError> {
        let mut lease = self.lease;
        firebrick_vmm::run_in(&mut lease, self.client, job, streams)
    }
}
