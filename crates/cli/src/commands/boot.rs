//! `firebrick boot`.

mod console;
mod escape;
mod kept_initramfs;
mod print_config;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::{BootSpec, Drive, Exit, Machine, Timeline};

use crate::commands::run::MachineArgs;
use crate::error::CliError;
use crate::home::Home;
use crate::host::Parts;
use crate::talk::Talk;
use crate::trust::Admitted;
use crate::{images, interrupt, timeline};
use console::End;

/// Who boots an image as it is may wait for a prompt that never comes.
const NO_LOGIN: &str =
    "there is no login on this console unless the image has one; for a shell: --init /bin/sh";

/// The longest path of a Unix socket is 107 bytes, and beside the one asked for another is made, with this at its end.
const SOCKET_PATH_MAX: usize = 107 - ".control".len();

/// Boot an image with its console on this terminal
///
/// The image is not changed. The VM ends when it powers itself off, and on Ctrl-A x, which is told when it starts; where stdin is
/// no terminal, on Ctrl-C. There is no login on the console unless
/// the image has one; with --init /bin/sh it is a shell, if the image has that.
///
/// Exit codes: 0 if the machine powered off or was restarted; 1 if its kernel panicked, its init could not start, or the
/// VMM failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    image: OsString,

    /// The program in the image that becomes PID 1 [default: the firebrick guest]
    #[arg(long, value_name = "PATH", value_parser = parse_word)]
    init: Option<String>,

    /// A Unix socket to make, which leads to the guest's vsock as Firecracker's does: CONNECT 52 reaches the agent
    ///
    /// Needs vhost-device-vsock. The socket is removed when the VM ends.
    #[arg(long, value_name = "SOCKET")]
    vsock: Option<PathBuf>,

    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    append: String,

    /// Another disk: /dev/vdb and so on in the VM; it is not written unless :rw is said
    #[arg(long, value_name = "PATH[:ro|:rw]", value_parser = OsStringValueParser::new().map(drive))]
    drive: Vec<Drive>,

    /// How the image is attached: read-only, so that many VMs share it, with what they write kept in memory
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    share: Share,

    /// Print what firecracker --config-file takes, and start nothing
    ///
    /// It can be used as it stands: its initramfs is written to the state folder.
    #[arg(long, conflicts_with = "jailer")]
    print_config: bool,

    #[command(flatten)]
    machine: MachineArgs,
}

/// How VMs share an image. There is one way yet.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Share {
    /// Nobody writes it
    #[default]
    Ro,
}

/// A drive of the command line. Only these two endings are ours: a file's name may have colons.
fn drive(text: OsString) -> Drive {
    let bytes = text.as_bytes();
    let (path, read_only) = match (bytes.strip_suffix(b":rw"), bytes.strip_suffix(b":ro")) {
        (Some(path), _) => (path, false),
        (None, Some(path)) => (path, true),
        (None, None) => (bytes, true),
    };
    Drive {
        path: OsStr::from_bytes(path).into(),
        read_only,
    }
}

