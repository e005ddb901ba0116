//! The `firebrick` command: arguments, progress, output and exit codes. Everything else is in the libraries.
//!
//! Data goes to stdout, talk (steps, progress, errors) to stderr. Exit codes: 0 done, 1 failed, 2 bad usage;
//! `run` passes the program's status on and says 124 for a time-out and 125 for failures of our own.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod doctor;
mod downloads;
mod edited;
mod elf;
mod error;
mod fit;
mod guest;
mod hints;
mod home;
mod host;
mod image_file;
mod images;
mod interrupt;
mod language;
mod lazy;
mod proxy;
mod rebuilt;
mod recipes;
mod remote;
mod steps;
mod survey;
mod talk;
mod text;
mod timeline;
mod trust;
mod volume;
mod whole;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before there are other threads: this process may be the keeper of a sandbox.
    firebrick_sandbox::child_main();
    firebrick_sandbox::keep_inherited_files();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors to clap, with exit code 0 and stdout as their place.
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            // A closed pipe must not change the exit code.
            return match error.print().map_err(error::stdout_error) {
                Err(unprinted) if !error.use_stderr() && !error::is_closed_stdout(&unprinted) => {
                    error::print(&unprinted);
                    ExitCode::FAILURE
                }
                _ => code,
            };
        }
    };
    let talk = talk::Talk::new(cli.verbose, cli.quiet);
    let failed = cli.command.exit_code_of_failure();
    let result = commands::run(cli.command, &talk);
    match result {
        Ok(code) => code,
        Err(error) if error::is_closed_stdout(&error) => ExitCode::SUCCESS,
        Err(error) => {
            error::print(&error);
            ExitCode::from(failed)
        }
    }
}
