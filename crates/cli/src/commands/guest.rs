//! `firebrick guest`: becomes the guest that firebrick carries.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::guest;

/// Serve the guest agent here, as inside a VM: `firebrick guest --port 5000`
///
/// This process becomes the guest's program, which takes these flags:
///
///   --port N            framed jobs on this vsock port (5000), with JSON-RPC on port 52
///   --tcp ADDRESS:PORT  both protocols on TCP; port 0 takes a free one and prints it
///   --serial PATH       both protocols through the mux on this character device
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, verbatim_doc_comment)]
pub(crate) struct Args {
    /// Flags of the guest
    #[arg(value_name = "FLAGS", trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // It has no name, and is gone with the process.
    let program =
        memfd_create("firebrick-guest", MemfdFlags::CLOEXEC).context("cannot keep the guest in memory")?;
    let mut program = File::from(program);
    program
        .write_all(guest::BYTES)
        .context("cannot keep the guest in memory")?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let error = Command::new(path)
        .arg0("firebrick")
        .arg("guest")
        .args(&args.flags)
        .exec();
    Err(error).context("cannot start the guest")
}
