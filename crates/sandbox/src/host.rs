//! The host's end of a sandbox: makes the work folder, starts the keeper, maps its ids, and talks to it.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_tree::Timestamp;
use rustix::fs::FlockOperation;

use crate::cgroup::Group;
use crate::error::SandboxError;
use crate::ids::{Caller, Extent, Ids, Mapping, Owners, choose, confined};
use crate::steps::{Limits, Outcome, Step};
use crate::wire::{self, Frames, Kind, RunStep, Settings};

/// What the keeper is called in a list of processes, and how [`crate::child_main`] knows it.
pub(crate) const KEEPER: &str = "firebrick-sandbox";

/// Makes work folders unique among those of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// How a sandbox is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the work folder goes: on a disk with room for the unpacked image, not mounted `noexec`. Made if it is missing.
    pub folder: PathBuf,
    /// The program to start as keeper: one whose `main` calls [`crate::child_main`] first. Mostly `/proc/self/exe`.
    pub program: PathBuf,
    /// No later time stands in a layer.
    pub created: Timestamp,
    /// What steps see as the host's name.
    pub hostname: String,
    /// What `/etc/resolv.conf` says to steps with a network.
    pub resolver: Option<Vec<u8>>,
    /// Which ids to ask for.
    pub ids: Ids,
}

impl Options {
    /// In this folder, with this program as keeper; the rest as most have it.
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options {
            folder: folder.into(),
            program: "/proc/self/exe".into(),
            created: Timestamp::default(),
            hostname: "firebrick".to_owned(),
            resolver: std::fs::read("/etc/resolv.conf").ok(),
            ids: Ids::Auto,
        }
    }

    /// Which owners files can have in a sandbox with these options.
    pub fn owners(&self) -> Owners {
        choose(self.ids, &caller()).owners()
    }
}

/// A copy of a root filesystem, and the keeper that guards it. Dropping it ends every process in it and removes the copy.
#[derive(Debug)]
pub struct Sandbox {
    keeper: Child,
    /// What bounds the number of processes, where there can be one.
    group: Option<Group>,
    socket: UnixStream,
    work: PathBuf,
    /// Locked as long as somebody uses the work folder.
    _lock: File,
    owners: Owners,
    payload: Vec<u8>,
}

