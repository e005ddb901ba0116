//! The program's own command line.

use alloc::string::{String, ToString};
use core::ffi::CStr;

use firebrick_protocol::{AGENT_PORT, JOB_PORT};

/// What `--help` prints.
pub const USAGE: &str = "\
usage: firebrick-guest --agent [--everywhere] [--tcp ADDRESS:PORT] [--serial PATH] [--vsock-port N] [--job-port N]
                       [--user USER] [--closing-seconds N]
       firebrick guest [--port N] [--tcp ADDRESS:PORT] [--serial PATH] [--user USER]
       firebrick-guest --init | --stage1 | --overlay | --set-up

As PID 1 without arguments it is the init of the image, or of firebrick's initramfs; under the name overlay-init it
lays the writable layer and becomes /sbin/init.

  --agent            serve the agent as an ordinary process; without a choice below, on vsock ports 52 and 5000
  --tcp ADDRESS:PORT both protocols on TCP; port 0 takes a free one and prints it
  --serial PATH      both protocols through the mux on this character device
  --vsock-port N     JSON-RPC on this vsock port
  --job-port N       framed jobs on this vsock port
  --everywhere       on all that the machine has: vsock, virtio-serial, and firebrick.tcp= of the kernel command line
  --user USER        become this user (name or number, maybe :GROUP) once it listens
  --closing-seconds N  give up a client that is leaving and takes nothing for so long (30)
  guest              the same as --agent --vsock-port 52 --job-port 5000, unless --tcp or --serial is given
  --port N           framed jobs on this vsock port
  --set-up           mount, name and connect the machine as --init would, and end; for another init to call first

Only as PID 1, since they take the machine over:
  --init             be the init of the image
  --stage1           be the init of the initramfs
  --overlay          lay the writable layer over a read-only root, then become /sbin/init
";

/// What the program is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Print the usage.
    Help,
    /// An ordinary process.
    Agent(AgentOptions),
    /// PID 1 of the image.
    Init,
    /// PID 1 of the initramfs.
    Stage1,
    /// What PID 1 does first, for another PID 1.
    SetUp,
    /// PID 1 of a read-only image, before its own init.
    Overlay,
}

/// Where an agent listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentOptions {
    /// `ADDRESS:PORT`.
    pub tcp: Option<String>,
    /// A character device that speaks the mux.
    pub serial: Option<String>,
    /// A vsock port for JSON-RPC.
    pub vsock_port: Option<u32>,
    /// A vsock port for framed jobs.
    pub job_port: Option<u32>,
    /// On all that the machine has.
    pub everywhere: bool,
    /// Who to be once it listens.
    pub user: Option<String>,
    /// How long a client that is leaving may take nothing of what it is owed, in seconds.
    pub closing_s: Option<u32>,
}

impl AgentOptions {
    /// Whether a vsock port is named.
    pub fn names_vsock(&self) -> bool {
        self.vsock_port.is_some() || self.job_port.is_some()
    }

    /// As `guest --port N` has it: both protocols on vsock, the jobs' port as told, unless only another way is named.
    fn of_guest(mut self) -> AgentOptions {
        if self.job_port.is_some() || (self.tcp.is_none() && self.serial.is_none() && !self.everywhere) {
            self.vsock_port = self.vsock_port.or(Some(AGENT_PORT));
            self.job_port = self.job_port.or(Some(JOB_PORT));
        }
        self
    }
}

impl Mode {
    /// Reads the command line, the program's name first.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(arguments: &[&CStr]) -> Result<Mode, String> {
        let is_pid1 = rustix::process::getpid().is_init();
        Mode::parse_as(is_pid1, is_pid1 && crate::stage1::is_in_initramfs(), arguments)
    }

    fn parse_as(is_pid1: bool, is_in_initramfs: bool, arguments: &[&CStr]) -> Result<Mode, String> {
        let name = arguments.first().map(|name| name.to_bytes()).unwrap_or_default();
        if is_pid1 && name.rsplit(|byte| *byte == b'/').next() == Some(b"overlay-init") {
            return Ok(Mode::Overlay);
        }
        // The kernel hands unknown words of its command line to init as arguments: they are not ours, unless they say what to be.
        let modes = [c"--overlay", c"--init", c"--stage1"];
        let chosen = modes.iter().find(|mode| arguments.contains(mode));
        if let Some(mode) = chosen {
            // Elsewhere they would do it to the machine of whoever tries them: mount over its folders, end its processes,
            // delete what is on its root.
            return match mode.to_bytes() {
                _ if !is_pid1 => Err(alloc::format!(
                    "{} is for PID 1 of a VM alone; --agent serves from an ordinary process",
                    mode.to_string_lossy()
                )),
                b"--overlay" => Ok(Mode::Overlay),
                b"--init" => Ok(Mode::Init),
                _ => Ok(Mode::Stage1),
            };
        }
        if is_pid1 && !arguments.contains(&c"--agent") {
            return Ok(if is_in_initramfs { Mode::Stage1 } else { Mode::Init });
        }
        let mut mode = None;
        let mut agent = AgentOptions::default();
        let is_guest = arguments.get(1).is_some_and(|word| *word == c"guest");
        if is_guest {
            mode = Some(Mode::Agent(AgentOptions::default()));
        }
        let mut words = arguments
            .iter()
            .skip(if is_guest { 2 } else { 1 })
            .map(|argument| argument.to_string_lossy());
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .map(|value| value.to_string())
                    .ok_or(alloc::format!("{word} needs a value"))
            };
            match &*word {
                "--agent" => mode = Some(Mode::Agent(AgentOptions::default())),
                "--set-up" => mode = Some(Mode::SetUp),
                "--everywhere" => agent.everywhere = true,
                "--user" => agent.user = Some(value()?),
                "--help" | "-h" => return Ok(Mode::Help),
                "--tcp" => agent.tcp = Some(value()?),
                "--serial" => agent.serial = Some(value()?),
                "--closing-seconds" => agent.closing_s = Some(number(&value()?)?),
                "--vsock-port" => agent.vsock_port = Some(port(&value()?)?),
                "--job-port" => agent.job_port = Some(port(&value()?)?),
                "--port" if is_guest => agent.job_port = Some(port(&value()?)?),
                _ => return Err(alloc::format!("unknown argument {word:?}")),
            }
        }
        match mode {
            Some(Mode::Agent(_)) if is_guest => Ok(Mode::Agent(agent.of_guest())),
            Some(Mode::Agent(_)) => Ok(Mode::Agent(agent)),
            Some(mode) if agent == AgentOptions::default() => Ok(mode),
            Some(_) => Err("ways to listen and --user go with --agent".into()),
            None => Err("--agent or --set-up is needed".into()),
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| alloc::format!("{text:?} is no number"))
}

