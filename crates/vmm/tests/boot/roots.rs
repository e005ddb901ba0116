//! Roots that firebrick does not write, and kernels that mount the root themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_customise::Init;
use firebrick_testkit::oracle;
use firebrick_vmm::kernel::{Kernel, SetupRequest, Source, setup};
use firebrick_vmm::{Drive, MachineSpec};

use crate::host::{ANSWER_LIMIT, host, output};
use crate::images::{Filesystem, Image, Recipe, Root};
use crate::overlay::{attend, power_off};

/// Runs a program that must succeed; `/sbin` is not in every `PATH`.
pub(crate) fn run(program: &str, args: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").expect("a PATH"));
    let done = Command::new(program)
        .args(args)
        .env("PATH", path)
        .output()
        .expect("it starts");
    assert!(
        done.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// No `--format` makes it, but who has an image of it can boot it: it is read-only, and gets its writable layer like a squashfs.
#[test]
fn an_erofs_that_another_tool_made_boots() {
    let recipe = Recipe {
        filesystem: Filesystem::Squashfs,
        ..Recipe::default()
    };
    if !oracle::have("mkfs.erofs").expect("mkfs.erofs (Debian package erofs-utils)") {
        return;
    }
    let (Some(image), Some(host)) = (recipe.of(Root::Alpine), host()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (root, plain) = (dir.path().join("root"), dir.path().join("plain"));
    run(
        "unsquashfs",
        &["-quiet", "-no-progress", "-d", text(&root), text(&image.path)],
    );
    run(
        "mkfs.erofs",
        &["--quiet", "--all-root", text(&plain), text(&root)],
    );
    let compressed = dir.path().join("lz4");
    run(
        "mkfs.erofs",
        &["--quiet", "--all-root", "-zlz4hc", text(&compressed), text(&root)],
    );
    for path in [plain, compressed] {
        let mut spec = host.spec(&path);
        "erofs".clone_into(&mut spec.filesystem);
        let mut booted = host.boot_with(&spec);
        let mounts = output(&mut booted.client, "cut -d' ' -f2,3 /proc/mounts");
        for mount in ["/ overlay", "/rom erofs", "/overlay tmpfs"] {
            assert!(
                mounts.lines().any(|line| line == mount),
                "no {mount} in\n{mounts}"
            );
        }
        assert_eq!(
            output(&mut booted.client, "echo x > /etc/new && cat /etc/new"),
            "x\n"
        );
    }
}

/// A kernel with everything built in, as `scripts/own-kernel` makes one in some minutes; `None` where it has not.
#[expect(clippy::print_stderr, reason = "a test that was left out should be seen")]
fn own_kernel(state: &Path) -> Option<Kernel> {
    let named = std::env::var_os("FIREBRICK_OWN_KERNEL").map(PathBuf::from);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../own-kernel/vmlinux");
    let path = named.unwrap_or(built);
    if !path.exists() {
        eprintln!("left out: scripts/own-kernel has not made {}", path.display());
        return None;
    }
    let request = SetupRequest {
        state: state.to_owned(),
        source: Source::File(path),
        force: false,
    };
    Some(setup(&request, &|_| {}).unwrap_or_else(|error| panic!("{}", crate::common::chain(&error))))
}

/// The machine of an image and nothing else: the kernel mounts its root by these words alone.
fn bare(image: &Image, kernel: &Kernel, words: &str) -> MachineSpec {
    let root = Drive {
        path: image.path.clone(),
        read_only: true,
    };
    MachineSpec {
        kernel: kernel.path(),
        append: format!("root=/dev/vda rootfstype={} ro {words}", image.filesystem),
        drives: vec![root],
        memory_mib: 256,
        vcpus: 1,
        ..MachineSpec::default()
    }
}

#[test]
fn a_kernel_that_mounts_the_root_itself_needs_no_initramfs() {
    let state = tempfile::tempdir().unwrap();
    let Some(kernel) = own_kernel(state.path()) else {
        return;
    };
    let Some(host) = host() else { return };
    for filesystem in [Filesystem::Ext4, Filesystem::Squashfs] {
        let recipe = Recipe {
            init: Init::Firebrick,
            filesystem: filesystem.clone(),
            ..Recipe::default()
        };
        let Some(image) = recipe.of(Root::Alpine) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("layer");
        std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
        let has = |client: &mut firebrick_vmm::client::Client, wanted: &[&str]| {
            let mounts = output(client, "cut -d' ' -f2,3 /proc/mounts");
            for mount in wanted {
                assert!(
                    mounts.lines().any(|line| line == *mount),
                    "no {mount} in\n{mounts}"
                );
            }
        };
        let rom = format!("/rom {}", filesystem.name());

        // PID 1 is the guest, as /sbin/init of the image; its layer is memory, as nothing else is said.
        let mut booted = attend(&host, &bare(&image, &kernel, "overlay_size=8M"))
            .unwrap_or_else(|console| panic!("{console}"));
        has(
            &mut booted.1,
            &["/ overlay", &rom, "/overlay tmpfs", "/proc proc", "/dev devtmpfs"],
        );
        let stamps = booted.1.status(ANSWER_LIMIT).unwrap().boot;
        assert!(
            stamps.iter().all(|stamp| stamp.event != "stage1_start"),
            "there is no initramfs: {stamps:?}"
        );
        assert_eq!(output(&mut booted.1, "cat /proc/1/comm"), "init\n");
        power_off(booted);

        // A disk, formatted once and kept; and the drop-in that becomes the image's init.
        for (round, init) in ["", "init=/sbin/overlay-init"].into_iter().enumerate() {
            let mut machine = bare(&image, &kernel, &format!("overlay_root=vdb {init}"));
            machine.drives.push(Drive {
                path: disk.clone(),
                read_only: false,
            });
            let mut booted = attend(&host, &machine).unwrap_or_else(|console| panic!("{console}"));
            has(&mut booted.1, &["/ overlay", &rom, "/overlay ext4"]);
            let seen = output(&mut booted.1, "cat /seen 2>/dev/null; echo seen >> /seen");
            assert_eq!(seen, "seen\n".repeat(round));
            power_off(booted);
        }
    }
}
