//! Firecracker, driven over its API socket; in a jail of its own jailer if asked.
//!
//! - A [`Program`] is one Firecracker found on the host; a [`Jail`] is how its jailer locks it up.
//! - [`Firecracker`] is the two together and launches machines. Each has a *place*: a folder with its sockets and its log,
//!   gone with the machine.
//! - A [`Request`] is one call of the API. All that are ever sent are made in one file, `config.rs`.
//!
//! `docs/firecracker.md` tells what is sent, and what differs from QEMU.

mod api;
mod config;
mod drive_lock;
mod jail;
mod place;

use std::ffi::OsStr;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_protocol::agent::ShutdownMode;
use serde_json::Value;

use crate::console::{Console, Tail};
use crate::machine::{
    ControlError, Drive, Exit, LaunchError, Machine, MachineSpec, Port, Snapshot, Vmm, VmmFacts, Vsock,
    not_listening,
};
use crate::process::Process;
use crate::{deadline, program, uds};
use api::Api;
pub use api::{ApiError, Method, Request};
use config::Files;
pub use drive_lock::drive_is_written;
use drive_lock::{DriveLock, Locked};
use jail::Guard;
use place::{API_SOCKET, LOG, Place, VSOCK_SOCKET};

/// How Firecracker is installed: Debian has no package of it.
const INSTALL: &str =
    "get firecracker and jailer from Firecracker's releases and put them into a folder of PATH";

/// How long Firecracker may take to start, or to answer a request, on a busy host. Writing a snapshot takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after a broken request it may take until its process is seen to have ended.
const LAST_BREATH: Duration = Duration::from_millis(500);
/// How much may be printed while nobody reads; no user gets more without asking the host's owner (`pipe(7)`).
const CONSOLE_ROOM_BYTES: usize = 1 << 20;
/// How much of the log is shown.
const LOG_SHOWN_BYTES: u64 = 16 << 10;

/// A Firecracker on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Finds Firecracker in the folders of `search_path`, which is written as `PATH` is.
    ///
    /// # Errors
    /// [`LaunchError::NotInstalled`].
    pub fn find(search_path: &OsStr) -> Result<Program, LaunchError> {
        let program = "firecracker";
        match program::find(search_path, program) {
            Some(path) => Ok(Program { path }),
            None => Err(LaunchError::NotInstalled {
                program,
                install: INSTALL,
            }),
        }
    }

    /// The Firecracker at this path.
    pub fn at(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, as it says it itself: `1.10.1`.
    ///
    /// # Errors
    /// [`LaunchError::Start`] if it does not start or says none.
    pub fn version(&self) -> Result<String, LaunchError> {
        let start = |source| LaunchError::Start {
            program: self.path.clone(),
            source,
        };
        let output = Command::new(&self.path)
            .arg("--version")
            .output()
            .map_err(start)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("Firecracker v"))
            .map(|version| version.trim().to_owned());
        version.ok_or_else(|| start(io::Error::other("it does not tell its version")))
    }
}

/// How Firecracker is locked up: in a root of its own, as a user who may nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// The jailer, which needs root.
    pub jailer: PathBuf,
    /// The user that Firecracker becomes.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The folder in which the roots are made. Images are linked into them if it is on their filesystem, and copied otherwise.
    pub base: PathBuf,
    /// Copies what is only read, also where it could be linked: a link changes the file's ctime, which others may have noted.
    pub copies: bool,
}

impl Jail {
    /// A jail by the jailer in the folders of `search_path`.
    ///
    /// # Errors
    /// [`LaunchError::NotInstalled`].
    pub fn find(search_path: &OsStr, uid: u32, gid: u32, base: PathBuf) -> Result<Jail, LaunchError> {
        let program = "jailer";
        match program::find(search_path, program) {
            Some(jailer) => Ok(Jail {
                jailer,
                uid,
                gid,
                copies: false,
                base,
            }),
            None => Err(LaunchError::NotInstalled {
                program,
                install: INSTALL,
            }),
        }
    }
}

/// Launches machines with one program.
#[derive(Clone, Debug)]
pub struct Firecracker {
    program: Program,
    run: PathBuf,
    jail: Option<Jail>,
    patience: Duration,
    hear: Option<Hear>,
}

/// Who hears of what is not as it should be, though the machine starts.
#[derive(Clone)]
struct Hear(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Hear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hear")
    }
}

