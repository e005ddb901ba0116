//! The writable layer: on a disk, shared between machines, under somebody else's initramfs, and with none at all.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_customise::Init;
use firebrick_digest::Digest;
use firebrick_protocol::agent::{JobOptions, Shutdown};
use firebrick_testkit::{oracle, uml};
use firebrick_vmm::client::Client;
use firebrick_vmm::initramfs::Archive;
use firebrick_vmm::{BootSpec, Drive, Machine, MachineSpec, Port, Vmm as _};
use serde_json::json;

use crate::host::{ANSWER_LIMIT, BOOT_LIMIT, Host, exec, host, output};
use crate::images::{Filesystem, Image, Recipe, Root, layer};

/// A file of so many bytes without any.
fn disk(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn drive(path: &Path) -> Drive {
    Drive {
        path: path.to_owned(),
        read_only: false,
    }
}

/// Launches and waits for the agent; what the console said where it does not come.
pub(crate) fn attend(host: &Host, spec: &MachineSpec) -> Result<(Box<dyn Machine>, Client), String> {
    let machine = host.qemu.launch(spec).expect("QEMU starts");
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        if let Ok(stream) = machine.dial(Port::AGENT, Duration::from_millis(200)) {
            let mut client = Client::new(stream).expect("a client");
            if client.ping(Duration::from_secs(10)).is_ok() {
                return Ok((machine, client));
            }
        }
        let ended = machine.wait(Duration::from_millis(20)).expect("it is waited for");
        if ended.is_some() || Instant::now() > deadline {
            std::thread::sleep(Duration::from_millis(100));
            return Err(String::from_utf8_lossy(&machine.console()).into_owned());
        }
    }
}

/// Launches what cannot come up; what the console said.
pub(crate) fn fails(host: &Host, spec: &MachineSpec) -> String {
    match attend(host, spec) {
        Ok(_) => panic!("the agent answers"),
        Err(console) => console,
    }
}

/// Ends the machine in order.
pub(crate) fn power_off((machine, mut client): (Box<dyn Machine>, Client)) {
    client
        .shutdown(Shutdown::default(), ANSWER_LIMIT)
        .expect("an answer");
    let exit = machine.wait(ANSWER_LIMIT).expect("it is waited for");
    assert!(exit.is_some(), "the machine has not ended");
}

fn small() -> Option<Image> {
    Recipe::default().of(Root::Alpine)
}

/// The machine of a spec with one more drive, `/dev/vdb`.
fn with_disk(spec: &BootSpec<'_>, disk: &Path, words: &str) -> MachineSpec {
    let mut machine = spec.machine(&firebrick_vmm::qemu::facts()).expect("a machine");
    machine.drives.push(drive(disk));
    machine.append = format!("{} {words}", machine.append);
    machine
}

#[test]
fn a_disk_is_formatted_once_and_kept() {
    let (Some(image), Some(host)) = (small(), host()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "layer", 96 << 20);
    let spec = host.spec_of(&image);
    let machine = with_disk(&spec, &disk, "overlay_root=vdb overlay_size=64M");

    let mut first = attend(&host, &machine).unwrap();
    let mounts = output(
        &mut first.1,
        "grep -E ' /(overlay|rom)? ' /proc/mounts | cut -d' ' -f1-3",
    );
    for mount in ["/dev/vdb /overlay ext4", "/dev/vda /rom ext4"] {
        assert!(mounts.lines().any(|line| line == mount), "{mounts}");
    }
    let stamps = first.1.status(ANSWER_LIMIT).unwrap().boot;
    assert!(
        stamps.iter().any(|stamp| stamp.event == "overlay_formatted"),
        "{stamps:?}"
    );
    assert_eq!(
        output(
            &mut first.1,
            "echo kept > /etc/kept; rm /etc/os-release; ls /overlay"
        ),
        "lost+found\nroot\nwork\n"
    );
    // The layer is as large as it may be, not as the disk.
    let (code, _, reason) = exec(
        &mut first.1,
        "dd if=/dev/zero of=/big bs=1M count=70",
        JobOptions::default(),
    );
    assert_ne!(code, 0);
    assert!(reason.contains("No space left"), "{reason}");
    output(&mut first.1, "rm /big");
    power_off(first);
    // The machine has left it clean: nothing is to be replayed.
    oracle::Image::check(&disk).expect("e2fsck finds it clean");
    let header = oracle_header(&disk);
    assert!(!header.contains("needs_recovery"), "{header}");

    let mut second = attend(&host, &machine).unwrap();
    assert_eq!(
        output(
            &mut second.1,
            "cat /etc/kept; ls /etc/os-release /rom/etc/os-release 2>/dev/null; true"
        ),
        "kept\n/rom/etc/os-release\n"
    );
    let stamps = second.1.status(ANSWER_LIMIT).unwrap().boot;
    assert!(
        stamps.iter().all(|stamp| stamp.event != "overlay_formatted"),
        "{stamps:?}"
    );
    drop(second);
}

