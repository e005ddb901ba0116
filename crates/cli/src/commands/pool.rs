//! `firebrick pool`: VMs that have booted before anyone asks for them.

mod start;

use std::fmt::Write as _;
use std::io;

use anyhow::Context as _;
use firebrick_vmm::pool::{self, PoolFiles, PoolStatus};
use serde_json::{Value, json};

use crate::error::{CliError, write_stdout};
use crate::home::Home;
use crate::images;
use crate::talk::Talk;

/// No longer is what a row of the table says of an error; `--json` has all of it.
const NOTE_CHARS: usize = 160;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Start(start::Args),
    /// What start leaves behind: keeps the pool until it is stopped
    #[command(hide = true)]
    Keep(start::Args),
    Status(StatusArgs),
    Stop(StopArgs),
}

/// Show pools: how many VMs are warm, in use, and were used
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// This pool only
    #[arg(short, long, value_name = "NAME")]
    lang: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// End a pool and all of its VMs, those in use too
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// The pool
    #[arg(short, long, value_name = "NAME", required_unless_present = "all")]
    lang: Option<String>,

    /// Every pool
    #[arg(long, conflicts_with = "lang")]
    all: bool,
}

pub(crate) fn run(command: &Command, talk: &Talk) -> anyhow::Result<()> {
    match command {
        Command::Start(args) => start::start(args, talk),
        Command::Keep(args) => start::keep(args, talk),
        Command::Status(args) => status(args, talk),
        Command::Stop(args) => stop(args, talk),
    }
}

/// The pool of an image that was named in one of the ways that images are.
fn files_of(home: &Home, name: &str) -> PoolFiles {
    PoolFiles::of(home.run(), images::name_of(name.as_ref()))
}

/// Asks a keeper. One that does not answer is told apart from what else may fail.
fn ask<T>(files: &PoolFiles, question: impl FnOnce(&PoolFiles) -> io::Result<T>) -> anyhow::Result<T> {
    question(files).map_err(|source| {
        let name = files.name().to_owned();
        match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy => CliError::PoolSilent {
                name,
                pid: keeper_of(files),
                log: files.log(),
                source,
            }
            .into(),
            _ => anyhow::Error::new(source).context(format!("cannot ask the pool {name:?}")),
        }
    })
}

/// The process that listens, though it may not answer.
fn keeper_of(files: &PoolFiles) -> Option<i32> {
    let stream = files.connect().ok()??;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

fn status(args: &StatusArgs, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    let all = match &args.lang {
        Some(name) => vec![files_of(&home, name)],
        None => PoolFiles::all(&home.run()).context("cannot look for pools")?,
    };
    let mut pools = Vec::new();
    for files in all {
        let asked = match ask(&files, pool::status) {
            // The others are shown all the same.
            Err(error) if args.lang.is_none() => Some(Err(error)),
            asked => asked?.map(Ok),
        };
        pools.extend(asked.map(|status| (files.name().to_owned(), status)));
    }
    if let (Some(name), true) = (&args.lang, pools.is_empty()) {
        return Err(CliError::NoPool { name: name.clone() }.into());
    }
    if pools.is_empty() && !args.json {
        talk.say("no pools");
        return Ok(());
    }
    let text = match args.json {
        true => {
            let list: Vec<Value> = pools
                .iter()
                .map(|(name, status)| match status {
                    Ok(status) => as_json(name, status),
                    Err(error) => json!({ "name": name, "error": format!("{error:#}") }),
                })
                .collect();
            format!("{:#}\n", Value::Array(list))
        }
        false => table(&pools),
    };
    write_stdout(text.as_bytes())
}

pub(super) fn as_json(name: &str, status: &PoolStatus) -> Value {
    let terms = &status.terms;
    let mut json = json!({
        "name": name,
        "pid": status.pid,
        "image": terms.image.path(),
        "size": status.size,
        "warm": status.warm,
        "starting": status.starting,
        "in_use": status.in_use,
        "waiting": status.waiting,
        "used": status.used,
        "failed": status.failed,
        "snapshot": status.snapshot,
        "last_start_ms": status.last_start_ms,
        "last_error": status.last_error,
        "memory_mib": terms.memory_mib,
        "vcpus": terms.vcpus,
        "overlay_mib": terms.overlay_mib,
        "network": terms.network,
    });
    for (name, value) in &terms.others {
        json[name] = json!(value);
    }
    json
}

fn table(pools: &[(String, anyhow::Result<PoolStatus>)]) -> String {
    let mut text = format!(
        "{:<20} {:>9} {:>7} {:>7} {:>8}  {}\n",
        "NAME", "WARM", "IN USE", "USED", "PID", "NOTE"
    );
    for (name, status) in pools {
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                let line = format!(
                    "{name:<20} {:>9} {:>7} {:>7} {:>8}  {}",
                    "?",
                    "?",
                    "?",
                    "?",
                    error.root_cause()
                );
                let _ = writeln!(text, "{line}"); // a String takes everything
                continue;
            }
        };
        let warm = format!("{}/{}", status.warm, status.size);
        let note = match &status.last_error {
            Some(error) => note(error),
            None if status.snapshot => "from a snapshot".to_owned(),
            None => String::new(),
        };
        let line = format!(
            "{name:<20} {warm:>9} {:>7} {:>7} {:>8}  {note}",
            status.in_use, status.used, status.pid
        );
        let _ = writeln!(text, "{}", line.trim_end()); // a String takes everything
    }
    text
}

/// An error in one line, which its end tells the most of.
fn note(error: &str) -> String {
    let words: Vec<&str> = error.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().rev().nth(NOTE_CHARS) {
        Some((at, _)) => format!("… {}", line.split_at(at).1.trim_start()),
        None => line,
    }
}

fn stop(args: &StopArgs, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    let all = match &args.lang {
        Some(name) => vec![files_of(&home, name)],
        None => PoolFiles::all(&home.run()).context("cannot look for pools")?,
    };
    if all.is_empty() {
        talk.say("no pools");
    }
    let mut failed = None;
    for files in all {
        match (stop_one(&files, talk), &args.lang) {
            (Ok(false), Some(name)) => return Err(CliError::NoPool { name: name.clone() }.into()),
            (Ok(_), _) => {}
            (Err(error), Some(_)) => return Err(error),
            // The others are stopped all the same.
            (Err(error), None) => {
                talk.say(&format!(
                    "cannot stop the pool {}: {}",
                    files.name(),
                    error.root_cause()
                ));
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether there was one.
fn stop_one(files: &PoolFiles, talk: &Talk) -> anyhow::Result<bool> {
    // Ending its VMs may take a while. Whether it listens at all is known sooner.
    let stopped = ask(files, pool::status)?.is_some() && ask(files, pool::stop)?;
    if stopped {
        start::wait_until_gone(files)?;
        talk.say(&format!("stopped the pool {}", files.name()));
    }
    Ok(stopped)
}