impl Firecracker {
    /// A launcher whose machines have their folders in `run`.
    pub fn new(program: Program, run: impl Into<PathBuf>) -> Firecracker {
        Firecracker {
            program,
            run: run.into(),
            jail: None,
            patience: PATIENCE,
            hear: None,
        }
    }

    /// The same, with another limit for the start and for the answer to any one request than a minute.
    pub fn with_patience(self, patience: Duration) -> Firecracker {
        Firecracker { patience, ..self }
    }

    /// The same, with every machine in a jail.
    pub fn with_jail(self, jail: Jail) -> Firecracker {
        Firecracker {
            jail: Some(jail),
            ..self
        }
    }

    /// The same, which tells `hear` what is not as it should be, though a machine starts.
    pub fn with_warnings(self, hear: impl Fn(&str) + Send + Sync + 'static) -> Firecracker {
        Firecracker {
            hear: Some(Hear(Arc::new(hear))),
            ..self
        }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Starts the process, and waits until it listens.
    fn start(&self) -> Result<FirecrackerMachine, LaunchError> {
        let host = |action| move |source: io::Error| LaunchError::Host { action, source };
        let start = |source| LaunchError::Start {
            program: self.program.path.clone(),
            source,
        };
        let place = Place::make(self).map_err(host("make a folder for Firecracker"))?;
        place
            .own_file(LOG, b"")
            .map_err(host("write into Firecracker's folder"))?;
        // Two pipes: it sets its input non-blocking, and would lose what it prints if that were the same.
        let (input, typed) = io::pipe().map_err(host("make a pipe"))?;
        let (printed, output) = io::pipe().map_err(host("make a pipe"))?;
        // It waits for nobody: what does not fit is lost. Where this user may not have so much it stays as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, CONSOLE_ROOM_BYTES);
        let terminal = (input.into(), output.into());
        let program = std::path::absolute(&self.program.path).map_err(start)?;
        let command = place.command(&program);
        let (process, stderr) = Process::start(command, Vec::new(), Some(terminal)).map_err(start)?;
        let guard = match place.is_jail() {
            true => Some(Guard::of(process.id()).map_err(host("start a guard for the jail"))?),
            false => None,
        };
        let machine = FirecrackerMachine {
            process,
            _guard: guard,
            program: self.program.path.clone(),
            patience: self.patience,
            console: Console::of(printed.into(), typed.into()).map_err(host("start a thread"))?,
            complaints: Tail::of(stderr, "complaints").map_err(host("start a thread"))?,
            before: Vec::new(),
            api: Api {
                socket: place.reach(API_SOCKET),
            },
            vsock: None,
            link: None,
            drives: Vec::new(),
            _locks: Vec::new(),
            place,
        };
        machine.wait_until_it_listens()?;
        Ok(machine)
    }

    /// Locks the drives that can be.
    fn lock(&self, drives: &[Drive]) -> Result<Vec<DriveLock>, LaunchError> {
        let mut held = Vec::new();
        for drive in drives {
            match drive_lock::lock(drive)? {
                Locked::Held(lock) => held.push(lock),
                Locked::Impossible(error) => {
                    let warning = format!(
                        "{} cannot be locked, so nothing stops two VMs from writing it at once: {error}",
                        drive.path.display()
                    );
                    if let Some(Hear(hear)) = &self.hear {
                        hear(&warning);
                    }
                }
            }
        }
        Ok(held)
    }

    fn assemble(&self, spec: &MachineSpec) -> Result<FirecrackerMachine, LaunchError> {
        config::check(spec)?;
        let locks = self.lock(&spec.drives)?;
        let mut machine = self.start()?;
        machine._locks = locks;
        let files = machine.bring(spec)?;
        for request in config::requests(spec, &files, LOG) {
            machine.request(&request)?;
        }
        machine.drives.clone_from(&spec.drives);
        // What it has said until now is its own; from here on the guest speaks.
        machine.before = machine.console.printed().take();
        machine.request(&config::start())?;
        Ok(machine)
    }
}

impl Vmm for Firecracker {
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError> {
        Ok(Box::new(self.assemble(spec)?))
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn Machine>, LaunchError> {
        let locks = self.lock(&snapshot.drives)?;
        let mut machine = self.start()?;
        machine._locks = locks;
        for (index, drive) in snapshot.drives.iter().enumerate() {
            machine
                .place
                .bring(&drive.path, &config::drive_id(index), drive.read_only)?;
        }
        let state = machine.place.bring_snapshot(&snapshot.state, "state")?;
        let memory = machine.place.bring_snapshot(&snapshot.memory, "memory")?;
        machine.drives.clone_from(&snapshot.drives);
        machine.vsock = Some(machine.place.reach(VSOCK_SOCKET));
        machine.request(&config::logger(LOG))?;
        machine.before = machine.console.printed().take();
        machine.request(&config::snapshot_load(&state, &memory))?;
        Ok(Box::new(machine))
    }

    fn facts(&self) -> VmmFacts {
        facts()
    }
}

/// What Firecracker's guests are made for.
pub fn facts() -> VmmFacts {
    VmmFacts {
        exit: ShutdownMode::Reboot,
        // The last two hear Ctrl-Alt-Del.
        modules: &["virtio_mmio", "virtio_rng", "i8042", "atkbd"],
        vsock: Vsock::Host,
        needs_vsock: true,
        snapshots: true,
    }
}

/// The document that `firecracker --config-file` reads, for a machine whose initramfs lies in that file. The vsock, if there is one,
/// must be a [`Vsock::Socket`].
///
/// # Errors
/// [`LaunchError::Unsupported`] if Firecracker cannot do what is asked for.
pub fn config_file(spec: &MachineSpec, initramfs: &Path) -> Result<Value, LaunchError> {
    config::check(spec)?;
    let socket = match &spec.vsock {
        Vsock::Socket(socket) => Some(place::absolute(socket)?),
        Vsock::None | Vsock::Host => None,
    };
    let drives = spec.drives.iter().map(|drive| place::absolute(&drive.path));
    let files = Files {
        kernel: place::absolute(&spec.kernel)?,
        initramfs: Some(place::absolute(initramfs)?),
        drives: drives.collect::<Result<_, _>>()?,
        vsock: socket,
    };
    Ok(config::config_file(spec, &files))
}

/// A machine that Firecracker runs. Its fields are dropped in this order: first the process ends.
#[derive(Debug)]
struct FirecrackerMachine {
    process: Process,
    _guard: Option<Guard>,
    program: PathBuf,
    patience: Duration,
    console: Console,
    complaints: Tail,
    /// What it printed before the guest did.
    before: Vec<u8>,
    api: Api,
    /// Where we reach its vsock.
    vsock: Option<PathBuf>,
    link: Option<Link>,
    drives: Vec<Drive>,
    _locks: Vec<DriveLock>,
    place: Place,
}

/// A name of the user's for a socket; removed on drop.
#[derive(Debug)]
struct Link(PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl FirecrackerMachine {
    fn wait_until_it_listens(&self) -> Result<(), LaunchError> {
        let deadline = deadline::after(self.patience);
        loop {
            match uds::connect(&self.api.socket) {
                Ok(_) => return Ok(()),
                Err(_) if self.process.exit().is_some() => return Err(self.ended()),
                Err(source) if Instant::now() >= deadline => {
                    return Err(LaunchError::Host {
                        action: "reach Firecracker's API socket",
                        source,
                    });
                }
                Err(_) => {
                    self.process.wait(Duration::from_millis(2));
                }
            }
        }
    }

    /// Makes the machine's files reachable for Firecracker.
    fn bring(&mut self, spec: &MachineSpec) -> Result<Files, LaunchError> {
        let host = |action| move |source: io::Error| LaunchError::Host { action, source };
        let place = &self.place;
        let kernel = place.bring(&spec.kernel, "kernel", true)?;
        let initramfs = spec
            .initramfs
            .as_deref()
            .map(|bytes| place.own_file("initramfs", bytes));
        let initramfs = initramfs
            .transpose()
            .map_err(host("write the initramfs into Firecracker's folder"))?;
        let drives = spec.drives.iter().enumerate().map(|(index, drive)| {
            let id = config::drive_id(index);
            place.bring(&drive.path, &id, drive.read_only)
        });
        let drives = drives.collect::<Result<_, _>>()?;
        let vsock = match &spec.vsock {
            Vsock::None => None,
            Vsock::Host => {
                self.vsock = Some(place.reach(VSOCK_SOCKET));
                Some(VSOCK_SOCKET.to_owned())
            }
            Vsock::Socket(path) => {
                uds::remove_stale(path).map_err(host("make the vsock socket"))?;
                let link = Link(std::path::absolute(path).map_err(host("make the vsock socket"))?);
                self.vsock = Some(place.reach(VSOCK_SOCKET));
                let named = match place.is_jail() {
                    // Firecracker sees nothing outside; a link leads in.
                    true => {
                        std::os::unix::fs::symlink(place.root().join(VSOCK_SOCKET), &link.0)
                            .map_err(host("make the vsock socket"))?;
                        VSOCK_SOCKET.to_owned()
                    }
                    false => {
                        self.vsock = Some(link.0.clone());
                        place::absolute(path)?
                    }
                };
                self.link = Some(link);
                Some(named)
            }
        };
        Ok(Files {
            kernel,
            initramfs,
            drives,
            vsock,
        })
    }

    /// Makes a request while the machine is set up.
    fn request(&self, request: &Request) -> Result<(), LaunchError> {
        match self.api.send(request, self.patience) {
            Ok(()) => Ok(()),
            Err(error @ ApiError::Broken { .. }) => match self.process.wait(LAST_BREATH) {
                Some(_) => Err(self.ended()),
                None => Err(LaunchError::Api(error)),
            },
            Err(error) => Err(LaunchError::Api(error)),
        }
    }

    /// Makes a request to a machine that runs.
    fn control(&self, request: &Request) -> Result<(), ControlError> {
        self.api.send(request, self.patience).map_err(ControlError::Api)
    }

    fn ended(&self) -> LaunchError {
        // The last words are still on their way through the collecting threads.
        std::thread::sleep(Duration::from_millis(50));
        let exit = self.process.exit().unwrap_or(Exit {
            code: None,
            signal: None,
        });
        let printed = String::from_utf8_lossy(&self.console.printed().bytes()).into_owned();
        let said = [self.said(), printed].join("\n");
        LaunchError::Ended {
            program: self.program.clone(),
            exit,
            said: last_lines(&said, 4),
        }
    }

    /// What it printed before the guest did, to stderr, and to its log.
    fn said(&self) -> String {
        let log = tail_of(&self.place.reach(LOG)).unwrap_or_default();
        let parts = [self.before.clone(), self.complaints.bytes(), log];
        parts
            .map(|part| String::from_utf8_lossy(&part).into_owned())
            .concat()
    }
}

/// The end of a file.
fn tail_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = place::open_itself(path)?;
    let len = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(len.saturating_sub(LOG_SHOWN_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_SHOWN_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("; ")
}

impl Machine for FirecrackerMachine {
    fn dial(&self, port: Port, limit: Duration) -> io::Result<OwnedFd> {
        match &self.vsock {
            Some(socket) => uds::dial(socket, port, limit, &|| self.process.exit().is_some()),
            None => Err(not_listening(port)),
        }
    }

    fn wait(&self, limit: Duration) -> io::Result<Option<Exit>> {
        Ok(self.process.wait(limit))
    }

    fn listen(&self, port: Port) -> io::Result<UnixListener> {
        let Some(socket) = &self.vsock else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the machine has no vsock",
            ));
        };
        let listener = uds::listen(socket, port)?;
        self.place.give(&uds::listener_path(socket, port))?;
        Ok(listener)
    }

