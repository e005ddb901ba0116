//! What a person can do about a failure: the libraries' errors carry facts, the advice is here.

mod bootstrap;
mod edit;
mod firecracker;
mod layer;
mod recipe;
mod registry;
mod sandbox;
mod source;
mod store;

use std::error::Error;
use std::io;
use std::path::Path;

use firebrick_build::BuildError;
use firebrick_customise::{CustomiseError, SettingError};
use firebrick_ext4::PlanError;
use firebrick_ext4::read::ReadError;
use firebrick_source::Platform;
use firebrick_vmm::Arch;
use firebrick_vmm::client::{CallError, CopyError};
use firebrick_vmm::kernel::KernelError;
use firebrick_vmm::{BootError, LaunchError, RunError};

use crate::edited::Refusal;
use crate::error::CliError;
use crate::home::NoHome;
use crate::lazy;
use crate::recipes::RecipeFault;
use crate::steps::NotAScript;
use crate::text;
use crate::trust::Refused;

/// For content that is not what its digest promises.
const DAMAGED: &str =
    "the image is damaged or was tampered with: get it again, or push it again from where it was made";

/// Advice for the errors in the chain, outermost first, each once.
pub(crate) fn of(error: &anyhow::Error) -> Vec<String> {
    if let Some(stdout @ CliError::Stdout { .. }) = error.downcast_ref() {
        return of_cli(stdout); // what the host says of it is not about our files
    }
    if let Some(CliError::Folder { source, .. }) = error.downcast_ref()
        && let Some(hint) = layer::of_folder(source)
    {
        return vec![hint]; // nobody made that layer but us
    }
    if let Some(RunError::Call(CallError::Output { .. })) = error.downcast_ref() {
        return vec!["where its output leads cannot take it; see what is full: df -h".to_owned()];
    }
    if let Some(hint) = error.chain().find_map(store::of_place) {
        return vec![hint]; // no flag writes elsewhere
    }
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        // What the host says in general helps only where nobody knows better.
        let is_general = cause.downcast_ref().is_some_and(|error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            )
        });
        if is_general && !hints.is_empty() {
            continue;
        }
        for hint in of_one(cause) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    hints
}

/// Settings that an image has no place for.
fn of_setting(error: &SettingError) -> String {
    match error {
        SettingError::Taken { .. } | SettingError::Unknown { .. } => {
            "see who is in the image: firebrick rootfs cat IMAGE /etc/passwd /etc/group".to_owned()
        }
        SettingError::NoConsole { .. } => "choose who is PID 1: --init systemd, openrc or busybox".to_owned(),
        SettingError::NoProgram { package, .. } => format!("put it into the image first: package {package}"),
        _ => "the image is odd there: change it where it is made".to_owned(),
    }
}

fn of_one(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return of_cli(error);
    }
    if let Some(error) = error.downcast_ref::<Refused>() {
        return error.hints();
    }
    if let Some(error) = error.downcast_ref::<RecipeFault>() {
        return recipe::of_fault(error);
    }
    // One of these is the error's type.
    let hints = [
        hint(error, source::of),
        hint(error, store::of),
        hint(error, store::of_bucket),
        hint(error, bootstrap::of),
        hint(error, of_build),
        hint(error, sandbox::of),
        hint(error, recipe::of_problems),
        hint(error, recipe::of_copy),
        hint(error, |error: &NotAScript| Some(of_no_script(error))),
        hint(error, layer::of_scan),
        hint(error, |error: &Refusal| Some(error.hint())),
        hint(error, edit::of_edit),
        hint(error, of_read),
        hint(error, of_read_squashfs),
        hint(error, of_launch),
        hint(error, firecracker::of_api),
        hint(error, of_kernel),
        hint(error, of_boot),
        hint(error, of_host),
        hint(error, of_customise),
        hint(error, of_copy),
        hint(error, of_run),
        hint(error, |_: &NoHome| {
            Some("say where: export FIREBRICK_HOME=/some/folder".to_owned())
        }),
    ];
    hints.into_iter().flatten().collect()
}

