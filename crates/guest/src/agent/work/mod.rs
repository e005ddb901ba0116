//! Work on files that may take long: a copy of the agent does it, so that the loop waits for no disk.
//!
//! The copy has nothing of the agent's but three pipes: standard input and output carry the bytes, and standard error its
//! one report, JSON: the result with exit code 0, else the error.

pub(super) mod get;
pub(super) mod names;
pub(super) mod owner;
pub(super) mod place;
pub(super) mod put;
pub(super) mod remove;

use firebrick_protocol::files::{Get, Put, Remove};
use firebrick_protocol::rpc::RpcError;
use rustix::io::Errno;
use serde::Serialize;

use crate::kernel;

/// What the copy is to do.
#[derive(Debug)]
pub(super) enum Work {
    Put(Put),
    Get(Get),
    Remove(Remove),
}

/// Which way bytes go in a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    None,
    In,
    Out,
    /// As they are, behind lines that say how many.
    OutRaw,
}

impl Work {
    /// Which way bytes go, and how.
    pub(super) fn direction(&self) -> Direction {
        match self {
            Work::Put(_) => Direction::In,
            Work::Get(Get { raw: true, .. }) => Direction::OutRaw,
            Work::Get(_) => Direction::Out,
            Work::Remove(_) => Direction::None,
        }
    }

    /// Does it, in the copy, and gives the exit code.
    pub(super) fn run(&self) -> i32 {
        match self {
            Work::Put(put) => report(put::run(put)),
            Work::Get(get) => report(get::run(get)),
            Work::Remove(remove) => report(remove_tree(remove)),
        }
    }
}

/// Tells the agent what came of it, and gives the exit code.
pub(super) fn report<T: Serialize>(outcome: Result<T, RpcError>) -> i32 {
    let (json, code) = match &outcome {
        Ok(result) => (serde_json::to_vec(result), 0),
        Err(error) => (serde_json::to_vec(error), 1),
    };
    let json = json.unwrap_or_default();
    let _ = crate::file::write_all(kernel::standard(2), &json);
    code
}

fn remove_tree(params: &Remove) -> Result<firebrick_protocol::agent::NoParams, RpcError> {
    let spot = place::find(&params.place, false)?;
    remove::tree_at(
        rustix::fd::AsFd::as_fd(&spot.folder),
        &*spot.name,
        &mut usize::MAX.clone(),
    )
    .map(|()| firebrick_protocol::agent::NoParams {})
    .map_err(|error: Errno| place::failed("remove", &params.place.path, error))
}
