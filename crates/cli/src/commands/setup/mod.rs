//! `firebrick setup`.

mod check;
mod download;
mod pins;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_digest::Digest;
use firebrick_vmm::Arch;
use firebrick_vmm::firecracker;
use firebrick_vmm::kernel::{self, Kernel, KernelError, SetupEvent, SetupRequest, Source};
use firebrick_vmm::qemu::probe;
use firebrick_vmm::release::Release;

use crate::error::{CliError, write_stdout};
use crate::home::Home;
use crate::host;
use crate::interrupt::Scratch;
use crate::talk::{Steps, Talk};
use crate::text;

/// Get the kernel and the VMM that VMs need, and check what else this host needs
///
/// Takes Debian's cloud kernel from this machine's package mirror, and those of other Debian releases (5.10, 6.1, 6.12) from the
/// same mirror; where there is none, Firecracker's own. Nothing is installed, and root is not needed. Whatever does not come through
/// apt, which checks the mirror's signatures, is pinned by its digest; downloads that broke off are gone on with. The path of the
/// kernel is printed on stdout.
///
/// Exit codes of --check: 0 if everything is there, 1 if something is missing, damaged, or another than what is named.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("downloads").args(["kernel_version", "firecracker_version"]).multiple(true))]
pub(crate) struct Args {
    /// Use this kernel (vmlinux, bzImage or ARM Image), which has everything built in
    #[arg(long, value_name = "PATH", conflicts_with_all = ["deb", "kernel_version", "url"])]
    kernel: Option<PathBuf>,

    /// Take the kernel out of this Debian package
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel_version", "url"])]
    deb: Option<PathBuf>,

    /// The beginning of the kernel's release: 5.10, 6.1
    #[arg(long, value_name = "VERSION", value_parser = parse_kernel_version, conflicts_with = "url")]
    kernel_version: Option<String>,

    /// Download this kernel (vmlinux, bzImage or ARM Image)
    #[arg(long, value_name = "URL", requires = "digest")]
    url: Option<String>,

    /// What the kernel of --url must be: sha256:…
    // What a flag requires is not asked for where that is in conflict with another: hence the conflicts of its own.
    #[arg(long, value_name = "DIGEST", requires = "url", conflicts_with_all = ["kernel", "deb", "kernel_version", "platform"])]
    digest: Option<Digest>,

    /// Take the kernel for another processor: linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = host::parse_arch, conflicts_with_all = ["kernel", "deb", "url"])]
    platform: Option<Arch>,

    /// Also download this Firecracker, with its jailer: 1.15.1
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    firecracker_version: Option<String>,

    /// What the archive of --firecracker-version must be, where firebrick does not know it: sha256:…
    #[arg(
        long,
        value_name = "DIGEST",
        requires = "firecracker_version",
        conflicts_with = "firecracker"
    )]
    firecracker_digest: Option<Digest>,

    /// Use the Firecracker in this file
    #[arg(long, value_name = "PATH", conflicts_with = "firecracker_version")]
    firecracker: Option<PathBuf>,

    /// Download what is not Debian's from here; the digests stay the same. With --kernel-version or --firecracker-version
    #[arg(long, value_name = "URL", requires = "downloads")]
    mirror: Option<String>,

    /// Do it again even if the very same is there
    #[arg(long)]
    force: bool,

    /// Only say what would be done and what is missing
    #[arg(long)]
    dry_run: bool,

    /// Only say what is there, and with the exit code whether it is enough and what the other flags name
    #[arg(long, conflicts_with_all = ["dry_run", "force", "mirror"])]
    check: bool,

    /// Print a JSON object, with --check
    #[arg(long, requires = "check", conflicts_with_all = ["dry_run", "force", "mirror"])]
    json: bool,
}

/// The beginning of a release, which becomes a part of a package's name.
fn parse_kernel_version(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~' | '-'));
    match fits {
        true => Ok(text.to_owned()),
        false => Err("expected the beginning of a release such as 6.1".to_owned()),
    }
}