impl Sandbox {
    /// Starts a sandbox whose copy is empty. What killed ones left in the folder is removed.
    ///
    /// # Errors
    /// [`SandboxError`]: nothing is left then.
    pub fn start(options: &Options) -> Result<Sandbox, SandboxError> {
        make_folder(&options.folder)?;
        let mapping = choose(options.ids, &caller());
        // Until our own folder is locked, nobody else looks for ones that are not.
        let folder = File::open(&options.folder).map_err(SandboxError::host("open", &options.folder))?;
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)
            .map_err(|errno| SandboxError::host("lock", &options.folder)(errno.into()))?;
        for stale in stale(&options.folder) {
            // Whoever cannot remove it leaves it to the next.
            if let Ok(old) = Sandbox::over(options, &mapping, stale) {
                drop(old);
            }
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("run-{}-{count}", std::process::id());
        let work = options.folder.join(name);
        let mut builder = std::fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&work)
            .map_err(SandboxError::host("make the folder", &work))?;
        let lock = match locked(&work) {
            Some(lock) => lock,
            None => {
                let source = io::Error::other("another process locked it");
                return Err(SandboxError::host("lock", &work)(source));
            }
        };
        drop(folder);
        Sandbox::over(options, &mapping, (work.clone(), lock)).inspect_err(|_| _ = std::fs::remove_dir(&work))
    }

    /// A sandbox over a work folder that we locked.
    fn over(
        options: &Options,
        mapping: &Mapping,
        (work, lock): (PathBuf, File),
    ) -> Result<Sandbox, SandboxError> {
        if let Mapping::Direct { uid, gid } = mapping {
            chown(&work, Some(uid.outside), Some(gid.outside))
                .map_err(SandboxError::host("give to the sandbox's root", &work))?;
        }
        let (keeper, socket) = spawn(options, &lock)?;
        let mut sandbox = Sandbox {
            group: Group::with(keeper.id()),
            keeper,
            socket,
            work,
            _lock: lock,
            owners: mapping.owners(),
            payload: Vec::new(),
        };
        sandbox.expect("begin", Kind::Ready)?;
        map_ids(sandbox.keeper.id(), mapping)?;
        let ids = match sandbox.owners {
            Owners::Range(count) => count,
            Owners::Single => 1,
        };
        let name = sandbox.work.file_name().unwrap_or_default();
        let settings = Settings {
            ids,
            confined: confined(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()),
            created: (options.created.seconds, options.created.nanoseconds),
            hostname: options.hostname.clone(),
            resolver: options.resolver.clone(),
            folder: name.to_string_lossy().into_owned(),
        };
        wire::send_json(&sandbox.socket, Kind::Settings, &settings)
            .map_err(|_| SandboxError::Ended { doing: "begin" })?;
        sandbox.expect("begin", Kind::Done)?;
        Ok(sandbox)
    }

    /// Which owners files can have in the copy.
    pub fn owners(&self) -> Owners {
        self.owners
    }

    /// Whether a control group bounds how many processes a step has. Where none can be had, looks from time to time do.
    pub fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Takes the tar of what the copy shall hold: no whiteouts, every folder before what it holds, as `flatten` of
    /// `firebrick-build` writes it. Nothing is unpacked for good before [`Unpacker::finish`].
    pub fn unpack(&mut self) -> Unpacker<'_> {
        let frames = Frames {
            out: &self.socket,
            kind: Kind::Tar,
        };
        Unpacker {
            tar: BufWriter::with_capacity(256 << 10, frames),
            payload: &mut self.payload,
        }
    }

    /// Runs a step in the copy. `output` hears what it prints.
    ///
    /// # Errors
    /// [`SandboxError`] if the sandbox failed. A step that failed is an [`Outcome`].
    pub fn run(
        &mut self,
        step: &Step,
        limits: &Limits,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome, SandboxError> {
        let ended = |_| SandboxError::Ended { doing: "run a step" };
        let limited = self.group.as_ref().map(|group| group.limit(limits.processes));
        if let Some(Err(_)) = limited {
            self.group = None; // somebody took it away: the other bounds stay
        }
        let run = RunStep {
            step: step.clone(),
            limits: *limits,
        };
        wire::send_json(&self.socket, Kind::Run, &run).map_err(ended)?;
        loop {
            match self.answer("run a step")? {
                Kind::Output => output(&self.payload),
                Kind::Outcome => return wire::json(&self.payload).map_err(ended),
                _ => return Err(ended(io::Error::other("another answer was expected"))),
            }
        }
    }

    /// Writes what changed since the last layer, or since unpacking, as the tar of a layer.
    ///
    /// # Errors
    /// [`SandboxError`]: what was written until then is not a whole tar.
    pub fn layer(&mut self, out: &mut dyn Write) -> Result<(), SandboxError> {
        let ended = || SandboxError::Ended {
            doing: "write a layer",
        };
        wire::send(&self.socket, Kind::Layer, b"").map_err(|_| ended())?;
        loop {
            match self.answer("write a layer")? {
                Kind::LayerData => out
                    .write_all(&self.payload)
                    .map_err(SandboxError::host("write the layer of", "a step"))?,
                Kind::Done => return Ok(()),
                _ => return Err(ended()),
            }
        }
    }

    fn expect(&mut self, doing: &'static str, expected: Kind) -> Result<(), SandboxError> {
        match self.answer(doing)? {
            kind if kind == expected => Ok(()),
            _ => Err(SandboxError::Ended { doing }),
        }
    }

    fn answer(&mut self, doing: &'static str) -> Result<Kind, SandboxError> {
        answer(&self.socket, &mut self.payload, doing)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The keeper hears the end of the stream, ends what runs and removes the copy.
        _ = self.socket.shutdown(Shutdown::Write);
        let mut rest = [0; 8192];
        while matches!((&self.socket).read(&mut rest), Ok(1..)) {}
        _ = self.keeper.wait();
        _ = std::fs::remove_dir(&self.work);
    }
}

/// Where the tar of the copy goes.
#[derive(Debug)]
pub struct Unpacker<'a> {
    tar: BufWriter<Frames<&'a UnixStream>>,
    payload: &'a mut Vec<u8>,
}

impl Unpacker<'_> {
    /// Ends the tar, and waits until everything is in its place.
    ///
    /// # Errors
    /// [`SandboxError`] if something could not be unpacked.
    pub fn finish(self) -> Result<(), SandboxError> {
        let doing = "unpack";
        let ended = |_| SandboxError::Ended { doing };
        let Unpacker { tar, payload } = self;
        let frames = tar.into_inner().map_err(|error| ended(error.into_error()))?;
        wire::send(frames.out, Kind::TarEnd, b"").map_err(ended)?;
        match answer(frames.out, payload, doing)? {
            Kind::Done => Ok(()),
            _ => Err(SandboxError::Ended { doing }),
        }
    }
}

