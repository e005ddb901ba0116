//! `firebrick pool start`, and the keeper that it leaves behind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use firebrick_vmm::BootSpec;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::pool::{self, Held, Keeper, PoolFiles, PoolStatus};

use crate::commands::run::{MachineArgs, image_of_lang};
use crate::error::{self, CliError, write_stdout};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::trust::{self, Admitted};

/// How long a keeper may take to listen; it may have to try KVM first.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long a VM of the pool may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a keeper that has said that it is done may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often the keeper is asked how it goes.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// Start a pool: keep VMs of an image warm, for firebrick run -l NAME
///
/// Returns when all of them are warm. A process stays that keeps the pool: each VM is used once, and another takes its place. Stop it
/// with firebrick pool stop.
#[derive(Debug, clap::Args)]
#[command(mut_arg("timeline", |arg| arg.hide(true)))]
pub(crate) struct Args {
    /// The image, as for firebrick run: its name is the pool's
    #[arg(short, long, value_name = "NAME")]
    lang: String,

    /// How many VMs to keep warm
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    size: u16,

    /// Do not wait until they are
    #[arg(long)]
    no_wait: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    machine: MachineArgs,
}

impl Args {
    fn files(&self, home: &Home, image: &ImageFile) -> PoolFiles {
        PoolFiles::of(home.run(), crate::images::name_of(&image.path))
    }
}

pub(super) fn start(args: &Args, talk: &Talk) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.machine.timeline.is_none(),
        "--timeline is for one boot: firebrick run -l {} --timeline FILE",
        args.lang
    );
    let home = Home::of_process()?;
    let image = Admitted::open(&home, image_of_lang(&home, &args.lang)?)?;
    // What is wrong with the image, the kernel or the machine is told here, and not in a log.
    let parts = args.machine.parts(&home, &image, None)?;
    args.machine.spec(image.path.clone(), &parts)?;
    let files = args.files(&home, &image);
    if super::ask(&files, pool::status)?.is_some() {
        return Err(CliError::PoolExists {
            name: files.name().to_owned(),
        }
        .into());
    }
    // Whoever gives up before there is a pool wants none. The keeper has its own session, so it would not hear of it.
    let interrupts = Interrupts::catch().context("cannot listen for signals")?;
    let mut keeper = spawn(&files)?;
    let status = wait(args, &files, &mut keeper, &interrupts, talk)?;
    if args.json {
        return write_stdout(format!("{:#}\n", super::as_json(files.name(), &status)).as_bytes());
    }
    talk.say(&format!(
        "the pool {} has {} of {} VMs warm; use them: firebrick run -l {}",
        files.name(),
        status.warm,
        status.size,
        args.lang
    ));
    Ok(())
}

/// Starts ourselves once more, as the keeper: the same words, but for one.
fn spawn(files: &PoolFiles) -> anyhow::Result<Child> {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let at = words.iter().position(|word| word == "pool");
    let at = at.and_then(|at| Some(at + words[at..].iter().position(|word| word == "start")?));
    words[at.context("the command line has no pool start")?] = "keep".into();
    let log = files.open_log();
    let log = log.with_context(|| format!("cannot write {:?}", files.log()))?;
    let program = std::env::current_exe().context("cannot find firebrick's own program")?;
    let mut keeper = std::process::Command::new(program);
    if let Some(policy) = trust::named_policy() {
        keeper.env("FIREBRICK_POLICY", policy); // it goes to another folder
    }
    keeper
        .args(words)
        .env("FIREBRICK_HOME", Home::of_process()?.data())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot copy a descriptor")?)
        .stderr(log)
        .spawn()
        .context("cannot start the pool's keeper")
}

/// Waits until the pool is as it shall be; ends it if it cannot be.
fn wait(
    args: &Args,
    files: &PoolFiles,
    keeper: &mut Child,
    interrupts: &Interrupts,
    talk: &Talk,
) -> anyhow::Result<PoolStatus> {
    let deadline = Instant::now() + START_LIMIT;
    let failed = |words: &str| CliError::KeeperEnded {
        words: words.to_owned(),
        image: args.lang.clone(),
    };
    let mut told = 0;
    loop {
        if let Some(ended) = keeper.try_wait().context("cannot wait for the keeper")? {
            let name = || files.name().to_owned();
            return Err(match ended.success() {
                true => CliError::PoolStopped { name: name() },
                false => why_it_ended(args, files)?,
            }
            .into());
        }
        if let Some(signal) = interrupts.take() {
            end(files, keeper)?;
            crate::interrupt::die_by(signal);
        }
        match pool::status(files) {
            // Somebody else's may answer, who was faster; ours will say so.
            Ok(Some(status)) if status.pid == keeper.id() => {
                if status.warm > told {
                    told = status.warm;
                    talk.detail(&format!("{told} of {} VMs are warm", status.size));
                }
                if args.no_wait || status.warm >= status.size {
                    return Ok(status);
                }
                match (&status.last_error, status.warm) {
                    _ if status.starting > 0 => {}
                    (Some(error), 0) => {
                        let error = failed(error);
                        end(files, keeper)?;
                        return Err(error.into());
                    }
                    // It goes on trying; who waits would not see an end.
                    (Some(error), warm) => {
                        talk.warn(&format!(
                            "only {warm} of {} VMs could be started, and the pool goes on trying: {error}",
                            status.size
                        ));
                        return Ok(status);
                    }
                    (None, _) => {}
                }
            }
            _ if Instant::now() >= deadline => {
                end(files, keeper)?;
                return Err(failed("it did not answer").into());
            }
            _ => {}
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}

/// Ends the keeper that we have started, with its VMs.
fn end(files: &PoolFiles, keeper: &mut Child) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_child(keeper);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // it may have ended
    let deadline = Instant::now() + END_LIMIT;
    while keeper.try_wait().context("cannot wait for the keeper")?.is_none() {
        if Instant::now() >= deadline {
            let _ = keeper.kill();
        }
        std::thread::sleep(ASK_INTERVAL);
    }
    if let Some(held) = files.hold().context("cannot look after the keeper")? {
        held.remove();
    }
    Ok(())
}

/// What a keeper that could not begin has to say. Its log is another's if another was faster.
fn why_it_ended(args: &Args, files: &PoolFiles) -> anyhow::Result<CliError> {
    let Some(held) = files.hold().context("cannot look after the keeper")? else {
        return Ok(CliError::PoolExists {
            name: files.name().to_owned(),
        });
    };
    let log = std::fs::read_to_string(files.log()).unwrap_or_default();
    held.remove();
    Ok(CliError::KeeperEnded {
        words: last_words(&log),
        image: args.lang.clone(),
    })
}

/// What the keeper has said in error, without what is repeated for a person.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(5)..]
        .join("; ")
        .trim_start_matches("error: ")
        .to_owned()
}

