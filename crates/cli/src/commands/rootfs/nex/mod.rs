//! `firebrick rootfs --image …`: the image that Nex's `nex rootfs` makes.
//!
//! Everything is what `from-docker` does with `--init openrc --agent-user nex --dns pnp --size …B --script … --network`, but for
//! the user nex, who is there before the script runs, the program of `--agent`, and the image's end as `.gz`.

mod args;

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use firebrick_customise::{Content, NewFile, NewGroup, NewUser, Settings};
use firebrick_sandbox::{Limits as StepLimits, MadeLayer};
use firebrick_source::OciImage;
use flate2::{Compression, GzBuilder};

pub(crate) use args::Args;

use super::from_docker::Transfer;
use super::from_docker::source_args::Registry;
use super::making::{Contents, ImageArgs, Limits, Making, ReadScript, Reading, put_in, read_program};
use crate::home::Home;
use crate::interrupt::Scratch;
use crate::steps::Running;
use crate::talk::{Steps, Talk};
use crate::text;

/// What a Nex image needs of other commands' flags.
#[derive(Debug, clap::Parser)]
struct Options {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    source: Registry,

    #[command(flatten)]
    limits: Limits,
}

/// Nex's own agent writes where it may.
const SERVICE: &str = "#!/sbin/openrc-run\n\ndescription=\"Nex agent\"\nsupervisor=supervise-daemon\n\
                       command=/usr/local/bin/agent\ncommand_user=nex:nex\n\
                       respawn_delay=2\nrespawn_max=5\nrespawn_period=60\n\
                       output_log=/home/nex/agent.log\nerror_log=/home/nex/agent.log\n\n\
                       depend() {\n\tafter localmount modules bootmisc net\n}\n";

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let script = args.script.as_deref().map(ReadScript::of).transpose()?;
    let compressed = Compressed::of(&args.output)?;
    let options = options(args, compressed.as_ref().map_or(&args.output, |made| &made.image))?;
    let making = Making::new("nex", &options.image, home)?;
    let steps = Arc::new(Steps::new(talk, if script.is_some() { 7 } else { 6 }));
    let transfer = Arc::new(Mutex::new(Transfer::default()));
    steps.begin(1, &format!("Pulling {}", args.image));
    let mut image = options.source.open(&args.image, home, *talk, &steps, &transfer)?;
    let mut settings = Settings {
        files: agent(args, &image)?,
        ..options.image.settings.to_settings()?
    };
    accounts(&mut settings)?;
    let contents = Contents::with(&options.image, settings.clone(), &image)?;
    image.prefetch();
    let running = making.running(StepLimits::default(), &options.limits, &contents, true);
    let made = match &script {
        Some(script) => run_script(script, &settings, &running, &mut image, home, talk, &steps)?,
        None => Vec::new(),
    };
    let report = making
        .build(&image, &contents, &options.limits, &steps, Reading::Here)
        .with_context(|| format!("cannot turn {} into an image for Nex", args.image))?;
    drop(made);
    let more = match &compressed {
        Some(compressed) => {
            let bytes = compressed.finish(&args.output)?;
            Some(format!("compressed: {}", text::bytes(bytes)))
        }
        None => None,
    };
    making.finish_as(&args.output, home, talk, &contents, &report, more.as_deref())
}

/// The flags of other commands that say the same.
fn options(args: &Args, image: &Path) -> anyhow::Result<Options> {
    let mut words: Vec<std::ffi::OsString> = ["nex", "--init=openrc", "--agent-user=nex", "--dns=pnp"]
        .map(Into::into)
        .to_vec();
    words.push(format!("--size={}B", args.size).into());
    words.push("--output".into());
    words.push(image.into());
    Ok(Options::try_parse_from(words)?)
}

/// The user nex, 1000:1000.
fn accounts(settings: &mut Settings) -> anyhow::Result<()> {
    settings.groups.push(NewGroup {
        name: "nex".parse()?,
        gid: Some(1000),
    });
    settings.users.push(NewUser {
        name: "nex".parse()?,
        uid: Some(1000),
        group: Some("nex".to_owned()),
        groups: Vec::new(),
        home: None,
        shell: None,
    });
    Ok(())
}

/// The program of `--agent`, and its service.
fn agent(args: &Args, image: &OciImage) -> anyhow::Result<Vec<NewFile>> {
    let Some(path) = &args.agent else {
        return Ok(Vec::new());
    };
    let file = |path: &str, mode, content| NewFile {
        path: path.to_owned(),
        content,
        mode,
        owner: None,
    };
    let program = read_program("agent", path, &image.platform)?;
    Ok(vec![
        file("usr/local/bin/agent", Some(0o755), Content::File(program)),
        file("etc/init.d/agent", Some(0o755), Content::File(SERVICE.into())),
        file(
            "etc/runlevels/default/agent",
            None,
            Content::Link("/etc/init.d/agent".to_owned()),
        ),
    ])
}

/// Runs the script over the image with its user.
fn run_script(
    script: &ReadScript,
    settings: &Settings,
    running: &Running<'_>,
    image: &mut OciImage,
    home: &Home,
    talk: &Talk,
    shown: &Steps,
) -> anyhow::Result<Vec<MadeLayer>> {
    let accounts = Settings {
        groups: settings.groups.clone(),
        users: settings.users.clone(),
        ..Settings::default()
    };
    let mut made = vec![put_in(&accounts, running, image, home)?];
    made.extend(script.run(true, running, image, home, *talk, shown)?);
    Ok(made)
}

/// A folder beside the output that holds the image until it is compressed.
struct Compressed {
    folder: PathBuf,
    image: PathBuf,
}

impl Compressed {
    /// `None` for an output that is not to be compressed.
    fn of(output: &Path) -> anyhow::Result<Option<Compressed>> {
        let name = output
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        ensure!(
            name.ends_with(".ext4") || name.ends_with(".ext4.gz"),
            "the output {output:?} is neither NAME.ext4 nor NAME.ext4.gz"
        );
        let Some(image) = name.strip_suffix(".gz") else {
            return Ok(None);
        };
        ensure!(!output.is_dir(), "the output {output:?} is a folder");
        let folder = output.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        let scratch = Scratch::guarded().context("cannot listen for signals")?;
        scratch.add(folder.clone());
        fs::create_dir(&folder).with_context(|| format!("cannot make the folder {folder:?}"))?;
        Ok(Some(Compressed {
            image: folder.join(image),
            folder,
        }))
    }

    /// Compresses the image to its place. Its length there.
    fn finish(&self, output: &Path) -> anyhow::Result<u64> {
        let part = self.folder.join("gz");
        let compress = || -> io::Result<u64> {
            let mut image = File::open(&self.image)?;
            // Neither name nor time: the same image gives the same bytes.
            let mut gz = GzBuilder::new()
                .mtime(0)
                .write(BufWriter::new(File::create(&part)?), Compression::default());
            io::copy(&mut image, &mut gz)?;
            let file = gz.finish()?.into_inner().map_err(|error| error.into_error())?;
            file.sync_all()?;
            fs::rename(&part, output)?;
            Ok(file.metadata()?.len())
        };
        compress().with_context(|| format!("cannot write {output:?}"))
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder); // it is ours, and beside what the user asked for
    }
}