/// A path that can stand on a kernel command line.
fn parse_word(text: &str) -> Result<String, String> {
    let fits =
        text.starts_with('/') && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path without blanks and quotes".to_owned())
    }
}

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<ExitCode> {
    if let Some(socket) = &args.vsock {
        check_socket(socket)?;
    }
    let interrupts = Interrupts::catch().context("cannot listen for signals")?;
    let home = Home::of_process()?;
    let image = Admitted::open(&home, images::find(&home, &args.image)?)?;
    let Share::Ro = args.share;
    timeline::must_have_a_place(args.machine.timeline.as_deref())?;
    if args.print_config {
        let parts = args.machine.parts(&home, &image, args.init.as_deref())?;
        print_config::run(&home, &args.spec(&image, &parts)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let host = args.machine.host(&home, talk, &image, args.init.as_deref())?;
    let title = timeline::title(&image.path, &host);
    let spec = args.spec(&image, &host.parts)?;
    let facts = host.vmm.facts();
    let machine_spec = spec.machine(&facts)?;
    let launched = Instant::now();
    let machine = host
        .vmm
        .launch(&machine_spec)
        .context("cannot launch the machine")?;
    let end = timed(args, talk, &*machine, launched, &title, || {
        let more = args.init.is_none().then_some(NO_LOGIN);
        console::attach(&*machine, &interrupts, talk, more, facts.exit)
    })?;
    let (console, complaints) = (machine.console(), machine.complaints());
    drop(machine);
    match end {
        End::Interrupted { signal } => {
            interrupt::die_by(signal);
            Ok(ExitCode::SUCCESS)
        }
        End::Unread | End::Escaped => Ok(ExitCode::SUCCESS),
        End::Machine(exit) => {
            judge(exit, &console, &complaints)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Does the work, and meanwhile draws how the boot went, if that is asked for.
fn timed<T>(
    args: &Args,
    talk: &Talk,
    machine: &dyn Machine,
    launched: Instant,
    title: &str,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(path) = &args.machine.timeline else {
        return work();
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| match Timeline::of_machine(machine, launched, &stop) {
            Some(boot) => timeline::write(path, &boot, title),
            None => {
                talk.warn("there is no timeline: the machine ended before an agent answered");
                Ok(())
            }
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        match drawing.join() {
            Ok(drawn) => done.and_then(|done| drawn.map(|()| done)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Args {
    fn spec<'a>(&self, image: &Admitted, parts: &'a Parts) -> Result<BootSpec<'a>, CliError> {
        Ok(BootSpec {
            drives: self.drive.clone(),
            init: self.init.clone(),
            vsock_socket: self.vsock.clone(),
            all_modules: true, // a person at a console may want more than an agent needs
            append: self.append.clone(),
            filesystem: image.filesystem.name().to_owned(),
            ..self.machine.spec(image.path.clone(), parts)?
        })
    }
}

/// The device that makes the socket would only say that it ended.
fn check_socket(socket: &Path) -> Result<(), CliError> {
    // A VMM may be given it so.
    let absolute = std::path::absolute(socket);
    let len = absolute.as_deref().unwrap_or(socket).as_os_str().len();
    if len > SOCKET_PATH_MAX {
        return Err(CliError::SocketPath {
            len,
            limit: SOCKET_PATH_MAX,
        });
    }
    let folder = socket.parent().unwrap_or(socket);
    if folder == Path::new("") || folder.is_dir() {
        return Ok(());
    }
    Err(CliError::SocketFolder {
        folder: folder.to_owned(),
    })
}

/// QEMU ends in the same way after a power-off and after a panic: the console tells them apart.
fn judge(exit: Exit, console: &[u8], complaints: &str) -> Result<(), CliError> {
    if let Some(words) = firebrick_vmm::bad_end(console) {
        return Err(CliError::BadEnd { words });
    }
    if exit.code != Some(0) {
        return Err(CliError::VmmEnded {
            how: match (exit.code, exit.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "an unknown status".to_owned(),
            },
            complaints: complaints.trim().to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sockets_path_is_measured_from_the_root() {
        let name = "s".repeat(SOCKET_PATH_MAX - 10);
        assert!(matches!(
            check_socket(Path::new(&name)), // the tests run in a folder whose path is longer than that
            Err(CliError::SocketPath { len, .. }) if len > SOCKET_PATH_MAX
        ));
        assert!(check_socket(&Path::new("/tmp").join(&name[5..])).is_ok());
    }

    #[test]
    fn only_an_orderly_end_is_success() {
        let ended = |code, signal, console: &str| {
            let judged = judge(Exit { code, signal }, console.as_bytes(), "no kernel\n");
            judged.err().map(|error| error.to_string())
        };
        assert_eq!(ended(Some(0), None, "[    2.0] reboot: Power down\n"), None);
        assert_eq!(
            ended(Some(0), None, "[    2.0] Kernel panic - not syncing: x\n").unwrap(),
            "the VM did not end in order: Kernel panic - not syncing: x"
        );
        assert_eq!(
            ended(Some(1), None, "").unwrap(),
            "the VM did not end in order: the VMM ended with exit code 1: no kernel"
        );
        assert_eq!(
            ended(None, Some(9), "").unwrap(),
            "the VM did not end in order: the VMM ended with signal 9: no kernel"
        );
    }
}
