//! This machine: its QEMU, the kernel that all tests share, the guest of this workspace.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use firebrick_protocol::agent::{Exec, ExecResult, JobOptions};
use firebrick_vmm::client::{Client, Command, Ended, StreamIo};
use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::qemu::{Program, Qemu, probe};
use firebrick_vmm::{BootSpec, Booted, Job, RunOutcome, RunSpec, Streams, Vmm, boot, run};

use crate::common;
use crate::images::{self, Image};

/// Longer than any boot on the busiest machine: a test that fails must not hang.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// The same for one answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub(crate) qemu: Qemu,
    /// What [`Host::run`] uses.
    pub(crate) vmm: Box<dyn Vmm>,
    pub(crate) kernel: Kernel,
    pub(crate) guest: Vec<u8>,
}

/// `None` only where tests were told to do without programs of the host.
pub(crate) fn host() -> Option<Host> {
    let kernel = common::kernel()?;
    let path = std::env::var_os("PATH").expect("a PATH");
    let program = Program::find(&path).expect("QEMU (Debian package qemu-system-x86)");
    let (qemu, _) = probe::best(&program, &kernel, &common::state(), false).expect("QEMU starts");
    Some(Host {
        vmm: Box::new(qemu.clone()),
        qemu,
        kernel,
        guest: images::guest(),
    })
}

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) outcome: RunOutcome,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Host {
    pub(crate) fn spec<'a>(&'a self, image: &Path) -> BootSpec<'a> {
        let mut spec = BootSpec::new(image, &self.kernel, &self.guest);
        spec.answer_limit = BOOT_LIMIT;
        spec
    }

    /// The same for an image whose filesystem is known.
    pub(crate) fn spec_of<'a>(&'a self, image: &Image) -> BootSpec<'a> {
        let mut spec = self.spec(&image.path);
        image.filesystem.clone_into(&mut spec.filesystem);
        spec
    }

    pub(crate) fn boot(&self, image: &Image) -> Booted {
        self.boot_with(&self.spec_of(image))
    }

    pub(crate) fn boot_with(&self, spec: &BootSpec<'_>) -> Booted {
        boot(&self.qemu, spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)))
    }

    /// Runs a job in a machine of its own.
    pub(crate) fn run(&self, image: &Path, job: Job, timeout: Duration) -> Ran {
        let spec = RunSpec {
            boot: self.spec(image),
            job,
            options: JobOptions::default(),
            timeout: Some(timeout),
            patience: Duration::from_secs(2),
            copy_in: Vec::new(),
            copy_out: Vec::new(),
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = Streams {
            stdin: None,
            stdout: &mut stdout,
            stderr: &mut stderr,
            terminal: None,
            starting: None,
            interrupts: None,
            warn: None,
        };
        let outcome =
            run(&*self.vmm, &spec, streams).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
        Ran {
            outcome,
            stdout,
            stderr,
        }
    }
}

/// `/bin/sh -c COMMAND` as a job.
pub(crate) fn shell(command: &str) -> Job {
    Job::Argv(["/bin/sh", "-c", command].map(str::to_owned).to_vec())
}

/// Runs a command line and gives `(exit code, stdout, stderr)`.
pub(crate) fn exec(client: &mut Client, command: &str, options: JobOptions) -> (i32, String, String) {
    let exec = Exec {
        cmd: Some(command.to_owned()),
        options,
        ..Exec::default()
    };
    texts(client.exec(exec, ANSWER_LIMIT).expect("an answer"))
}

pub(crate) fn texts(result: ExecResult) -> (i32, String, String) {
    let text = |text: Option<String>| text.expect("what does not stream has its output in the result");
    (result.exit_code, text(result.stdout), text(result.stderr))
}

/// What a command line prints, which must succeed in silence.
pub(crate) fn output(client: &mut Client, command: &str) -> String {
    let (code, stdout, stderr) = exec(client, command, JobOptions::default());
    assert_eq!((code, stderr.as_str()), (0, ""), "{command}: {stdout}");
    stdout
}

/// A job whose bytes flow while it runs: `(how it ended, stdout, stderr)`.
pub(crate) fn stream(client: &mut Client, command: Command, stdin: &[u8]) -> (Ended, Vec<u8>, Vec<u8>) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let stdin = stdin.to_vec();
    // A job that does not read it closes the pipe early.
    let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut writer, &stdin)));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let io = StreamIo {
        stdin: Some(std::os::fd::AsFd::as_fd(&reader)),
        stdout: &mut stdout,
        stderr: &mut stderr,
        interrupts: None,
        patience: Duration::ZERO,
        limit: Some(ANSWER_LIMIT),
        terminal: None,
    };
    let ended = client.stream(command, io).expect("the stream goes well");
    drop(reader);
    feeder.join().expect("the feeder ends");
    (ended, stdout, stderr)
}

pub(crate) fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
