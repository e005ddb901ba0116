//! The flags of the script that runs in the image, and what they ask for.

use std::path::PathBuf;
use std::time::Duration;

use firebrick_sandbox::{Limits, Run, Step};
use firebrick_source::ImageConfig;
use firebrick_tree::Timestamp;

use crate::{steps, text};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Script")]
pub(crate) struct Script {
    /// Run this script in the image, as its root
    ///
    /// It runs before the agent is added, in a sandbox, without root on this machine, and what it changes becomes a layer. Without "#!" it is
    /// /bin/sh that reads it and ends at the first error. The same script over the same image is not run again.
    #[arg(long = "script", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Let the script use this machine's network
    #[arg(long, requires = "file")]
    pub(crate) network: bool,

    /// End the script after so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        requires = "file",
        hide_short_help = true
    )]
    script_timeout: u64,

    /// Most memory of the script's processes, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = text::parse_size, requires = "file", hide_short_help = true)]
    script_memory: u64,

    /// Most processes of the script
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2048,
        requires = "file",
        hide_short_help = true
    )]
    script_processes: u64,

    /// Most bytes of disk that the script takes, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = text::parse_size, requires = "file", hide_short_help = true)]
    script_disk: u64,
}

/// A script, read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) file: PathBuf,
    bytes: Vec<u8>,
}

impl Script {
    /// Reads the script, if there is one.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Read>> {
        let read = |file: &PathBuf| {
            Ok(Read {
                bytes: steps::read_script(file)?,
                file: file.clone(),
            })
        };
        self.file.as_ref().map(read).transpose()
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            time: Duration::from_secs(self.script_timeout),
            memory_bytes: self.script_memory,
            processes: self.script_processes,
            disk_bytes: self.script_disk,
        }
    }

    pub(crate) fn step(&self, script: &Read, config: &ImageConfig, created: Timestamp) -> Step {
        Step {
            name: format!("the script {}", script.file.display()),
            run: Run::Script(script.bytes.clone()),
            env: steps::environment(&config.env, created),
            network_env: steps::network_environment(),
            user: String::new(),
            workdir: String::new(),
            network: self.network,
        }
    }
}