/// What helps against an error, if it is an `E`.
fn hint<E: Error + 'static>(
    error: &(dyn Error + 'static),
    of: impl FnOnce(&E) -> Option<String>,
) -> Option<String> {
    error.downcast_ref().and_then(of)
}

fn of_run(error: &RunError) -> Option<String> {
    match error {
        RunError::Copy(error) => of_copy(error),
        RunError::MachineEnded { .. } => Some("if it was short of memory, give it more: --mem 1G".to_owned()),
        _ => None,
    }
}

fn of_customise(error: &CustomiseError) -> Option<String> {
    let culprit = match error {
        CustomiseError::Blocked { blocked, .. } => Some(blocked.as_path()),
        CustomiseError::Hidden { path, .. } => path.parent(),
        CustomiseError::Setting { source, .. } => return Some(of_setting(source)),
        _ => None,
    };
    culprit.map(|culprit| {
        format!(
            "firebrick's own files go there: change it where the image is made, with: rm {}",
            culprit.display()
        )
    })
}

/// What was not copied into a VM or out of it.
fn of_copy(error: &CopyError) -> Option<String> {
    match error {
        CopyError::Taken { .. } => Some(
            "name a file or folder that firebrick may make: --get SRC:./out; to pass bytes on, let the program print them"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_cli(error: &CliError) -> Vec<String> {
    match error {
        CliError::NoSuchImage { to_make, known, .. } => {
            let image = usual_image(to_make);
            let make = format!("make it: firebrick rootfs from-docker -n {to_make} -i {image}");
            if known.is_empty() {
                return vec![make];
            }
            vec![format!("there are: {}", known.join(", ")), make]
        }
        CliError::NoStore { .. } | CliError::NoSuchStore { .. } => store::of_command(error),
        CliError::Unsigned { .. } => store::of_command(error),
        CliError::NotOnBase { .. } => {
            vec!["choose another base: -b alpine, -b debian or -b ubuntu; see: firebrick rootfs create --help".to_owned()]
        }
        CliError::NoFilesystem => vec!["see what it is: file PATH; if it was an ext4 image once: e2fsck -fn PATH".to_owned()],
        CliError::NoSuchFile { .. } => vec!["list the images of this host: firebrick rootfs list".to_owned()],
        CliError::NoSuchPath { image, .. } => vec![of_no_path(image)],
        CliError::NoImageFile { path, is_folder } => vec![of_no_image_file(path, *is_folder)],
        CliError::OtherPlatform { image, .. } => of_other_platform(image),
        CliError::NoSuchLanguage { .. } => vec![
            "for shell code give -l sh; what else the image has can be called: -- PROGRAM ARGS, or -- sh -c 'CODE'"
                .to_owned(),
        ],
        CliError::CodeTooLong { .. } => vec![
            "send it on standard input: firebrick run -- sh -c 'cat > /tmp/code && exec PROGRAM /tmp/code' < FILE; \
             or put it into the image"
                .to_owned(),
        ],
        CliError::SocketPath { .. } => vec!["give a shorter one: --vsock /tmp/vm.sock".to_owned()],
        CliError::SocketFolder { folder } => vec![format!("make it: mkdir -p {}", folder.display())],
        CliError::InitWithoutGuest => vec!["leave one of the two flags out".to_owned()],
        CliError::NotOfFormat { flag, format } => vec![of_format(flag, format)],
        CliError::CompressionLevel { .. } => vec!["leave --compression-level out for the usual one".to_owned()],
        CliError::OutputIsFolder { .. } | CliError::OutputFolder { .. } | CliError::OutputIsNoFile { .. } => {
            of_output(error)
        }
        CliError::MemoryOfHost { .. } | CliError::Overlay { .. } => of_memory(error),
        CliError::OtherProcessor { machine, arch, .. } => of_other_processor(*machine, *arch),
        CliError::OtherPrograms { machine, .. } => vec![of_other_programs(*machine)],
        CliError::NoPin { version, .. } => vec![of_no_pin(version)],
        CliError::NoGuestFor { arch } => vec![format!(
            "build firebrick with a Rust that can build for it: rustup target add {arch}-unknown-linux-gnu"
        )],
        CliError::NodeNeedsKernel { .. } => {
            vec!["get a newer kernel: firebrick setup --kernel-version 6.1".to_owned()]
        }
        CliError::NothingToRun { image } | CliError::Refused { image, .. } if lazy::is_served(image) => {
            vec![store::of_served()]
        }
        CliError::NothingToRun { image } => vec![format!(
            "say what to run: firebrick run -i {} -- COMMAND",
            image.display()
        )],
        CliError::Refused { image, source } => of_refusal(&image.display().to_string(), source),
        CliError::BadEnd { .. } => vec![
            "the console above tells what came before; without --init and --append firebrick's own guest starts: \
             firebrick boot IMAGE"
                .to_owned(),
        ],
        CliError::VmmEnded { .. } => vec!["see whether VMs run here at all: firebrick setup".to_owned()],
        CliError::NoPool { .. } | CliError::PoolExists { .. } | CliError::PoolSilent { .. } => of_pool(error),
        CliError::KeeperEnded { .. } | CliError::PoolStopped { .. } | CliError::NotFromPool { .. } => {
            of_pool(error)
        }
        CliError::JailedQemu | CliError::FirecrackerArch { .. } | CliError::NoVmm { .. } => of_vmm(error),
        CliError::Stdout { .. } => vec!["where stdout leads cannot take it: df -h".to_owned()],
        CliError::Folder { .. } | CliError::ClosedStdout => Vec::new(),
    }
}

fn of_no_script(error: &NotAScript) -> String {
    let path = error.path.display();
    match error.is_folder {
        true => format!("name a file in it: ls {path}"),
        false => format!("keep it in a file, and name that: cat {path} > script.sh"),
    }
}

/// What helps where an image cannot be written.
fn of_output(error: &CliError) -> Vec<String> {
    match error {
        CliError::OutputIsFolder {
            inside, exists: true, ..
        } => {
            vec![format!("name the file, too: -o {}", inside.display())]
        }
        CliError::OutputIsFolder { path, inside, .. } => vec![format!(
            "make the folder, mkdir -p {}, and name the file, too: -o {}",
            path.display(),
            inside.display()
        )],
        CliError::OutputFolder {
            folder,
            missing: true,
        } => vec![format!("make it: mkdir -p {}", folder.display())],
        _ => {
            vec!["give -o the name of a file in a folder that you may write to".to_owned()]
        }
    }
}

fn of_no_path(image: &Path) -> String {
    format!("see what is there: firebrick rootfs tree {}", image.display())
}

fn of_no_image_file(path: &Path, is_folder: bool) -> String {
    let path = path.display();
    match is_folder {
        true => format!("make an image of what is in it: firebrick rootfs from-docker -n NAME -i dir:{path}"),
        false => format!("see what it is: ls -l {path}"),
    }
}

/// The image that is usual for a language, on the registry that names without one are looked for on.
fn usual_image(name: &str) -> &str {
    match name {
        "python" | "rust" | "ruby" | "php" | "perl" | "bash" | "alpine" | "debian" | "ubuntu" | "busybox" => {
            name
        }
        "nodejs" => "node",
        "go" => "golang",
        "java" => "eclipse-temurin",
        "sh" => "busybox",
        _ => "IMAGE",
    }
}

fn of_format(flag: &str, format: &str) -> String {
    let other = if format == "ext4" { "squashfs" } else { "ext4" };
    format!("leave {flag} out, or make the other format: --format {other}")
}

/// What helps where there is not memory enough.
fn of_memory(error: &CliError) -> Vec<String> {
    match error {
        CliError::MemoryOfHost { has, .. } => {
            vec![format!("leave some for the host: --mem {}", (has / 2) >> 20)]
        }
        CliError::Overlay { asked, .. } => {
            let mib = asked.div_ceil(1 << 20).saturating_mul(2);
            vec![format!(
                "give the VM more memory, --mem {mib}, or a smaller --overlay-size"
            )]
        }
        _ => Vec::new(),
    }
}

/// What helps to have a VMM.
fn of_vmm(error: &CliError) -> Vec<String> {
    match error {
        CliError::JailedQemu => vec!["leave one of the two flags out: --vmm qemu or --jailer".to_owned()],
        CliError::FirecrackerArch { .. } => vec!["QEMU emulates it: --vmm qemu".to_owned()],
        CliError::NoVmm { .. } => vec![format!("install QEMU: {}", firebrick_vmm::qemu::INSTALL)],
        _ => Vec::new(),
    }
}

/// What helps with pools.
fn of_pool(error: &CliError) -> Vec<String> {
    match error {
        CliError::NoPool { name } => vec![
            format!("start it: firebrick pool start -l {name}"),
            "see what there is: firebrick pool status".to_owned(),
        ],
        CliError::PoolExists { name } => vec![format!(
            "see it: firebrick pool status -l {name}; for another size stop it first: firebrick pool stop -l {name}"
        )],
        CliError::PoolSilent { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            vec!["try again when fewer programs use it".to_owned()]
        }
        CliError::PoolSilent { log, pid, .. } => {
            let mut hints = vec![format!("see what it said last: cat {}", log.display())];
            hints
                .extend(pid.map(|pid| format!("if it stays so, end it, and its VMs with it: kill -9 {pid}")));
            hints
        }
        CliError::PoolStopped { name } => vec![format!("start it again: firebrick pool start -l {name}")],
        CliError::KeeperEnded { image, .. } => {
            vec![format!("see how the image boots: firebrick boot {image}")]
        }
        CliError::NotFromPool { .. } => {
            vec!["leave --pool out, and a VM is booted where none is warm".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// The guest's words are all that tells a wrong user from the rest.
fn of_refusal(image: &str, error: &CallError) -> Vec<String> {
    let said = match error {
        CallError::Refused { source, .. } => source.message.as_str(),
        _ => "",
    };
    vec![if said.contains("no user") {
        format!("see its users: firebrick rootfs cat {image} /etc/passwd; a number needs no entry: -u 1000")
    } else if said.contains("no group") {
        format!(
            "see its groups: firebrick rootfs cat {image} /etc/group; a number needs no entry: -u 1000:1000"
        )
    } else {
        format!("see what the image has and would run: firebrick rootfs inspect {image}")
    }]
}

/// What is not pinned can be.
fn of_no_pin(version: &str) -> String {
    format!(
        "give the digest that is published beside its archive (.tgz.sha256.txt): --firecracker-version {version} \
         --firecracker-digest sha256:…; or a file: --firecracker PATH"
    )
}

/// Another processor can be had in software, or another image.
fn of_other_programs(machine: u16) -> String {
    match Arch::ALL.into_iter().find(|arch| arch.elf_machine() == machine) {
        Some(arch) => format!(
            "take it for what it is: --platform linux/{}; where its config says otherwise, have it made again with the right one",
            arch.debian_name()
        ),
        None => "take an image for this processor, or name what it is for: --platform linux/arm64".to_owned(),
    }
}

fn of_other_processor(machine: u16, arch: Arch) -> Vec<String> {
    let rebuild = format!(
        "make an image for this processor: firebrick rootfs from-docker --platform linux/{} …",
        arch.debian_name()
    );
    match Arch::ALL.into_iter().find(|other| other.elf_machine() == machine) {
        Some(Arch::HOST) => {
            vec!["leave --platform out: the image is for this host's own processor".to_owned()]
        }
        Some(other) => vec![
            format!(
                "run it in software, which is slow: firebrick setup --platform linux/{0}, then this command with --platform linux/{0}",
                other.debian_name()
            ),
            rebuild,
        ],
        None => vec![rebuild],
    }
}

/// Guests can be made for the processors that firebrick knows.
fn of_other_platform(image: &Platform) -> Vec<String> {
    let without =
        "build it without a guest, which other machines then cannot talk to: --agent none".to_owned();
    let processor = match image.architecture.as_str() {
        _ if image.os != "linux" => {
            return vec!["only Linux images boot: choose one with --platform linux/ARCH".to_owned()];
        }
        "arm64" | "aarch64" => "aarch64",
        "amd64" | "x86_64" => "x86_64",
        _ => return vec![without],
    };
    let file = format!("firebrick-guest-{processor}");
    vec![
        format!(
            "make a guest for it in firebrick's source folder, cargo xtask guest --target {processor}-unknown-linux-gnu \
             --output {file}, and give it with --agent {file}"
        ),
        without,
    ]
}

fn of_build(error: &BuildError) -> Option<String> {
    Some(match error {
        BuildError::DoesNotFit(fullness) => format!(
            "give it enough with -s {}, or let firebrick decide with -s auto",
            fullness.needed.div_ceil(1 << 20)
        ),
        BuildError::DiffId { .. } => {
            "the image is damaged or was tampered with: get it again, or push it again from where it was made"
                .to_owned()
        }
        BuildError::Plan { source } => of_plan(source),
        BuildError::PlanSquashfs { source } => of_plan_squashfs(source),
        BuildError::Merge { layer, source } => layer::of_merge(*layer, source),
        BuildError::Output { doing: "create", .. } => {
            "give -o the name of a file in a folder that you may write to".to_owned()
        }
        _ => return None,
    })
}

/// Where the content itself is what ext4 cannot have, it must be changed where it was made.
fn of_plan(error: &PlanError) -> String {
    let where_made = |command: String| format!("change it where the image is made, with: {command}");
    match error {
        PlanError::TooLarge { limit, .. } => format!(
            "--size, or --free and --inodes on top of the content, may come to {}: -s auto takes only what is needed",
            text::bytes(*limit)
        ),
        PlanError::TooManyInodes { .. } => {
            "give a larger -s, or leave --inodes and -s to firebrick: -s auto".to_owned()
        }
        PlanError::TooManyLinks { path, .. } => {
            where_made(format!("cp --preserve {path} {path}.copy, and links to the copy"))
        }
        PlanError::Device { path, .. } | PlanError::FileTooLarge { path, .. } => {
            where_made(format!("rm {path}"))
        }
        PlanError::DirectoryTooLarge { path } => {
            where_made(format!("mkdir {path}/more, and a part of the files moved there"))
        }
        PlanError::Xattr { path, .. } => where_made(format!("getfattr -dm- {path}; setfattr -x NAME {path}")),
        PlanError::LostAndFound => format!(
            "ext4 keeps a folder of that name; {}",
            where_made("rm /lost+found".to_owned())
        ),
        _ => "see what decides it: firebrick rootfs from-docker --help".to_owned(),
    }
}

/// As [`of_plan`], for squashfs.
fn of_plan_squashfs(error: &firebrick_squashfs::PlanError) -> String {
    use firebrick_squashfs::PlanError;
    match error {
        PlanError::FileTooLarge { .. } => {
            "larger blocks are fewer: --block-size 1M; or make an ext4".to_owned()
        }
        PlanError::Device { path, .. } | PlanError::Acl { path, .. } => {
            format!("change it where the image is made, with: rm {path}")
        }
        _ => "ext4 can hold it: --format ext4".to_owned(),
    }
}

fn of_read_squashfs(error: &firebrick_squashfs::read::ReadError) -> Option<String> {
    use firebrick_squashfs::read::ReadError;
    let hint = match error {
        ReadError::Corrupt { .. } => "to see what another reader makes of it: unsquashfs -lls FILE",
        ReadError::NotFound { .. } | ReadError::NotDirectory { .. } => {
            "see what is there: firebrick rootfs ls IMAGE PATH"
        }
        ReadError::WrongType { .. } => "see what it is: firebrick rootfs ls -l IMAGE PATH",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_read(error: &ReadError) -> Option<String> {
    let hint = match error {
        ReadError::Corrupt { .. } => "to see all that is wrong: e2fsck -fn FILE",
        ReadError::NeedsRecovery => "replay its journal: e2fsck -p FILE",
        ReadError::Unsupported { .. } => {
            "make an image of its files: mount -o ro,loop FILE /mnt; firebrick rootfs from-docker -n NAME -i dir:/mnt"
        }
        ReadError::NotFound { .. } | ReadError::NotDirectory { .. } => {
            "see what is there: firebrick rootfs ls IMAGE PATH"
        }
        ReadError::WrongType { .. } => "see what it is: firebrick rootfs ls -l IMAGE PATH",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What the host says is the innermost cause, so this comes last.
fn of_host(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "paths start at this folder: pwd; ls",
        io::ErrorKind::PermissionDenied => "see who may: ls -ld on the path and the folders above it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "see what is full: df -h; or write elsewhere with -o PATH, or another FIREBRICK_HOME"
        }
        io::ErrorKind::ReadOnlyFilesystem => "write elsewhere with -o PATH, or another FIREBRICK_HOME",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_launch(error: &LaunchError) -> Option<String> {
    match error {
        LaunchError::NotInstalled {
            program: "firecracker" | "jailer",
            ..
        } => Some(
            "get it, with its jailer: firebrick setup --firecracker-version 1.15.1; or put it into a folder of PATH"
                .to_owned(),
        ),
        LaunchError::NotInstalled { install, .. } => Some(format!("install it: {install}")),
        LaunchError::Unsupported {
            what: "the path of a drive",
            ..
        } => Some("give it a name that is text: ln -s PATH image.ext4, and use ./image.ext4".to_owned()),
        LaunchError::Unsupported { what, .. } => firecracker::of_unsupported(what),
        LaunchError::Lock { path, .. } => Some(format!(
            "attach a copy that is on another filesystem: cp {} COPY",
            path.display()
        )),
        LaunchError::Ended { said, .. } => Some(firecracker::of_end(said)),
        _ => None,
    }
}

fn of_boot(error: &BootError) -> Option<String> {
    let hint = match error {
        BootError::NoAnswer { .. } => {
            "see where it stops: firebrick boot IMAGE; a slow host may only need more time: --boot-timeout SEC"
        }
        BootError::CommandLine { .. } => "one line of plain text can, as in: --append 'quiet loglevel=3'",
        BootError::Ended { .. } => {
            "give it more memory with --mem SIZE, or see how it ends: firebrick boot IMAGE"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_kernel(error: &KernelError) -> Option<String> {
    let hint = match error {
        KernelError::NotSetUp { arch, .. } if *arch != Arch::HOST => {
            return Some(format!(
                "get one: firebrick setup --platform linux/{}",
                arch.debian_name()
            ));
        }
        KernelError::NotSetUp { .. } => "get one: firebrick setup",
        KernelError::Damaged { .. } => "get it again: firebrick setup --force",
        KernelError::Package { .. } | KernelError::PackageStream { .. } | KernelError::NoKernel { .. } => {
            "see what it is: dpkg-deb -I FILE; without --deb and --kernel Debian's own kernel is taken: firebrick setup"
        }
        KernelError::BzImage { .. } | KernelError::Format { .. } => {
            "see what it is: file PATH; a package goes to --deb, and without the two Debian's own kernel is taken: \
             firebrick setup"
        }
        KernelError::Lacks { .. } => "take another, such as Debian's own: firebrick setup",
        KernelError::NoSuchVersion { .. } => {
            "take one of those: firebrick setup --kernel-version 6.1; or a file: --deb FILE, --kernel PATH, or --url URL --digest sha256:…"
        }
        KernelError::NoApt { .. } => {
            "where there is no apt, give a kernel package or a kernel: firebrick setup --deb FILE, or --kernel PATH"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