    fn press_ctrl_alt_del(&self) -> Result<(), ControlError> {
        self.control(&config::action("SendCtrlAltDel"))
    }

    fn pause(&self) -> Result<(), ControlError> {
        self.control(&config::state("Paused"))
    }

    fn resume(&self) -> Result<(), ControlError> {
        self.control(&config::state("Resumed"))
    }

    fn snapshot(&self, folder: &Path) -> Result<Snapshot, ControlError> {
        if self.link.is_some() {
            return Err(ControlError::Unsupported {
                what: "a snapshot of this machine",
                reason: "its vsock has a name that every restored machine would want".to_owned(),
            });
        }
        let host = |source| ControlError::Host {
            action: "keep a snapshot",
            source,
        };
        let (state, memory) = (folder.join("state"), folder.join("memory"));
        let inside = |path: &Path, name: &str| {
            let inside = self.place.outgoing(path, name);
            inside.map_err(|error| host(io::Error::other(error.to_string())))
        };
        let request = config::snapshot_create(&inside(&state, "state")?, &inside(&memory, "memory")?);
        self.control(&request)?;
        self.place.fetch(&state, "state").map_err(host)?;
        self.place.fetch(&memory, "memory").map_err(host)?;
        Ok(Snapshot {
            state,
            memory,
            drives: self.drives.clone(),
        })
    }

    fn kill(&self) {
        self.process.kill();
    }

    fn console(&self) -> Vec<u8> {
        self.console.printed().bytes()
    }

    fn complaints(&self) -> String {
        self.said()
    }

    fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn attach_console(&self) -> io::Result<OwnedFd> {
        self.console.attach()
    }
}