impl Write for Unpacker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tar.flush()
    }
}

fn answer(socket: &UnixStream, payload: &mut Vec<u8>, doing: &'static str) -> Result<Kind, SandboxError> {
    match wire::receive(socket, payload) {
        Ok(Some(Kind::Error)) => {
            let why = String::from_utf8_lossy(payload)
                .chars()
                .take(4000)
                .collect::<String>();
            Err(match why.strip_prefix("namespaces: ") {
                Some(why) => SandboxError::NoNamespaces { why: why.to_owned() },
                None => SandboxError::Inside { why },
            })
        }
        Ok(Some(kind)) => Ok(kind),
        Ok(None) | Err(_) => Err(SandboxError::Ended { doing }),
    }
}

fn make_folder(folder: &Path) -> Result<(), SandboxError> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(SandboxError::host("make the folder", folder))
}

/// Starts the keeper: standard input is its end of the socket, standard output the work folder.
fn spawn(options: &Options, lock: &File) -> Result<(Child, UnixStream), SandboxError> {
    let fail = SandboxError::host("start", &options.program);
    let parts = || -> io::Result<_> {
        let (ours, theirs) = UnixStream::pair()?;
        let folder: OwnedFd = lock.try_clone()?.into();
        let keeper = Command::new(&options.program)
            .arg0(KEEPER)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(folder))
            .stderr(Stdio::null())
            .spawn()?;
        Ok((keeper, ours))
    };
    parts().map_err(fail)
}

/// Folders that no one holds, of sandboxes that were killed.
fn stale(folder: &Path) -> Vec<(PathBuf, File)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"run-"));
    ours.map(|entry| entry.path())
        .filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir()))
        .filter_map(|path| locked(&path).map(|lock| (path, lock)))
        .collect()
}

/// Opens and locks a folder; `None` if somebody else holds it.
fn locked(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// What this process is, and what this system grants.
fn caller() -> Caller {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    let passwd = read("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let needed = rustix::thread::CapabilitySet::SETUID
        | rustix::thread::CapabilitySet::SETGID
        | rustix::thread::CapabilitySet::CHOWN;
    Caller {
        uid,
        gid: rustix::process::getegid().as_raw(),
        name,
        privileged: rustix::thread::capabilities(None).is_ok_and(|held| held.effective.contains(needed)),
        uid_map: read("/proc/self/uid_map"),
        gid_map: read("/proc/self/gid_map"),
        subuid: read("/etc/subuid"),
        subgid: read("/etc/subgid"),
        helpers: helper("newuidmap").is_some() && helper("newgidmap").is_some(),
    }
}

/// Where a helper is installed. Not by `PATH`: it is to be the system's own.
fn helper(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

fn map_ids(keeper: u32, mapping: &Mapping) -> Result<(), SandboxError> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/{keeper}/{file}");
        std::fs::write(&path, text).map_err(SandboxError::host("write", path))
    };
    let line = |map: &Extent| format!("{} {} {}\n", map.inside, map.outside, map.count);
    match mapping {
        Mapping::Direct { uid, gid } => {
            write("gid_map", line(gid))?;
            write("uid_map", line(uid))
        }
        Mapping::Single { uid, gid } => {
            write("setgroups", "deny".to_owned())?;
            write("gid_map", format!("0 {gid} 1\n"))?;
            write("uid_map", format!("0 {uid} 1\n"))
        }
        Mapping::Helper { uid, gid } => {
            help("newgidmap", keeper, gid)?;
            help("newuidmap", keeper, uid)
        }
    }
}

fn help(name: &str, keeper: u32, map: &[Extent]) -> Result<(), SandboxError> {
    let program = helper(name).unwrap_or_else(|| name.into());
    let mut command = Command::new(&program);
    command.arg(keeper.to_string()).env_clear().stdin(Stdio::null());
    for extent in map {
        command.args([extent.inside, extent.outside, extent.count].map(|number| number.to_string()));
    }
    let output = command.output().map_err(SandboxError::host("start", &program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = format!(
        "{name} failed: {}",
        said.trim().chars().take(400).collect::<String>()
    );
    Err(SandboxError::NoNamespaces { why })
}
