//! The flags that set things in an image: names, consoles, a password, and what to leave out.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, ensure};
use firebrick_customise::{Dns, Hostname, ModuleLine, PasswordHash, Rule, Settings, Tty, sha512_crypt};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Settings of the image")]
pub(crate) struct SettingsArgs {
    /// The machine's name, in /etc/hostname and /etc/hosts
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) hostname: Option<Hostname>,

    /// Name servers, with commas between, or "pnp" for those that the kernel is told with ip=
    #[arg(long, value_name = "ADDRESSES", hide_short_help = true)]
    pub(crate) dns: Option<Dns>,

    /// Let people log in on this terminal, e.g. ttyS0
    ///
    /// For systemd, OpenRC and busybox. Without --root-password nobody has a password to log in with.
    #[arg(long, value_name = "TTY", hide_short_help = true)]
    pub(crate) console: Vec<Tty>,

    /// Give root a password: its hash as `openssl passwd -6` prints it, or "ask" to type one
    ///
    /// "ask" reads a line of stdin where that is no terminal. There is no default: without this flag root's password is as in
    /// the image, mostly locked.
    #[arg(long, value_name = "HASH|ask", hide_short_help = true)]
    pub(crate) root_password: Option<RootPassword>,

    /// Have this kernel module loaded at boot
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) module: Vec<ModuleLine>,

    /// Leave out what is not needed to run: docs,man,info,locale,cache,logs,tmp,pyc, or "all"
    ///
    /// Package databases stay valid, licences stay. A table says what each saved.
    #[arg(long, value_name = "RULES", value_parser = parse_rules)]
    pub(crate) slim: Option<Rules>,

    /// Say what slimming saved as one line of JSON
    #[arg(long, hide_short_help = true, requires = "slim")]
    pub(crate) slim_json: bool,
}

/// Rules, as one value of a flag.
#[derive(Debug, Clone)]
pub(crate) struct Rules(pub(crate) BTreeSet<Rule>);

pub(crate) fn parse_rules(text: &str) -> Result<Rules, firebrick_customise::UnknownRule> {
    Rule::parse_list(text).map(Rules)
}

/// How root's password is given.
#[derive(Debug, Clone)]
pub(crate) enum RootPassword {
    /// It is typed.
    Ask,
    /// As a hash.
    Hash(PasswordHash),
}

impl std::str::FromStr for RootPassword {
    type Err = firebrick_customise::BadValue;

    fn from_str(text: &str) -> Result<RootPassword, Self::Err> {
        match text {
            "ask" => Ok(RootPassword::Ask),
            hash => hash.parse().map(RootPassword::Hash),
        }
    }
}

impl RootPassword {
    /// The hash; asks for the password if need be.
    pub(crate) fn to_hash(&self) -> anyhow::Result<PasswordHash> {
        match self {
            RootPassword::Ask => ask(),
            RootPassword::Hash(hash) => Ok(hash.clone()),
        }
    }
}

impl SettingsArgs {
    /// The settings; asks for a password where one is to be typed.
    pub(crate) fn to_settings(&self) -> anyhow::Result<Settings> {
        let root_password = self
            .root_password
            .as_ref()
            .map(RootPassword::to_hash)
            .transpose()?;
        Ok(Settings {
            hostname: self.hostname.clone(),
            dns: self.dns.clone(),
            consoles: self.console.clone(),
            modules: self.module.clone(),
            root_password,
            slim: self.slim.clone().map(|rules| rules.0).unwrap_or_default(),
            ..Settings::default()
        })
    }
}

/// Longest password that is read, in bytes.
const PASSWORD_LEN_MAX: u64 = 512;

/// Asks for a password on the terminal, or takes the first line of stdin, and hashes it.
pub(crate) fn ask() -> anyhow::Result<PasswordHash> {
    let stdin = std::io::stdin();
    let typed = stdin.is_terminal();
    let password = match typed {
        true => {
            let first = typed_line("root's password in the image: ")?;
            ensure!(
                first == typed_line("again: ")?,
                "the two passwords are not the same"
            );
            first
        }
        false => {
            let mut line = String::new();
            stdin
                .lock()
                .take(PASSWORD_LEN_MAX)
                .read_line(&mut line)
                .context("cannot read a password from stdin")?;
            line
        }
    };
    let password = password.trim_end_matches(['\n', '\r']);
    ensure!(
        !password.is_empty(),
        "root's password is empty: leave --root-password out to have none"
    );
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("cannot read /dev/urandom for the salt")?;
    Ok(sha512_crypt(password.as_bytes(), random))
}

/// A line from the terminal, without showing it.
fn typed_line(prompt: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let _ = write!(std::io::stderr(), "{prompt}"); // a closed stderr is no reason to stop
    let shown = rustix::termios::tcgetattr(&stdin).context("cannot ask the terminal")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
    let now = rustix::termios::OptionalActions::Now;
    rustix::termios::tcsetattr(&stdin, now, &hidden).context("cannot stop the terminal's echo")?;
    let mut line = String::new();
    let read = stdin.lock().take(PASSWORD_LEN_MAX).read_line(&mut line);
    rustix::termios::tcsetattr(&stdin, now, &shown).context("cannot start the terminal's echo again")?;
    let _ = writeln!(std::io::stderr());
    read.context("cannot read a password from the terminal")?;
    Ok(line)
}
