//! PID 1 of a step: mounts what the step sees, gives its own rights away, starts the step, and ends with it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::process::{Resource, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::mounts::{self, APT_CONFIG, SCRIPT, View};
use super::{Doing as _, Failure};
use crate::steps::Run;
use crate::users::Identity;
use crate::wire::{RunStep, Settings};
use crate::{seccomp, sys};

/// What distributions' tools need to put files into a tree, and to become other users.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL);

/// The last capability of Linux 6.x is 40; there is room for more.
const CAPABILITY_LAST: u32 = 63;

/// Open files of one process.
const FILES_MAX: u64 = 65536;

/// What PID 1 is started with.
pub(crate) struct Start<'a> {
    pub(crate) run: &'a RunStep,
    pub(crate) settings: &'a Settings,
    pub(crate) identity: &'a Identity,
    pub(crate) copy: &'a OwnedFd,
    pub(crate) resolver: bool,
    /// What the step prints goes here.
    pub(crate) output: OwnedFd,
    /// How it ended: `S` and a wait status, or `E`, what could not be done, and a NUL byte.
    pub(crate) status: OwnedFd,
}

/// Everything from here on is in the new namespaces; never returns.
pub(crate) fn be_pid_1(start: Start<'_>) -> ! {
    let status = File::from(start.status);
    let result = prepare(start.run, start.settings, start.copy, start.resolver)
        .and_then(|()| run(start.run, start.settings, start.identity, &start.output, &status));
    let report = match result {
        Ok(code) => [b"S".as_slice(), &code.to_le_bytes()].concat(),
        Err(Failure(why)) => [b"E", why.as_bytes(), b"\0"].concat(),
    };
    _ = (&status).write_all(&report);
    // With it everything in the namespace ends.
    sys::exit_now(0)
}

fn prepare(run: &RunStep, settings: &Settings, copy: &OwnedFd, resolver: bool) -> Result<(), Failure> {
    let single = settings.ids == 1;
    sys::die_with_parent().doing(|| "tie the step to the keeper".into())?;
    rustix::system::sethostname(settings.hostname.as_bytes()).doing(|| "set the host's name".into())?;
    let script = match &run.step.run {
        Run::Script(bytes) => Some(bytes.as_slice()),
        Run::Command(_) => None,
    };
    let view = View {
        script,
        resolver,
        single,
    };
    mounts::make(copy, &view)?;
    // If memory runs out, the step goes first.
    _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if !run.step.network {
        sys::loopback_up().doing(|| "bring the loopback interface up".into())?;
    }
    make_workdir(&run.step.workdir);
    let limits = &run.limits;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nofile, FILES_MAX),
        (Resource::Nproc, limits.processes),
        (Resource::Fsize, limits.disk_bytes),
        (Resource::Data, limits.memory_bytes),
        (Resource::Memlock, 8 << 20),
        (Resource::Msgqueue, 1 << 20),
    ] {
        sys::limit(resource, most).doing(|| format!("set the limit {resource:?}"))?;
    }
    give_up_rights(single)
}

/// As container engines do it. A path that leads out of the root cannot, since that is ours.
fn make_workdir(path: &str) {
    if !path.is_empty() {
        _ = std::fs::create_dir_all(Path::new("/").join(path));
    }
}

fn give_up_rights(single: bool) -> Result<(), Failure> {
    for number in 0..=CAPABILITY_LAST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !CAPABILITIES.contains(capability)
            && rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false)
        {
            rustix::thread::remove_capability_from_bounding_set(capability)
                .doing(|| format!("drop capability {number}"))?;
        }
    }
    rustix::thread::set_no_new_privs(true).doing(|| "forgo new rights".into())?;
    let sets = CapabilitySets {
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).doing(|| "drop capabilities".into())?;
    sys::not_dumpable().doing(|| "hide PID 1".into())?;
    sys::install_filter(&mut seccomp::program(single)).doing(|| "install the seccomp filter".into())
}

