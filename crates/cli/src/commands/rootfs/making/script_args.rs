//! The flags of the script that runs in the image, and what they ask for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use firebrick_sandbox::{Limits, MadeLayer, Run, Step};
use firebrick_source::{ImageConfig, OciImage};
use firebrick_tree::Timestamp;

use crate::home::Home;
use crate::steps::{self, Running};
use crate::talk::{Steps, Talk};
use crate::text;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What runs in the image")]
pub(crate) struct Script {
    /// Run this script in the image, as its root
    ///
    /// It runs before the agent is added, in a sandbox, without root on this machine, and what it changes becomes a layer.
    /// Without "#!" it is /bin/sh that reads it and ends at the first error. The same script over the same image is not
    /// run again.
    #[arg(long = "script", visible_alias = "post-install", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) steps: StepArgs,
}

// What everything may do that runs in an image while it is made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What runs in the image")]
pub(crate) struct StepArgs {
    /// Let what runs in the image use this machine's network
    #[arg(long)]
    pub(crate) network: bool,

    /// End it after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, hide_short_help = true)]
    step_timeout: u64,

    /// Most memory of all its processes, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = text::parse_size, hide_short_help = true)]
    step_memory: u64,

    /// Most processes
    #[arg(long, value_name = "N", default_value_t = 2048, hide_short_help = true)]
    step_processes: u64,

    /// Most bytes of disk that it takes, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = text::parse_size, hide_short_help = true)]
    step_disk: u64,
}

impl StepArgs {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            time: Duration::from_secs(self.step_timeout),
            memory_bytes: self.step_memory,
            processes: self.step_processes,
            disk_bytes: self.step_disk,
        }
    }
}

/// A script, read.
#[derive(Debug)]
pub(crate) struct Read {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Read {
    /// Reads a script.
    pub(crate) fn of(file: &Path) -> anyhow::Result<Read> {
        Ok(Read {
            bytes: steps::read_script(file)?,
            file: file.to_owned(),
        })
    }

    /// Runs it over an image, as the second step of what is shown, and adds its layer.
    pub(crate) fn run(
        &self,
        network: bool,
        running: &Running<'_>,
        image: &mut OciImage,
        home: &Home,
        talk: Talk,
        shown: &Steps,
    ) -> anyhow::Result<Vec<MadeLayer>> {
        shown.begin(2, &format!("Running {}", self.file.display()));
        steps::say_limits(home, shown);
        let running = Running {
            steps: &[self.step(&image.config, running.created, network)],
            ..*running
        };
        steps::run(&running, image, home, talk, shown)
    }

    fn step(&self, config: &ImageConfig, created: Timestamp, network: bool) -> Step {
        Step {
            name: format!("the script {}", self.file.display()),
            run: Run::Script(self.bytes.clone()),
            env: steps::environment(&config.env, created),
            network_env: steps::network_environment(),
            user: String::new(),
            workdir: String::new(),
            network,
            time: None,
        }
    }
}

impl Script {
    /// Reads the script, if there is one.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Read>> {
        ensure!(
            self.file.is_some() || !self.steps.network,
            "--network is for a script: name one with --script FILE"
        );
        self.file.as_deref().map(Read::of).transpose()
    }
}
