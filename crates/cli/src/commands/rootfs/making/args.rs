//! The flags of every command that makes an image.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use firebrick_customise::{AgentUser, Init, Profile, Service};

use super::filesystem_args::Filesystem;
use super::settings_args::SettingsArgs;
use crate::text;

// What the image is to be, whatever it is made from. (A doc comment would become the text of the command that takes it in.)
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Write the image to this file instead
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// Put this program in as the guest agent instead of firebrick's own, or "none"
    ///
    /// With "none" the image has no agent, and no init but its own: `firebrick run` and `boot` bring the guest of this
    /// machine along, but other VMMs find nobody to talk to.
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().map(Agent::of))]
    pub(crate) agent: Option<Agent>,

    #[command(flatten)]
    pub(crate) init: InitArgs,

    #[command(flatten)]
    pub(crate) filesystem: Filesystem,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Init")]
pub(crate) struct InitArgs {
    /// Who is /sbin/init in the image, and starts the agent
    ///
    /// What is named here is also what `firebrick run` and `boot` start; with "auto" they start the guest, which is faster.
    #[arg(long = "init", value_enum, value_name = "INIT", default_value_t = InitChoice::Auto)]
    pub(crate) choice: InitChoice,

    /// How much systemd is to boot
    #[arg(long, value_enum, value_name = "TARGET", default_value_t = InitTarget::Image, hide_short_help = true)]
    pub(crate) init_target: InitTarget,

    /// The user that the agent becomes under systemd, OpenRC or busybox [default: root]
    ///
    /// A name or number of the image, with :GROUP behind it if need be. Such an agent starts programs as itself only.
    #[arg(long, value_name = "USER")]
    pub(crate) agent_user: Option<AgentUser>,

    /// What the image is for: "containerd" wants a runc in it, and boots little else than the agent
    #[arg(long, value_enum, value_name = "PROFILE")]
    pub(crate) profile: Option<ProfileChoice>,

    /// A static runc to put at /usr/local/bin/runc
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) runc: Option<PathBuf>,

    /// Words for the guest that the image keeps, such as firebrick.cgroup=v1:cpu,memory,pids
    ///
    /// They count as if they stood before the words of the kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true, hide_short_help = true, value_parser = parse_words)]
    pub(crate) guest_options: Words,
}

impl InitArgs {
    pub(crate) fn service(&self) -> Service {
        Service {
            user: self.agent_user.clone(),
            minimal: self.init_target == InitTarget::Minimal,
        }
    }
}

/// Words that can stand on a kernel command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(pub(crate) Vec<String>);

fn parse_words(text: &str) -> Result<Words, String> {
    match text.chars().find(|c| c.is_control() || *c == '"') {
        Some(c) => Err(format!("{c:?} cannot stand on a kernel command line")),
        None => Ok(Words(text.split_whitespace().map(str::to_owned).collect())),
    }
}

/// Whose guest goes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agent {
    /// Nobody's.
    None,
    /// The one in this file.
    File(PathBuf),
}

impl Agent {
    fn of(value: OsString) -> Agent {
        match value == "none" {
            true => Agent::None,
            false => Agent::File(value.into()),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits on the layers together")]
pub(crate) struct Limits {
    /// Most entries, hidden ones and implied directories included
    #[arg(long, value_name = "N", default_value_t = firebrick_layer::Limits::default().entries, hide_short_help = true)]
    max_entries: u64,

    /// Most bytes after decompression, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "256G", value_parser = text::parse_size, hide_short_help = true)]
    max_size: u64,

    /// Most bytes that one compressed byte may become
    #[arg(long, value_name = "N", default_value_t = firebrick_layer::Limits::default().ratio, hide_short_help = true)]
    max_ratio: u64,
}

impl Limits {
    pub(crate) fn to_layer(&self) -> firebrick_layer::Limits {
        firebrick_layer::Limits {
            entries: self.max_entries,
            unpacked_bytes: self.max_size,
            ratio: self.max_ratio,
            metadata_bytes: self
                .max_entries
                .saturating_mul(128)
                .max(firebrick_layer::Limits::default().metadata_bytes),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitChoice {
    /// The image's systemd or OpenRC; the guest if it has neither
    Auto,
    /// The guest
    Firebrick,
    /// systemd, with the agent as a unit
    Systemd,
    /// The init that starts OpenRC in the image, with the agent as a supervised service
    Openrc,
    /// busybox init, with an inittab of ours
    Busybox,
    /// What the image has, even if that is nothing; nobody starts the agent
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitTarget {
    /// What the image boots to, and the agent with it
    Image,
    /// The agent, and what it cannot do without
    Minimal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileChoice {
    /// Containers inside the VM
    Containerd,
}

impl From<ProfileChoice> for Profile {
    fn from(choice: ProfileChoice) -> Profile {
        match choice {
            ProfileChoice::Containerd => Profile::Containerd,
        }
    }
}

impl From<InitChoice> for Init {
    fn from(choice: InitChoice) -> Init {
        match choice {
            InitChoice::Auto => Init::Auto,
            InitChoice::Firebrick => Init::Firebrick,
            InitChoice::Systemd => Init::Systemd,
            InitChoice::Openrc => Init::OpenRc,
            InitChoice::Busybox => Init::Busybox,
            InitChoice::None => Init::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_default_to_those_of_the_library() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            limits: Limits,
        }
        let command: Command = clap::Parser::parse_from(["x"]);
        assert_eq!(command.limits.to_layer(), firebrick_layer::Limits::default());
    }
}