fn port(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| alloc::format!("{text:?} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let agent = Mode::parse(&[c"g", c"--tcp", c"127.0.0.1:0", c"--agent", c"--vsock-port", c"9"]);
        let expected = AgentOptions {
            tcp: Some("127.0.0.1:0".into()),
            serial: None,
            vsock_port: Some(9),
            ..AgentOptions::default()
        };
        assert_eq!(agent, Ok(Mode::Agent(expected)));
        assert_eq!(Mode::parse(&[c"g", c"--set-up"]), Ok(Mode::SetUp));
        let service = Mode::parse(&[c"g", c"--agent", c"--everywhere", c"--user", c"nex"]);
        let expected = AgentOptions {
            everywhere: true,
            user: Some("nex".into()),
            ..AgentOptions::default()
        };
        assert_eq!(service, Ok(Mode::Agent(expected)));
        for wrong in [
            &[c"g"][..],
            &[c"g", c"--agent", c"--tcp"],
            &[c"g", c"--set-up", c"--tcp", c"x"],
            &[c"g", c"x"],
        ] {
            assert!(Mode::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_pid_1_takes_the_machine_over() {
        for (word, mode) in [
            (c"--init", Mode::Init),
            (c"--stage1", Mode::Stage1),
            (c"--overlay", Mode::Overlay),
        ] {
            assert_eq!(Mode::parse_as(true, false, &[c"g", word]), Ok(mode));
            for arguments in [&[c"g", word][..], &[c"firebrick", c"guest", word]] {
                let refused = Mode::parse_as(false, false, arguments);
                assert!(
                    refused.is_err_and(|why| why.contains("is for PID 1 of a VM")),
                    "{word:?}"
                );
            }
        }
        assert_eq!(
            Mode::parse_as(true, false, &[c"/sbin/overlay-init"]),
            Ok(Mode::Overlay)
        );
        assert!(Mode::parse_as(false, false, &[c"/sbin/overlay-init"]).is_err());
        // Whatever the kernel hands on: words that it does not know.
        assert_eq!(
            Mode::parse_as(true, false, &[c"/sbin/init", c"splash"]),
            Ok(Mode::Init)
        );
        assert_eq!(
            Mode::parse_as(true, true, &[c"/init", c"splash"]),
            Ok(Mode::Stage1)
        );
    }

    #[test]
    fn the_seeds_form() {
        let guest = |words: &[&CStr]| match Mode::parse(&[&[c"firebrick", c"guest"], words].concat()) {
            Ok(Mode::Agent(options)) => (options.tcp, options.vsock_port, options.job_port),
            other => panic!("{other:?}"),
        };
        assert_eq!(guest(&[c"--port", c"5000"]), (None, Some(52), Some(5000)));
        assert_eq!(guest(&[]), (None, Some(52), Some(5000)));
        assert_eq!(guest(&[c"--port", c"6000"]), (None, Some(52), Some(6000)));
        let tcp = Some(String::from("127.0.0.1:0"));
        assert_eq!(guest(&[c"--tcp", c"127.0.0.1:0"]), (tcp.clone(), None, None));
        assert_eq!(
            guest(&[c"--port", c"5000", c"--tcp", c"127.0.0.1:0"]),
            (tcp, Some(52), Some(5000))
        );
        for wrong in [
            &[c"g", c"guest", c"--port"][..],
            &[c"g", c"guest", c"--port", c"x"],
            &[c"g", c"--agent", c"--port", c"1"],
        ] {
            assert!(Mode::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
