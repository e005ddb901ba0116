//! `firebrick pool`: VMs that have booted before anyone asks for them.

mod start;

use std::fmt::Write as _;

use anyhow::Context as _;
use firebrick_vmm::pool::{self, PoolFiles, PoolStatus};
use serde_json::{Value, json};

use crate::error::{CliError, write_stdout};
use crate::home::Home;
use crate::images;
use crate::talk::Talk;

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
        Command::Status(args) => status(args),
        Command::Stop(args) => stop(args, talk),
    }
}

/// The pool of an image that was named in one of the ways that images are.
fn files_of(home: &Home, name: &str) -> PoolFiles {
    PoolFiles::of(home.run(), images::name_of(name.as_ref()))
}

fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    let all = match &args.lang {
        Some(name) => vec![files_of(&home, name)],
        None => PoolFiles::all(&home.run()).context("cannot look for pools")?,
    };
    let mut pools = Vec::new();
    for files in all {
        let asked = pool::status(&files);
        let asked = asked.with_context(|| format!("cannot ask the pool {:?}", files.name()))?;
        pools.extend(asked.map(|status| (files.name().to_owned(), status)));
    }
    if let (Some(name), true) = (&args.lang, pools.is_empty()) {
        return Err(CliError::NoPool { name: name.clone() }.into());
    }
    let text = match args.json {
        true => {
            let list: Vec<Value> = pools.iter().map(|(name, status)| as_json(name, status)).collect();
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

fn table(pools: &[(String, PoolStatus)]) -> String {
    let mut text = format!(
        "{:<20} {:>9} {:>7} {:>7} {:>8}  {}\n",
        "NAME", "WARM", "IN USE", "USED", "PID", "NOTE"
    );
    for (name, status) in pools {
        let warm = format!("{}/{}", status.warm, status.size);
        let note = match &status.last_error {
            Some(error) => error.lines().next().unwrap_or_default().to_owned(),
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

fn stop(args: &StopArgs, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    let all = match &args.lang {
        Some(name) => vec![files_of(&home, name)],
        None => PoolFiles::all(&home.run()).context("cannot look for pools")?,
    };
    for files in all {
        let stopped =
            pool::stop(&files).with_context(|| format!("cannot stop the pool {:?}", files.name()))?;
        match (stopped, &args.lang) {
            (true, _) => {
                start::wait_until_gone(&files)?;
                talk.say(&format!("stopped the pool {}", files.name()));
            }
            (false, Some(name)) => return Err(CliError::NoPool { name: name.clone() }.into()),
            (false, None) => {}
        }
    }
    Ok(())
}