fn oracle_header(disk: &Path) -> String {
    let output = Command::new("dumpe2fs")
        .arg("-h")
        .arg(disk)
        .env(
            "PATH",
            format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()),
        )
        .output()
        .expect("dumpe2fs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_disk_with_something_else_is_left_alone() {
    let (Some(image), Some(host)) = (small(), host()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "precious", 32 << 20);
    // At the end, where software RAIDs have their mark.
    std::fs::File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .write_all_at(b"mine", (32 << 20) - 4096)
        .unwrap();
    let before = Digest::of(&std::fs::read(&disk).unwrap());
    let spec = host.spec_of(&image);
    let console = fails(&host, &with_disk(&spec, &disk, "overlay_root=/dev/vdb"));
    let told = "fatal: overlay_root=/dev/vdb: /dev/vdb holds something that is no ext4, and only an empty disk is formatted";
    assert!(console.contains(told), "{console}");
    assert_eq!(Digest::of(&std::fs::read(&disk).unwrap()), before);
    // Nor is one that cannot be written, or whose ext4 holds something else at the layer's place.
    std::fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    crate::roots::run("mke2fs", &["-q", "-t", "ext4", disk.to_str().unwrap()]);
    let mut machine = with_disk(&spec, &disk, "overlay_root=vdb");
    machine.drives.last_mut().unwrap().read_only = true;
    let console = fails(&host, &machine);
    let told = "fatal: overlay_root=vdb: /dev/vdb is read-only: attach it writable";
    assert!(console.contains(told), "{console}");
    crate::roots::run(
        "debugfs",
        &["-w", "-R", "symlink root /rom", disk.to_str().unwrap()],
    );
    let console = fails(&host, &with_disk(&spec, &disk, "overlay_root=vdb"));
    assert!(
        console.contains("fatal: the layer's root/ is no folder"),
        "{console}"
    );
    let words = "overlay_root=vdc firebrick.rootwait=1";
    let console = fails(&host, &with_disk(&spec, &disk, words));
    assert!(
        console.contains("/dev/vdc did not appear within 1 s; block devices: vda vdb;"),
        "{console}"
    );
}

#[test]
fn two_machines_share_one_image() {
    let recipe = Recipe {
        filesystem: Filesystem::Squashfs,
        ..Recipe::default()
    };
    let (Some(image), Some(host)) = (recipe.of(Root::Alpine), host()) else {
        return;
    };
    let before = Digest::of(&std::fs::read(&image.path).unwrap());
    let mut spec = host.spec_of(&image);
    spec.overlay_mib = 8;
    let mut machines = [host.boot_with(&spec), host.boot_with(&spec)];
    for (index, booted) in machines.iter_mut().enumerate() {
        assert_eq!(
            output(
                &mut booted.client,
                &format!("echo {index} > /etc/os-release; rm -r /usr; sync")
            ),
            ""
        );
    }
    for (index, booted) in machines.iter_mut().enumerate() {
        assert_eq!(
            output(&mut booted.client, "cat /etc/os-release"),
            format!("{index}\n")
        );
        let (code, _, reason) = exec(
            &mut booted.client,
            "dd if=/dev/zero of=/big bs=1M count=9",
            JobOptions::default(),
        );
        assert!(code != 0 && reason.contains("No space left"), "{reason}");
    }
    drop(machines);
    assert_eq!(Digest::of(&std::fs::read(&image.path).unwrap()), before);
}