/// Starts the step and waits for it; gives its wait status.
fn run(
    run: &RunStep,
    settings: &Settings,
    identity: &Identity,
    output: &OwnedFd,
    status: &File,
) -> Result<i32, Failure> {
    let child = match sys::clone(0).doing(|| "fork".into())? {
        sys::Side::Parent { pid, pidfd } => {
            drop(pidfd);
            pid
        }
        sys::Side::Child => {
            let Failure(why) = become_step(run, settings, identity, output);
            // The parent only ever adds to this after we are gone.
            _ = (&*status).write_all(&[b"E", why.as_bytes(), b"\0"].concat());
            sys::exit_now(127)
        }
    };
    loop {
        // PID 1 is the parent of all whose own is gone.
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == child => return Ok(status.as_raw()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(|| "wait for the step".into()),
        }
    }
}

/// Becomes the step; comes back only if that fails.
fn become_step(run: &RunStep, settings: &Settings, identity: &Identity, output: &OwnedFd) -> Failure {
    let single = settings.ids == 1;
    let prepared = prepare_process(settings, identity, output);
    if let Err(failure) = prepared {
        return failure;
    }
    let step = &run.step;
    let workdir = Path::new("/").join(&step.workdir);
    if let Err(error) = std::env::set_current_dir(&workdir) {
        return Failure(format!("enter {}: {error}", workdir.display()));
    }
    let env = step
        .env
        .iter()
        .chain(step.network_env.iter().filter(|_| step.network));
    let env = env.map(|(name, value)| format!("{name}={value}"));
    let apt = (single && step.env.iter().all(|(name, _)| name != "APT_CONFIG"))
        .then(|| format!("APT_CONFIG={APT_CONFIG}"));
    let home = (step.env.iter().all(|(name, _)| name != "HOME")).then(|| format!("HOME={}", identity.home));
    let env: Option<Vec<CString>> = env
        .chain(apt)
        .chain(home)
        .map(|variable| CString::new(variable).ok())
        .collect();
    let argv: Vec<String> = match &step.run {
        Run::Script(bytes) if bytes.starts_with(b"#!") => vec![SCRIPT.to_owned()],
        Run::Script(_) => ["/bin/sh", "-e", SCRIPT].map(str::to_owned).to_vec(),
        Run::Command(argv) => argv.clone(),
    };
    let words: Option<Vec<CString>> = argv.iter().map(|word| CString::new(word.as_str()).ok()).collect();
    let (Some(env), Some(words)) = (env, words) else {
        return Failure("a word or a variable holds a NUL byte".to_owned());
    };
    let Some(program) = argv.first() else {
        return Failure("there is no program to start".to_owned());
    };
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for candidate in candidates(program, &step.env) {
        failed = sys::exec(&candidate, &words, &env);
        if !matches!(
            failed.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
        ) {
            break;
        }
    }
    let name = match &step.run {
        Run::Script(bytes) if bytes.starts_with(b"#!") => {
            let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
            format!(
                "the script's interpreter {:?}",
                String::from_utf8_lossy(&line[2..]).trim()
            )
        }
        _ => program.clone(),
    };
    Failure(format!("{name}: {failed}"))
}

fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path = env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or("/usr/bin:/bin", |(_, path)| path);
    let joined = path.split(':').map(|folder| Path::new(folder).join(program));
    joined
        .filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok())
        .collect()
}

fn prepare_process(settings: &Settings, identity: &Identity, output: &OwnedFd) -> Result<(), Failure> {
    use rustix::process::{Gid, Uid};
    let (single, confined) = (settings.ids == 1, settings.confined);
    rustix::process::setsid().doing(|| "start a session".into())?;
    let null = File::open("/dev/null").doing(|| "open /dev/null".into())?;
    sys::move_to(&null, 0).doing(|| "set standard input".into())?;
    for fd in [1, 2] {
        sys::move_to(output, fd).doing(|| "set the output".into())?;
    }
    sys::close_from_on_exec(3).doing(|| "close descriptors".into())?;
    sys::reset_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    if single {
        if identity.uid != 0 || identity.gid != 0 {
            let why = match confined {
                true => "become another user: there is only one id in this user namespace",
                false => {
                    "become another user: there is only one id here; give this user a range in /etc/subuid and /etc/subgid"
                }
            };
            return Err(Failure(why.to_owned()));
        }
        return Ok(());
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    rustix::thread::set_thread_groups(&groups).doing(|| "set the groups".into())?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("become group {}", identity.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("become user {}", identity.uid))
}
