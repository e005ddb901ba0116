//! What a user asks to be set in an image, beside the agent: names, accounts, files, consoles.
//!
//! Each setting is one typed value whose text was checked before it came here, and becomes files of the firebrick layer.
//! Files that the image has already are edited where they hold more than the setting (`/etc/passwd`, `/etc/inittab`), and
//! replaced where they hold nothing else (`/etc/hostname`). What is read of the image may be anything.

mod accounts;
mod console;
mod files;
mod names;
mod network;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

pub use accounts::{NewGroup, NewUser};
pub use files::{Content, NewFile, Owner};
pub use names::{AccountName, BadValue, Hostname, ModuleLine, PasswordHash, Tty};
pub use network::{Address, Interface};

use crate::image::Image;
use crate::init::Chosen;
use crate::plan::{CustomiseError, EntryKind, Planner};
use crate::service::AgentUser;
use crate::slim::Rule;

/// Everything that can be set. The default sets nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The machine's name: `/etc/hostname`, and a line of `/etc/hosts`.
    pub hostname: Option<Hostname>,
    /// Who answers questions about names: `/etc/resolv.conf`.
    pub dns: Option<Dns>,
    /// Kernel modules to load at boot: `/etc/modules-load.d/firebrick.conf`.
    pub modules: Vec<ModuleLine>,
    /// Terminals on which somebody can log in.
    pub consoles: Vec<Tty>,
    /// What `/etc/shadow` holds for root.
    pub root_password: Option<PasswordHash>,
    /// Groups to add.
    pub groups: Vec<NewGroup>,
    /// Users to add.
    pub users: Vec<NewUser>,
    /// The lines of `/etc/fstab`, whole.
    pub fstab: Vec<String>,
    /// Network interfaces, as Debian's and Alpine's `ifup` read them: `/etc/network/interfaces`.
    pub interfaces: Vec<Interface>,
    /// Files to put in; later ones lie over earlier ones.
    pub files: Vec<NewFile>,
    /// What to leave out of the image.
    pub slim: BTreeSet<Rule>,
}

/// Where `/etc/resolv.conf` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dns {
    /// A link to `/proc/net/pnp`: what the kernel was told with `ip=`.
    Pnp,
    /// These servers.
    Servers(Vec<IpAddr>),
}

/// Why a setting cannot be made in an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The image has something else where a file is to be edited.
    #[error("{path:?} is no regular file in the image, and its symbolic links lead to none")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// What the image holds cannot be read.
    #[error("cannot read {path:?} of the image: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the host or the image said.
        why: String,
    },
    /// A file that is edited is not there.
    #[error("the image has no {path:?}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The account database says otherwise.
    #[error("{what} in the image")]
    Taken {
        /// What stands there.
        what: String,
    },
    /// Somebody is named whom nobody knows.
    #[error("there is no {kind} {name:?} in the image, and none is added")]
    Unknown {
        /// User or group.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// No number is left.
    #[error("no {kind} number from 1000 to 59999 is free in the image")]
    NoNumber {
        /// User or group.
        kind: &'static str,
    },
    /// Under that init nobody can log in.
    #[error(
        "a console is for systemd, OpenRC and busybox, and in this image {instead}: choose another --init, or install one"
    )]
    NoConsole {
        /// What there is.
        instead: Chosen,
    },
    /// There is no program for it.
    #[error("the image has no {program}: install {package}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Where it is in distributions.
        package: &'static str,
    },
    /// A folder stands where a file is to be, or the other way round.
    #[error("{path:?} is {found} in the image, and {wanted} is to be there")]
    OtherKind {
        /// The path.
        path: PathBuf,
        /// What the image has.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// Gives the error the name of what was to be set.
fn setting<T>(what: impl Into<String>, result: Result<T, SettingError>) -> Result<T, CustomiseError> {
    result.map_err(|source| CustomiseError::Setting {
        what: what.into(),
        source,
    })
}

/// Adds all settings to a layer. Files come first, so that edits are made to them where they replace what is edited.
pub(crate) fn add<'a>(
    planner: &mut Planner<'a, '_>,
    settings: &'a Settings,
    service_user: Option<&AgentUser>,
    image: &Image<'_>,
    chosen: Chosen,
) -> Result<(), CustomiseError> {
    add_files(planner, settings, service_user, image)?;
    network::add(planner, settings, image, chosen)?;
    if !settings.modules.is_empty() {
        let lines: String = settings
            .modules
            .iter()
            .map(|module| format!("{module}\n"))
            .collect();
        planner.add(
            "etc/modules-load.d/firebrick.conf",
            0o644,
            EntryKind::File(lines.into_bytes().into()),
        )?;
    }
    if !settings.fstab.is_empty() {
        let text = settings.fstab.join("\n") + "\n";
        planner.add("etc/fstab", 0o644, EntryKind::File(text.into_bytes().into()))?;
    }
    console::add(planner, &settings.consoles, image, chosen)
}

/// Adds files, and accounts; whoever the agent is to become must be among them.
pub(crate) fn add_files<'a>(
    planner: &mut Planner<'a, '_>,
    settings: &'a Settings,
    service_user: Option<&AgentUser>,
    image: &Image<'_>,
) -> Result<(), CustomiseError> {
    // Owners are named by accounts, and accounts are in files that may be among those.
    let accounts = &mut accounts::Accounts::read(planner, image, settings, service_user.is_some())?;
    accounts.add(settings, planner.lower)?;
    if let Some(user) = service_user {
        setting("the agent's user", accounts.numbers(&user.owner()))?;
    }
    files::add(planner, &settings.files, image, accounts)?;
    accounts.write(planner)
}