/// A small initramfs as any distribution's would do: loads modules, mounts the root read-only, and switches to `init=`.
fn foreign_initramfs(host: &Host, filesystem: &str) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.file(
        "bin/busybox",
        0o755,
        std::fs::read("/bin/busybox").expect("busybox (Debian package busybox-static)"),
    );
    let mut script = String::from(
        "#!/bin/busybox sh\nB=/bin/busybox\n$B mkdir -p /proc /root\n$B mount -t proc proc /proc\n",
    );
    for module in &host.kernel.manifest().modules {
        let bytes = std::fs::read(host.kernel.module_path(module)).expect("a module");
        archive.file(&format!("m/{}.ko", module.name), 0o644, bytes);
        script.push_str(&format!("$B insmod /m/{}.ko 2>/dev/null\n", module.name));
    }
    script.push_str(&format!(
        "$B mount -t devtmpfs dev /dev\nuntil [ -b /dev/vda ]; do $B usleep 10000; done\n\
         $B mount -t {filesystem} -o ro /dev/vda /root\nfor w in $($B cat /proc/cmdline); do case $w in init=*) I=${{w#init=}};; esac; done\n\
         $B mount --move /dev /root/dev\n$B umount /proc\nexec $B switch_root /root $I\n"
    ));
    archive.file("init", 0o755, script.into_bytes());
    archive.char_device("dev/console", 5, 1);
    archive.to_bytes()
}

/// The contract's own way in: `init=/sbin/overlay-init`, with the image's init behind it.
#[test]
fn overlay_init_works_under_an_initramfs_that_knows_nothing_of_it() {
    let recipe = Recipe {
        init: Init::Busybox,
        filesystem: Filesystem::Squashfs,
        ..Recipe::default()
    };
    let (Some(image), Some(host)) = (recipe.of(Root::Alpine), host()) else {
        return;
    };
    let mut machine = host
        .spec_of(&image)
        .machine(&firebrick_vmm::qemu::facts())
        .expect("a machine");
    machine.initramfs = Some(foreign_initramfs(&host, image.filesystem));
    machine.append = format!("{} init=/sbin/overlay-init overlay_size=16M", machine.append);
    let mut booted = attend(&host, &machine).unwrap_or_else(|console| panic!("{console}"));
    let client = &mut booted.1;
    assert_eq!(output(client, "cat /proc/1/comm"), "init\n");
    let mounts = output(client, "cut -d' ' -f2,3 /proc/mounts");
    for mount in ["/ overlay", "/rom squashfs", "/overlay tmpfs", "/dev devtmpfs"] {
        assert!(
            mounts.lines().any(|line| line == mount),
            "no {mount} in\n{mounts}"
        );
    }
    // What was mounted to work in is gone.
    assert!(!mounts.contains("/rom/"), "{mounts}");
    assert_eq!(
        output(client, "echo x > /x; ls /overlay/root/x"),
        "/overlay/root/x\n"
    );
}

