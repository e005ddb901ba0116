//! `firebrick setup`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_vmm::Arch;
use firebrick_vmm::kernel::{self, Kernel, KernelError, SetupEvent, SetupRequest, Source};
use firebrick_vmm::qemu::probe;

use crate::home::Home;
use crate::host;
use crate::talk::{Steps, Talk};
use crate::text;

/// Get the kernel that VMs boot, and check what else this host needs
///
/// Takes Debian's cloud kernel from this machine's package mirror. Nothing is installed, and root is not needed. The path
/// of the kernel is printed on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use this kernel (vmlinux or bzImage), which has everything built in
    #[arg(long, value_name = "PATH", conflicts_with_all = ["deb", "kernel_version"])]
    kernel: Option<PathBuf>,

    /// Take the kernel out of this Debian package
    #[arg(long, value_name = "FILE", conflicts_with = "kernel_version")]
    deb: Option<PathBuf>,

    /// The beginning of the kernel's release, e.g. 6.1
    #[arg(long, value_name = "VERSION")]
    kernel_version: Option<String>,

    /// Take the kernel for another processor: linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = host::parse_arch, conflicts_with_all = ["kernel", "deb"])]
    platform: Option<Arch>,

    /// Do it again even if the very same kernel is there
    #[arg(long)]
    force: bool,

    /// Only say what would be done and what is missing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    if args.dry_run {
        return dry_run(args, &home);
    }
    let steps = Steps::new(talk, 2);
    steps.begin(1, &format!("Getting the kernel: {}", args.describe()));
    let request = SetupRequest {
        state: home.data().to_owned(),
        source: args.source(),
        force: args.force,
    };
    let kernel =
        kernel::setup(&request, &|event| note(&steps, talk, event)).context("cannot set up a kernel")?;
    steps.begin(2, "Checking this host");
    check_host(&home, &kernel, &steps)?;
    crate::error::write_stdout(format!("{}\n", kernel.path().display()).as_bytes())
}

impl Args {
    fn source(&self) -> Source {
        match (&self.kernel, &self.deb) {
            (Some(path), _) => Source::File(path.clone()),
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
        match self.source() {
            Source::File(path) => path.display().to_string(),
            Source::Package(path) => format!("package {}", path.display()),
            Source::Apt {
                version: Some(version),
                ..
            } => format!("Debian's cloud kernel {version}"),
            Source::Apt { version: None, .. } => "Debian's cloud kernel".to_owned(),
        }
    }
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
            steps.note(&format!("kernel {release} ({})", text::bytes(size_bytes)));
        }
        SetupEvent::Modules { names, missing } => {
            talk.detail(&format!("      modules: {}", names.join(", ")));
            if !missing.is_empty() {
                steps.note(&format!("this kernel lacks: {}", missing.join(", ")));
            }
        }
        SetupEvent::AlreadyThere { release } => steps.note(&format!("kernel {release} is there already")),
        SetupEvent::Ready { dir, .. } => talk.detail(&format!("      kept in {}", dir.display())),
        other => talk.event(&format!("      setup: {other:?}")),
    }
}

fn check_host(home: &Home, kernel: &Kernel, steps: &Steps) -> anyhow::Result<()> {
    let program = host::find_qemu(kernel.manifest().arch)?;
    let version = program.version()?;
    steps.note(&format!("QEMU {version} ({})", program.path().display()));
    let (_, choice) = probe::best(&program, kernel, home.data(), true)?;
    steps.note(&format!("VMs run with {}", host::accelerator(&choice)));
    Ok(())
}

fn dry_run(args: &Args, home: &Home) -> anyhow::Result<()> {
    let kernel =
        Kernel::default_for(home.data(), args.arch()).and_then(|kernel| kernel.verify().map(|()| kernel));
    let (state, is_there) = match &kernel {
        Ok(kernel) => (format!("{} is set up", kernel.manifest().release), true),
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
    crate::error::write_stdout((lines.join("\n") + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_what_a_run_does() {
        let work = |is_there, force| {
            let args = Args {
                kernel: Some(PathBuf::from("bzImage")),
                deb: None,
                kernel_version: None,
                platform: None,
                force,
                dry_run: true,
            };
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