/// A version of Firecracker, which becomes a part of an address.
fn parse_version(text: &str) -> Result<String, String> {
    let version = text.trim_start_matches('v');
    let fits = !version.is_empty()
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    match fits {
        true => Ok(version.to_owned()),
        false => Err("expected a version such as 1.15.1".to_owned()),
    }
}

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<ExitCode> {
    let home = Home::of_process()?;
    if args.check {
        return check::run(args, &home);
    }
    if args.dry_run {
        dry_run(args, &home)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.can_be_had()?;
    let wants_firecracker = args.firecracker_version.is_some() || args.firecracker.is_some();
    let steps = Arc::new(Steps::new(talk, if wants_firecracker { 3 } else { 2 }));
    let kernel = args.url.clone().unwrap_or_else(|| args.describe());
    steps.begin(1, &format!("Getting the kernel: {kernel}"));
    let scratch = Scratch::guarded().context("cannot listen for signals")?;
    let kernel = args.kernel(&home, &steps, talk, &scratch)?;
    let mut step = 2;
    if wants_firecracker {
        steps.begin(step, "Getting Firecracker");
        let release = args.firecracker(&home, &steps)?;
        steps.note(&format!("Firecracker {} ({})", release.version, release.origin));
        step = 3;
    }
    steps.begin(step, "Checking this host");
    check_host(&home, &kernel, &steps)?;
    write_stdout(format!("{}\n", kernel.path().display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Gets the kernel: what is asked for, or where Debian has none of that version, or is not here, Firecracker's of the same.
    fn kernel(
        &self,
        home: &Home,
        steps: &Arc<Steps>,
        talk: &Talk,
        scratch: &Scratch,
    ) -> anyhow::Result<Kernel> {
        let set_up = |source| {
            let request = SetupRequest {
                state: home.data().to_owned(),
                source,
                force: self.force,
            };
            kernel::setup(&request, &|event| match event {
                SetupEvent::Working { dir } => scratch.add(dir),
                event => note(steps, talk, event),
            })
        };
        if let (Some(url), Some(digest)) = (&self.url, self.digest) {
            let path = download::fetch(home, url, digest, steps)?;
            return set_up(Source::File(path)).context("cannot set up a kernel");
        }
        let error = match set_up(self.source()) {
            Err(error @ (KernelError::NoSuchVersion { .. } | KernelError::NoApt { .. })) => error,
            outcome => return outcome.context("cannot set up a kernel"),
        };
        let version = self.kernel_version.as_deref().unwrap_or(pins::USUAL_KERNEL);
        let Some(pin) = pins::kernel(self.mirror.as_deref(), version, self.arch()) else {
            return Err(error).context("cannot set up a kernel");
        };
        steps.note(&format!("{error}; Firecracker's own is taken"));
        let path = download::fetch(home, &pin.url, pin.digest, steps)?;
        set_up(Source::File(path)).context("cannot set up a kernel")
    }

    fn firecracker(&self, home: &Home, steps: &Arc<Steps>) -> anyhow::Result<Release> {
        let doing = "cannot set up Firecracker";
        if let Some(path) = &self.firecracker {
            let version = program_at(path)?.version().context(doing)?;
            return Release::install_program(home.data(), path, &version).context(doing);
        }
        let version = self.firecracker_version.as_deref().unwrap_or_default();
        let digest = self.firecracker_pin(version)?;
        let there = Release::installed(home.data()).ok().flatten();
        if let Some(release) = there.filter(|release| release.digest == digest.to_string() && !self.force) {
            steps.note("it is there already");
            return Ok(release);
        }
        let url = pins::firecracker_url(self.mirror.as_deref(), version, Arch::HOST);
        let archive = download::fetch(home, &url, digest, steps)?;
        let release =
            Release::install_archive(home.data(), &archive, version, &url, &digest).context(doing)?;
        let _ = std::fs::remove_file(&archive); // its programs are what is wanted; a later run fetches it again
        Ok(release)
    }

    /// What the archive must be. Where nobody has said it, nothing is downloaded.
    fn firecracker_pin(&self, version: &str) -> Result<Digest, CliError> {
        let known = || pins::firecracker(version, Arch::HOST);
        self.firecracker_digest
            .or_else(known)
            .ok_or_else(|| CliError::NoPin {
                version: version.to_owned(),
                known: pins::firecracker_versions().join(", "),
            })
    }

    /// Finds out before anything is done whether what the flags name can be had.
    fn can_be_had(&self) -> anyhow::Result<()> {
        self.must_be_readable()?;
        if let Some(path) = &self.firecracker {
            program_at(path)?.version().context("cannot set up Firecracker")?;
        }
        if let Some(version) = &self.firecracker_version {
            self.firecracker_pin(version)?;
        }
        Ok(())
    }

    fn source(&self) -> Source {
        match (&self.kernel, &self.deb) {
            // Where it came from is kept, and read from elsewhere.
            (Some(path), _) => Source::File(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            (None, Some(path)) => Source::Package(path.clone()),
            (None, None) => Source::Apt {
                version: self.kernel_version.clone(),
                arch: self.arch(),
            },
        }
    }

    /// What a run would do. Only that can tell whether the kernel that is there is the one that it would take.
    fn work(&self, is_there: bool, folder: &Path) -> String {
        let what = self.describe();
        let folder = folder.display();
        match is_there && !self.force {
            true => format!("compare {what} with that, and take it into {folder} only if it is another"),
            false => format!("take {what} into {folder}"),
        }
    }

    fn arch(&self) -> Arch {
        self.platform.unwrap_or(Arch::HOST)
    }

    fn describe(&self) -> String {
        if let (Some(url), Some(digest)) = (&self.url, self.digest) {
            return format!("{url}, which must be {digest}");
        }
        match self.source() {
            Source::File(path) => self.kernel.as_ref().unwrap_or(&path).display().to_string(),
            Source::Package(path) => format!("package {}", path.display()),
            Source::Apt { version, arch } => {
                let version = version.map(|version| format!(" {version}")).unwrap_or_default();
                let machine = match arch {
                    Arch::HOST => String::new(),
                    other => format!(" for linux/{}", other.debian_name()),
                };
                format!("Debian's cloud kernel{version}{machine}")
            }
        }
    }

    /// That the files that are named can be read, for a run that only says what it would do.
    fn must_be_readable(&self) -> anyhow::Result<()> {
        for path in [&self.kernel, &self.deb, &self.firecracker].into_iter().flatten() {
            let file = std::fs::File::open(path).and_then(|file| file.metadata());
            let meta = file.with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::ensure!(meta.is_file(), "{} is no file", path.display());
        }
        Ok(())
    }
}

/// The program in this very file, not one of that name in PATH.
fn program_at(path: &Path) -> anyhow::Result<firecracker::Program> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find {path:?}"))?;
    Ok(firecracker::Program::at(path))
}

fn note(steps: &Steps, talk: &Talk, event: SetupEvent) {
    match event {
        SetupEvent::UpdatingLists { suite: None } => {
            steps.note("fetching package lists (into a folder of our own)");
        }
        SetupEvent::UpdatingLists { suite: Some(suite) } => {
            steps.note(&format!(
                "looking into Debian {suite} (its lists go into a folder of our own)"
            ));
        }
        SetupEvent::Downloading { package } => steps.note(&format!("downloading {package}")),
        SetupEvent::Reading { path, size_bytes } => {
            steps.note(&format!(
                "reading {} ({})",
                path.display(),
                text::bytes(size_bytes)
            ));
        }
        SetupEvent::Extracted { release, size_bytes } => {
            steps.note(&format!("{} ({})", kernel_of(&release), text::bytes(size_bytes)));
        }
        SetupEvent::Modules { names, missing } => {
            talk.detail(&format!("      modules: {}", names.join(", ")));
            if !missing.is_empty() {
                steps.note(&format!("this kernel lacks: {}", missing.join(", ")));
            }
        }
        SetupEvent::AlreadyThere { release } => {
            steps.note(&format!("{} is there already", kernel_of(&release)))
        }
        SetupEvent::Ready { dir, .. } => talk.detail(&format!("      kept in {}", dir.display())),
        other => talk.event(&format!("      setup: {other:?}")),
    }
}

/// A kernel file's folder has a name that tells nobody anything.
fn kernel_of(release: &str) -> String {
    match release.starts_with("file-") {
        true => "this very kernel".to_owned(),
        false => format!("kernel {release}"),
    }
}

fn check_host(home: &Home, kernel: &Kernel, steps: &Steps) -> anyhow::Result<()> {
    let program = match host::find_qemu(kernel.manifest().arch) {
        Ok(program) => program,
        Err(error) => {
            // Firecracker alone is enough for this host's own processor.
            let set_up = Release::installed(home.data()).ok().flatten();
            let version = set_up
                .map(|release| release.version)
                .or_else(|| host::find_firecracker(home).map(|(_, version)| version));
            let Some(version) = version.filter(|_| kernel.manifest().arch == Arch::HOST) else {
                return Err(error);
            };
            steps.note(&format!("{error}; VMs run with Firecracker {version}"));
            return Ok(());
        }
    };
    let version = program.version()?;
    steps.note(&format!("QEMU {version} ({})", program.path().display()));
    let (_, choice) = probe::best(&program, kernel, home.data(), true)?;
    steps.note(&format!("VMs run with {}", host::accelerator(&choice)));
    Ok(())
}

fn dry_run(args: &Args, home: &Home) -> anyhow::Result<()> {
    args.must_be_readable()?;
    let kernel =
        Kernel::default_for(home.data(), args.arch()).and_then(|kernel| kernel.verify().map(|()| kernel));
    let (state, is_there) = match &kernel {
        Ok(kernel) => (format!("{} is set up", kernel.release()), true),
        Err(KernelError::NotSetUp { .. }) => ("none is set up".to_owned(), false),
        Err(error) => (format!("not usable: {error}"), false),
    };
    let folder = home.data().join("kernels");
    let mut lines = vec![
        format!("kernel:   {state}"),
        format!("would do: {}", args.work(is_there, &folder)),
    ];
    match host::find_qemu(args.arch()) {
        Ok(program) => lines.push(format!(
            "QEMU:     {} ({})",
            program.version()?,
            program.path().display()
        )),
        Err(error) => {
            lines.push(format!("QEMU:     {error}"));
            lines.extend(
                crate::hints::of(&error)
                    .into_iter()
                    .map(|advice| format!("          {advice}")),
            );
        }
    }
    if let Some(version) = &args.firecracker_version {
        let url = pins::firecracker_url(args.mirror.as_deref(), version, Arch::HOST);
        let digest = args.firecracker_pin(version)?;
        let there = Release::installed(home.data()).ok().flatten();
        let is_there = there.is_some_and(|release| release.digest == digest.to_string()) && !args.force;
        lines.push(match is_there {
            true => format!("would do: nothing for Firecracker {version}, which is there"),
            false => format!("would do: download {url}, which must be {digest}"),
        });
    }
    if let Some(path) = &args.firecracker {
        let version = program_at(path)?.version()?;
        let folder = firebrick_vmm::release::folder(home.data());
        lines.push(format!(
            "would do: take Firecracker {version} ({}) into {}",
            path.display(),
            folder.display()
        ));
    }
    lines.extend(check::firecracker_line(home));
    write_stdout((lines.join("\n") + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn versions_cannot_lead_elsewhere() {
        assert_eq!(parse_version("v1.15.1").unwrap(), "1.15.1");
        for bad in ["", "v", "../x", "1.0/../..", "1 0", "1?x"] {
            assert!(parse_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dry_run_says_what_a_run_does() {
        let work = |is_there, force: bool| {
            let mut words = vec!["x", "--kernel", "bzImage"];
            words.extend(force.then_some("--force"));
            let args = Command::parse_from(words).args;
            args.work(is_there, Path::new("/k"))
        };
        assert_eq!(work(false, false), "take bzImage into /k");
        assert_eq!(work(true, true), "take bzImage into /k");
        assert_eq!(
            work(true, false),
            "compare bzImage with that, and take it into /k only if it is another"
        );
    }
}