/// Boots an image with user-mode Linux, whose kernel mounts the root itself and starts `init=`. What the console said.
fn without_initramfs(image: &Path, disk: Option<&Path>, words: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command
        .args([
            "-k",
            "1",
            "100",
            "linux.uml",
            "mem=256M",
            "root=/dev/ubda",
            "ro",
            "rootfstype=ext4",
        ])
        .args(["quiet", "con=null", "con0=null,fd:1"])
        .arg(format!("ubd0r={}", image.display()));
    if let Some(disk) = disk {
        command.arg(format!("ubd1={}", disk.display()));
    }
    let output = command
        .args(words.split(' '))
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("user-mode Linux (Debian package user-mode-linux)");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

/// Alpine with the overlay module of user-mode Linux, and this script as its init.
fn for_uml(init: &str) -> Option<Image> {
    if !uml::have().expect("user-mode Linux") {
        return None;
    }
    let modules = Path::new("/usr/lib/uml/modules");
    let release = std::fs::read_dir(modules)
        .ok()?
        .flatten()
        .next()
        .expect("modules")
        .file_name();
    let release = release.to_str().expect("a release");
    let overlay = modules.join(release).join("kernel/fs/overlayfs/overlay.ko");
    let folder = format!("lib/modules/{release}");
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in [
        (
            format!("{folder}/overlay.ko"),
            0o644,
            std::fs::read(overlay).expect("the module"),
        ),
        (format!("{folder}/modules.dep"), 0o644, b"overlay.ko:\n".to_vec()),
        (
            "sbin/init".to_owned(),
            0o755,
            format!("#!/bin/sh\n{init}\nsync\npoweroff -f\n").into_bytes(),
        ),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, bytes.as_slice())
            .expect("an entry");
    }
    let recipe = Recipe {
        init: Init::None,
        config: json!({ "Entrypoint": ["/bin/sh", "-c", "echo entry $GREETING $(id -u) $(pwd); exit 3"], "Env": ["GREETING=hi"], "User": "7", "WorkingDir": "/srv" }),
        more: vec![
            tar.into_inner().expect("a tar"),
            layer("l /sbin/overlay-init -> /usr/lib/firebrick/firebrick-guest"),
        ],
        ..Recipe::default()
    };
    recipe.of(Root::Alpine)
}

#[test]
fn overlay_init_and_our_own_pid_1_work_without_an_initramfs() {
    let show = "echo $0 $@; cut -d' ' -f2,3 /proc/mounts; cat /seen 2>/dev/null; echo seen > /seen; ls /overlay/root";
    let Some(image) = for_uml(show) else { return };
    let before = Digest::of(&std::fs::read(&image.path).unwrap());
    let has = |console: &str, lines: &[&str]| {
        for line in lines {
            assert!(
                console.lines().any(|found| found == *line),
                "no {line:?} in\n{console}"
            );
        }
    };
    let console = without_initramfs(
        &image.path,
        None,
        "init=/sbin/overlay-init overlay_size=8M single",
    );
    has(
        &console,
        &[
            "/sbin/init single",
            "/ overlay",
            "/rom ext4",
            "/overlay tmpfs",
            "/proc proc",
            "/dev devtmpfs",
        ],
    );

    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path(), "layer", 48 << 20);
    let words = "init=/sbin/overlay-init overlay_root=ubdb";
    let console = without_initramfs(&image.path, Some(&disk), words);
    has(&console, &["/overlay ext4", "/ overlay"]);
    assert!(!console.contains("\nseen\n/"), "{console}");
    let console = without_initramfs(&image.path, Some(&disk), words);
    has(&console, &["/overlay ext4", "seen"]);

    // The same by the guest's own name, and as PID 1 with the image's entrypoint, whose end is the machine's.
    let guest = "init=/usr/lib/firebrick/firebrick-guest";
    let console = without_initramfs(&image.path, None, &format!("{guest} -- --overlay"));
    // (User-mode Linux puts a word of its own behind ours.)
    assert!(console.contains("\n/sbin/init "), "{console}");
    has(&console, &["/ overlay", "/rom ext4"]);
    let console = without_initramfs(&image.path, None, &format!("{guest} firebrick.run=entrypoint"));
    has(
        &console,
        &[
            "entry hi 7 /srv",
            "firebrick-guest: the entrypoint has ended with exit code 3",
        ],
    );
    let console = without_initramfs(
        &image.path,
        None,
        &format!("{guest} overlay_root=nowhere firebrick.rootwait=0"),
    );
    assert!(
        console.contains("firebrick-guest: fatal: overlay_root=nowhere: /dev/nowhere did not appear"),
        "{console}"
    );
    assert_eq!(Digest::of(&std::fs::read(&image.path).unwrap()), before);
}