/// Waits until the keeper's process has let go of the pool.
pub(super) fn wait_until_gone(files: &PoolFiles) -> anyhow::Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        if let Some(held) = files.hold().context("cannot look after the keeper")? {
            held.remove();
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the keeper of the pool {} does not end",
            files.name()
        );
        std::thread::sleep(ASK_INTERVAL);
    }
}

/// The keeper itself. Its stderr is the log.
pub(super) fn keep(args: &Args, talk: &Talk) -> anyhow::Result<()> {
    // A session of its own: the end of the terminal is not the end of the pool.
    let _ = rustix::process::setsid();
    let interrupts = Interrupts::catch().context("cannot listen for signals")?;
    let home = Home::of_process()?;
    let found = image_of_lang(&home, &args.lang)?;
    let image = Admitted::open(
        &home,
        std::path::absolute(&found).with_context(|| format!("cannot find {found:?}"))?,
    )?;
    // The words were those of the folder that it was started in; from here on that one may go.
    std::env::set_current_dir("/").context("cannot leave the folder")?;
    let files = args.files(&home, &image);
    let Some(held) = files.hold().context("cannot become the keeper")? else {
        return Err(CliError::PoolExists {
            name: files.name().to_owned(),
        }
        .into());
    };
    held.clear_log().context("cannot write the log")?;
    raise_limit();
    let kept = keep_held(args, talk, &home, &image, &held, &interrupts);
    match kept {
        Ok(()) => held.remove(),
        Err(_) => held.remove_but_log(),
    }
    kept
}

/// Each VM takes some descriptors: as many as the host allows are had.
fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

fn keep_held(
    args: &Args,
    talk: &Talk,
    home: &Home,
    image: &Admitted,
    held: &Held,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    // It may have to try KVM: who could connect already would wait for that.
    let host = args.machine.host(home, talk, image, None)?;
    let listener = held.listen().context("cannot listen for those who want VMs")?;
    let spec = BootSpec {
        answer_limit: BOOT_LIMIT,
        filesystem: image.filesystem.name().to_owned(),
        ..args.machine.spec(image.path.clone(), &host.parts)?
    };
    let terms = args
        .machine
        .terms(&spec, &host)
        .context("cannot look at the image")?;
    let log = |line: &str| talk.say(line);
    let snapshot = args.files(home, image).snapshot();
    let fits = |kept: &Path| {
        fits(&image_of_lang(home, &args.lang), kept, &spec.filesystem)?;
        match kept.exists() {
            true => trust::judge(home, kept)
                .map_or_else(|refused| Err(error::chain_texts(&refused).join(": ")), |_| Ok(())),
            false => Ok(()),
        }
    };
    let keeper = Keeper::new(&*host.vmm, &spec, terms, usize::from(args.size), snapshot, &log);
    let keeper = keeper.context("cannot make a pool")?.while_it_fits(&fits);
    let kept = keeper.run(&listener, interrupts);
    kept.context("cannot go on keeping the pool")
}

/// Whether VMs of the image that was `kept` are still what its name means. One that is not there is waited for.
fn fits(found: &anyhow::Result<PathBuf>, kept: &Path, filesystem: &str) -> Result<(), String> {
    let Ok(path) = found else { return Ok(()) };
    let Ok(now) = ImageFile::open_file(path.clone()) else {
        return Ok(());
    };
    let format = now.filesystem.name();
    if format != filesystem {
        return Err(format!(
            "the image is {format} now, not {filesystem} any more: the pool must be started again"
        ));
    }
    match std::fs::canonicalize(path) {
        Ok(path) if path != kept => Err(format!(
            "the image is {} now, not {} any more: the pool must be started again",
            path.display(),
            kept.display()
        )),
        _ => Ok(()),
    }
}
