//! `firebrick completions`.

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::error::write_stdout;

/// Print a completion script for a shell
///
/// For bash: `firebrick completions bash > ~/.local/share/bash-completion/completions/firebrick`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new(); // the generator panics when a pipe closes
    clap_complete::generate(args.shell, &mut Cli::command(), "firebrick", &mut script);
    write_stdout(&script)
}
