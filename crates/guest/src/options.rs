//! The program's own command line.

use alloc::string::{String, ToString};
use core::ffi::CStr;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: firebrick-guest --agent [--tcp ADDRESS:PORT] [--serial PATH] [--vsock-port N]
       firebrick-guest --init | --stage1

As PID 1 without arguments it is the init of the image, or of firebrick's initramfs.

  --agent            serve the agent as an ordinary process; without a choice below, on vsock port 52
  --tcp ADDRESS:PORT on TCP; port 0 takes a free one and prints it
  --serial PATH      through the mux on this character device
  --vsock-port N     on this vsock port
  --init             be the init of the image
  --stage1           be the init of the initramfs
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
}

/// Where an agent listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentOptions {
    /// `ADDRESS:PORT`.
    pub tcp: Option<String>,
    /// A character device that speaks the mux.
    pub serial: Option<String>,
    /// A vsock port.
    pub vsock_port: Option<u32>,
}

impl Mode {
    /// Reads the command line, the program's name first.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(arguments: &[&CStr]) -> Result<Mode, String> {
        let is_pid1 = rustix::process::getpid().is_init();
        // The kernel hands unknown words of its command line to init as arguments: they are not ours.
        if is_pid1
            && !arguments
                .iter()
                .any(|argument| argument.to_bytes().starts_with(b"--"))
        {
            let in_initramfs = crate::file::exists(crate::stage1::MODULE_LIST);
            return Ok(if in_initramfs { Mode::Stage1 } else { Mode::Init });
        }
        let mut mode = None;
        let mut agent = AgentOptions::default();
        let mut words = arguments
            .iter()
            .skip(1)
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
                "--init" => mode = Some(Mode::Init),
                "--stage1" => mode = Some(Mode::Stage1),
                "--help" | "-h" => return Ok(Mode::Help),
                "--tcp" => agent.tcp = Some(value()?),
                "--serial" => agent.serial = Some(value()?),
                "--vsock-port" => {
                    let text = value()?;
                    agent.vsock_port = Some(text.parse().map_err(|_| alloc::format!("{text:?} is no port"))?);
                }
                _ => return Err(alloc::format!("unknown argument {word:?}")),
            }
        }
        match mode {
            Some(Mode::Agent(_)) => Ok(Mode::Agent(agent)),
            Some(mode) if agent == AgentOptions::default() => Ok(mode),
            Some(_) => Err("--tcp, --serial and --vsock-port go with --agent".into()),
            None => Err("one of --agent, --init and --stage1 is needed".into()),
        }
    }
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
        };
        assert_eq!(agent, Ok(Mode::Agent(expected)));
        assert_eq!(Mode::parse(&[c"g", c"--init"]), Ok(Mode::Init));
        for wrong in [
            &[c"g"][..],
            &[c"g", c"--agent", c"--tcp"],
            &[c"g", c"--init", c"--tcp", c"x"],
            &[c"g", c"x"],
        ] {
            assert!(Mode::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
