//! `firebrick run`.

mod args;
mod machine;
mod source;
mod terminal;
mod warm;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use firebrick_protocol::agent::JobOptions;
use firebrick_vmm::client::{self, CallError};
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::{BootSpec, Job, JobSpec, RunError, RunOutcome, RunSpec, Streams, Timeline};

pub(crate) use args::{Args, image_of_lang};
pub(crate) use machine::MachineArgs;
use terminal::Terminal;
use warm::Found;

use crate::error::{self, CliError};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::trust::Admitted;
use crate::{interrupt, lazy, remote, text, timeline};

/// How long a program may go on after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the shell sees when nobody reads the output any more (`| head -1`): as if SIGPIPE had ended us.
const CLOSED_OUTPUT: u8 = 128 + 13;

/// What the shell sees when the time was up, as with `timeout`.
const TIMED_OUT: u8 = 124;

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<ExitCode> {
    // From here on signals are passed on to the program, whose machine they end.
    let interrupts = Interrupts::catch().context("cannot listen for signals")?;
    let home = Home::of_process()?;
    args.check_language()?;
    let lazy = args.lazy(&home, talk)?;
    let opened = match &lazy {
        Some(served) => served.image()?,
        None => Admitted::open(&home, args.image(&home)?)?,
    };
    let job = job_of(args, &opened)?;
    let image = opened.path.clone();
    let stdin = io::stdin();
    let (mut stdout, mut stderr) = (
        unbuffered(io::stdout().as_fd())?,
        unbuffered(io::stderr().as_fd())?,
    );
    let mut terminal = args.tty.then(|| Terminal::of(stdin.as_fd())).transpose()?;
    // Until the job starts Ctrl-C ends the boot; from then on it is a key like any other.
    let mut starting = || {
        if let Some(served) = &lazy {
            talk.say(&format!(
                "{} until the agent answered",
                lazy::report(&served.counts())
            ));
        }
        terminal.as_mut().map_or(Ok(()), Terminal::go_raw)
    };
    let mut warn = |words: &str| talk.warn(words);
    let streams = Streams {
        stdin: args.wants_stdin().then(|| stdin.as_fd()),
        stdout: &mut stdout,
        stderr: &mut stderr,
        terminal: args.tty.then(|| stdin.as_fd()),
        starting: Some(&mut starting),
        interrupts: Some(&interrupts),
        warn: Some(&mut warn),
    };
    let ran = match warm::take(args, &home, &opened, &interrupts, talk)? {
        Found::Vm(warm) => warm.run(&job, streams),
        Found::Nothing => cold(args, &home, talk, &opened, job, streams)?,
        Found::Interrupted { signal } => Ok(RunOutcome::Interrupted { signal }),
    };
    if let Some(served) = &lazy {
        talk.detail(&lazy::report(&served.counts()));
    }
    drop((terminal, lazy)); // what follows may end the process
    match ran {
        Ok(outcome) => Ok(exit_code(outcome, &image)),
        Err(RunError::Call(CallError::Output { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(ExitCode::from(CLOSED_OUTPUT))
        }
        Err(RunError::Call(source @ CallError::Refused { .. })) => {
            Err(CliError::Refused { image, source }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What is asked of the guest; what would fail after the boot is told before it.
fn job_of(args: &Args, image: &ImageFile) -> anyhow::Result<JobSpec> {
    let job = args.job()?;
    if job == Job::Default {
        must_name_a_program(image)?;
    }
    let env = args.environment()?.into_iter().collect();
    timeline::must_have_a_place(args.machine.timeline.as_deref())?;
    for (path, _) in &args.put {
        std::fs::metadata(path).with_context(|| format!("cannot copy {path:?} into the VM"))?;
    }
    for (from, to) in &args.get {
        client::check_place(from, to)?;
    }
    Ok(JobSpec {
        job,
        options: JobOptions {
            env,
            cwd: args.workdir(),
            user: args.user(),
            ..JobOptions::default()
        },
        timeout: args.timeout(),
        patience: PATIENCE,
        copy_in: args.put.clone(),
        copy_out: args.get.clone(),
    })
}

/// Boots a VM for the job.
fn cold(
    args: &Args,
    home: &Home,
    talk: &Talk,
    image: &Admitted,
    job: JobSpec,
    streams: Streams<'_>,
) -> anyhow::Result<Result<RunOutcome, RunError>> {
    let host = args.machine.host(home, talk, image, None)?;
    let spec = RunSpec {
        boot: BootSpec {
            answer_limit: args.boot_timeout(),
            filesystem: image.filesystem.name().to_owned(),
            ..args.machine.spec(image.path.clone(), &host.parts)?
        },
        job: job.job,
        options: job.options,
        timeout: job.timeout,
        patience: job.patience,
        copy_in: job.copy_in,
        copy_out: job.copy_out,
    };
    let title = timeline::title(&image.path, &host);
    let mut drawn = Ok(());
    let mut draw = |boot| {
        if let Some(path) = &args.machine.timeline {
            drawn = timeline::write(path, &boot, &title);
        }
    };
    let wanted = args.machine.timeline.is_some();
    let draw: Option<&mut dyn FnMut(Timeline)> = if wanted { Some(&mut draw) } else { None };
    let ran = firebrick_vmm::run_timed(&*host.vmm, &spec, streams, draw);
    drawn.map(|()| ran)
}

/// That an image says what to run is known without a boot, where firebrick made it.
fn must_name_a_program(image: &ImageFile) -> anyhow::Result<()> {
    let names = |json: &serde_json::Value, key| {
        json.get(key)
            .and_then(|words| words.as_array())
            .is_some_and(|words| !words.is_empty())
    };
    match image.image_json()? {
        Some(json) if !names(&json, "Entrypoint") && !names(&json, "Cmd") => Err(CliError::NothingToRun {
            image: image.path.clone(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// The program's bytes as they come, not line by line.
fn unbuffered(stream: BorrowedFd<'_>) -> anyhow::Result<File> {
    Ok(File::from(
        stream
            .try_clone_to_owned()
            .context("cannot use stdout or stderr")?,
    ))
}

fn exit_code(outcome: RunOutcome, image: &Path) -> ExitCode {
    match outcome {
        // Codes of Linux programs are one byte; -1 stands for a program that could not be started.
        RunOutcome::Exited { code } => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        RunOutcome::NotStarted { code, message } => {
            error::say(&message);
            error::hint(&match lazy::is_served(image) {
                true => format!(
                    "see what the image has: firebrick run --lazy NAME{} -- ls -l /bin",
                    remote::flags()
                ),
                false => format!(
                    "see what the image has: firebrick rootfs ls -l {} /bin",
                    image.display()
                ),
            });
            ExitCode::from(u8::try_from(code).unwrap_or(126))
        }
        RunOutcome::TimedOut { limit } => {
            error::say(&format!(
                "the program was stopped: its {} were up",
                text::duration(limit)
            ));
            error::hint("give it more with --timeout SEC, or --timeout 0 for no limit");
            ExitCode::from(TIMED_OUT)
        }
        RunOutcome::Interrupted { signal } => {
            interrupt::die_by(signal);
            ExitCode::from(u8::try_from(signal).map_or(125, |signal| 128 + signal))
        }
    }
}
