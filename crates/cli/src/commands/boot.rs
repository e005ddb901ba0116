//! `firebrick boot`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::{Drive, Machine, MachineSpec, Network, Vmm as _, initramfs};

use crate::commands::run::MachineArgs;
use crate::home::Home;
use crate::host::Host;
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::{guest, interrupt};

/// How long the end of the console may take to arrive once the machine has ended.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Boot an image with its console on this terminal
///
/// The image is not changed. The VM ends when it powers itself off, and on Ctrl-C. With --init /bin/sh the console is a
/// shell, if the image has one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    image: OsString,

    /// The program in the image that becomes PID 1 [default: the firebrick guest]
    #[arg(long, value_name = "PATH", value_parser = parse_word)]
    init: Option<String>,

    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    append: String,

    #[command(flatten)]
    machine: MachineArgs,
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
    let interrupts = Interrupts::catch().context("cannot listen for signals")?;
    let home = Home::of_process()?;
    let image = ImageFile::open(&home, &args.image)?.path;
    let host = Host::ready(&home, talk)?;
    let init = args
        .init
        .as_ref()
        .map(|path| format!(" init={path}"))
        .unwrap_or_default();
    let spec = MachineSpec {
        kernel: host.kernel.path(),
        initramfs: Some(initramfs::assemble(&host.kernel, guest::BYTES)?),
        append: format!(
            "root=/dev/vda rootfstype=ext4 ro overlay_root=ram overlay_size={}M firebrick.exit=poweroff{init} {}",
            args.machine.overlay_mib(),
            args.append
        ),
        drives: vec![Drive {
            path: image,
            read_only: true,
        }],
        memory_mib: args.machine.memory_mib(),
        vcpus: args.machine.vcpus,
        network: if args.machine.net {
            Network::User
        } else {
            Network::None
        },
        vsock: host.kernel.has_vsock(),
    };
    let machine = host.qemu.launch(&spec).context("cannot launch the machine")?;
    talk.say("Ctrl-C ends the VM");
    let signal = attach(&*machine, &interrupts)?;
    drop(machine);
    if let Some(signal) = signal {
        interrupt::die_by(signal);
    }
    Ok(ExitCode::SUCCESS)
}

/// Joins the console to stdin and stdout until the machine ends or a signal comes, which is returned.
fn attach(machine: &dyn Machine, interrupts: &Interrupts) -> anyhow::Result<Option<i32>> {
    let console = machine.attach_console().context("cannot attach to the console")?;
    let cut = console.try_clone().context("cannot attach to the console")?;
    let typed = File::from(console.try_clone().context("cannot attach to the console")?);
    std::thread::Builder::new()
        .name("console input".into())
        .spawn(move || type_in(typed))
        .context("cannot start a thread")?;
    let shown = std::thread::Builder::new()
        .name("console output".into())
        .spawn(move || show(File::from(console)))
        .context("cannot start a thread")?;
    loop {
        if let Some(signal) = interrupts.take() {
            return Ok(Some(signal));
        }
        if machine
            .wait(Duration::from_millis(50))
            .context("cannot wait for the machine")?
            .is_some()
        {
            // The last lines are still on their way; nothing but a cut ends the stream after them.
            std::thread::sleep(LAST_LINES);
            let _ = rustix::net::shutdown(&cut, rustix::net::Shutdown::Both);
            let _ = shown.join();
            return Ok(None);
        }
        if shown.is_finished() {
            return Ok(None); // nobody reads any more
        }
    }
}

/// Ends with the process: nothing can interrupt a read of stdin.
fn type_in(mut console: File) {
    let _ = io::copy(&mut io::stdin().lock(), &mut console);
}

fn show(mut console: File) {
    let mut stdout = io::stdout().lock();
    let mut buffer = [0; 8192];
    while let Ok(len @ 1..) = console.read(&mut buffer) {
        if stdout
            .write_all(&buffer[..len])
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return;
        }
    }
}
