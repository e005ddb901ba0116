//! What `doctor` finds: one crafted kernel or image a finding, and those that have nothing wrong. The host's findings are
//! tested beside their code.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use firebrick_digest::Digest;
use serde_json::{Value, json};

use crate::support::Home;

/// Every option that `doctor` asks about.
const OPTIONS: &[&str] = &[
    "ACPI",
    "BINFMT_ELF",
    "BLK_DEV_INITRD",
    "CGROUPS",
    "CGROUP_PIDS",
    "DEVTMPFS",
    "EPOLL",
    "EXT4_FS",
    "FHANDLE",
    "HW_RANDOM_VIRTIO",
    "INOTIFY_USER",
    "MEMCG",
    "OVERLAY_FS",
    "PROC_FS",
    "PVH",
    "SERIAL_8250_CONSOLE",
    "SQUASHFS",
    "SQUASHFS_LZ4",
    "SQUASHFS_XZ",
    "SQUASHFS_ZLIB",
    "SQUASHFS_ZSTD",
    "SYSFS",
    "TMPFS",
    "VIRTIO_BLK",
    "VIRTIO_CONSOLE",
    "VIRTIO_MMIO",
    "VIRTIO_NET",
    "VIRTIO_VSOCKETS",
];

fn config(without: &str) -> String {
    let set = OPTIONS.iter().filter(|option| **option != without);
    set.map(|option| format!("CONFIG_{option}=y\n")).collect()
}

/// A kernel as `setup` keeps it, that nothing could start.
fn put_kernel(home: &Home, release: &str, config: &str) {
    put_kernel_for(home, std::env::consts::ARCH, release, config);
}

fn put_kernel_for(home: &Home, arch: &str, release: &str, config: &str) {
    put_kernel_of(home, arch, release, config, b"x");
}

fn put_kernel_of(home: &Home, arch: &str, release: &str, config: &str, bytes: &[u8]) {
    let kernels = home.path().join("fb/kernels");
    let folder = kernels.join(release);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("vmlinux"), bytes).expect("a file");
    fs::write(folder.join("config"), config).expect("a file");
    let manifest = json!({
        "version": 1, "release": release, "arch": arch, "file": "vmlinux", "format": "elf",
        "size_bytes": bytes.len(), "digest": Digest::of(bytes).to_string(), "modules": [], "missing": [],
        "origin": {"kind": "file", "path": "/x", "digest": "sha256:0"},
    });
    fs::write(folder.join("kernel.json"), manifest.to_string()).expect("a file");
    let link = match arch == std::env::consts::ARCH {
        true => kernels.join("default"),
        false => kernels.join(format!("default-{arch}")),
    };
    let _ = fs::remove_file(&link);
    symlink(release, link).expect("a link");
}

/// The report of `doctor` in JSON, and its exit code. There is no QEMU in its PATH, so nothing is started.
fn doctor(home: &Home, args: &[&str]) -> (Value, i32) {
    let output = home
        .firebrick(&[&["doctor", "--json"], args].concat())
        .env("PATH", "/nowhere")
        .output()
        .expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (report, output.status.code().expect("no signal"))
}

/// Those findings that are about this area and not ok: `id severity`.
fn wrong(report: &Value, area: &str) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let of_area = findings
        .iter()
        .filter(|finding| text(finding, "id").starts_with(area));
    let wrong = of_area.filter(|finding| finding["severity"] != "ok");
    wrong
        .map(|finding| {
            assert!(!text(finding, "fix").is_empty(), "{finding}");
            format!("{} {}", text(finding, "id"), text(finding, "severity"))
        })
        .collect()
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let mut findings = report["findings"].as_array().expect("findings").iter();
    findings
        .find(|finding| finding["id"] == id)
        .unwrap_or_else(|| panic!("no {id} in {report}"))
}

#[test]
fn each_option_that_the_kernel_lacks_is_a_finding() {
    if cfg!(not(target_arch = "x86_64")) {
        return; // the table of options is the x86 machine's
    }
    let home = Home::new();
    for (option, id, severity) in [
        ("", "", ""),
        ("ACPI", "acpi", "problem"),
        ("PVH", "pvh", "problem"),
        ("BLK_DEV_INITRD", "initrd", "problem"),
        ("DEVTMPFS", "devtmpfs", "problem"),
        ("PROC_FS", "proc", "problem"),
        ("SYSFS", "sysfs", "problem"),
        ("TMPFS", "tmpfs", "problem"),
        ("BINFMT_ELF", "elf", "problem"),
        ("VIRTIO_MMIO", "virtio-mmio", "problem"),
        ("VIRTIO_BLK", "virtio-blk", "problem"),
        ("OVERLAY_FS", "overlay", "problem"),
        ("EXT4_FS", "ext4", "problem"),
        ("VIRTIO_CONSOLE", "virtio-console", "warning"),
        ("VIRTIO_VSOCKETS", "vsock", "warning"),
        ("VIRTIO_NET", "virtio-net", "warning"),
        ("HW_RANDOM_VIRTIO", "virtio-rng", "warning"),
        ("SERIAL_8250_CONSOLE", "serial", "warning"),
        ("CGROUPS", "cgroups", "warning"),
        ("CGROUP_PIDS", "cgroup-pids", "warning"),
        ("MEMCG", "memcg", "warning"),
        // Nobody but systemd, or but squashfs images, asks for these.
        ("FHANDLE", "", ""),
        ("SQUASHFS", "", ""),
    ] {
        put_kernel(&home, "6.1.0-1", &config(option));
        let (report, _) = doctor(&home, &[]);
        let expected: Vec<String> = match id {
            "" => Vec::new(),
            _ => vec![format!("kernel.{id} {severity}")],
        };
        assert_eq!(wrong(&report, "kernel."), expected, "{option} {report}");
    }
    // A module that is not there to be brought along is as good as none.
    put_kernel(
        &home,
        "6.1.0-1",
        &config("").replace("OVERLAY_FS=y", "OVERLAY_FS=m"),
    );
    let (report, code) = doctor(&home, &[]);
    assert_eq!(wrong(&report, "kernel."), ["kernel.overlay problem"]);
    assert!(
        finding(&report, "kernel.overlay")["found"]
            .as_str()
            .unwrap()
            .contains("as a module"),
        "{report}"
    );
    assert_eq!(code, 1);
}

#[test]
fn systemd_asks_for_more_of_the_kernel() {
    let home = Home::new();
    image(&home, "systemd", &[], |root| {
        put(root, "lib/systemd/systemd", &program(own_machine(), None), 0o755)
    });
    for (option, expected) in [
        ("", ""),
        ("CGROUPS", "kernel.cgroups warning kernel.systemd-cgroups problem"),
        ("FHANDLE", "kernel.systemd-fhandle problem"),
        ("EPOLL", "kernel.systemd-epoll problem"),
        ("INOTIFY_USER", "kernel.systemd-inotify problem"),
    ] {
        put_kernel(&home, "6.1.0-1", &config(option));
        let (report, _) = doctor(&home, &["systemd"]);
        assert_eq!(wrong(&report, "kernel.").join(" "), expected, "{report}");
    }
}

#[test]
fn a_kernel_for_arm_is_asked_for_what_that_machine_needs() {
    let home = Home::new();
    let arm = |without: &str| {
        let config = config("ACPI").replace("CONFIG_PVH=y\n", "")
            + "CONFIG_OF=y\nCONFIG_SERIAL_AMBA_PL011_CONSOLE=y\n";
        let config = config.replace(&format!("CONFIG_{without}=y\n"), "");
        put_kernel_for(&home, "aarch64", "6.1.0-1-arm64", &config);
    };
    for (option, expected) in [
        ("", ""),
        ("OF", "kernel.device-tree problem"),
        ("SERIAL_AMBA_PL011_CONSOLE", "kernel.serial warning"),
    ] {
        arm(option);
        let (report, _) = doctor(&home, &["--platform", "linux/arm64"]);
        assert_eq!(wrong(&report, "kernel.").join(" "), expected, "{report}");
    }
}

/// What a kernel file is called is the release that it tells, or else its file; not the folder that it is kept in.
#[test]
fn a_kernel_file_is_called_by_a_name_that_people_know() {
    let home = Home::new();
    put_kernel(&home, "file-0123456789ab", "");
    let (report, _) = doctor(&home, &[]);
    let found = &finding(&report, "kernel.set-up")["found"];
    assert_eq!(
        found,
        "the kernel from /x is set up, and every file is as its digest says"
    );
    let words = b"Linux version 5.10.223 (x";
    put_kernel_of(&home, std::env::consts::ARCH, "file-0123456789ab", "", words);
    let text = home.transcript(&["doctor"]);
    assert!(
        text.contains("the kernel 5.10.223 is set up") && !text.contains("file-0"),
        "{text}"
    );
}

#[test]
fn what_is_free_in_an_image_is_told_with_what_makes_it_more() {
    let home = Home::new();
    image(&home, "full", &["--free", "0"], |_| {});
    let (report, _) = doctor(&home, &["full"]);
    let space = finding(&report, "image.space");
    assert_eq!(space["severity"], "ok");
    let fix = space["fix"].as_str().expect("a fix");
    assert!(fix.contains("firebrick rootfs from-docker --free SIZE"), "{fix}");
    let text = home.transcript(&["doctor", "full"]);
    assert!(text.contains(&format!("fix: {fix}\n")), "{text}");
    image(&home, "roomy", &["--free", "20"], |_| {});
    let (report, _) = doctor(&home, &["roomy"]);
    let space = finding(&report, "image.space");
    assert!(
        space["fix"].is_null() && space["found"].as_str().expect("text").contains("MiB are free"),
        "{space}"
    );
}

/// `docs/doctor.md` lists every id that there is, and none that there is not.
#[test]
fn the_page_lists_the_ids_that_there_are() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(crates.join(path)).expect("a file");
    let is_id = |word: &&str| {
        let name = ["host.", "kernel.", "image."]
            .iter()
            .find_map(|area| word.strip_prefix(area));
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        name.is_some_and(|name| plain(name) && !matches!(name, "json" | ""))
    };
    let page = read("../docs/doctor.md");
    let listed: BTreeSet<&str> = page.split(['`', ' ']).filter(is_id).collect();
    let code = [
        "cli/src/doctor/host.rs",
        "cli/src/doctor/kernel.rs",
        "cli/src/doctor/image.rs",
        "vmm/src/kernel/needs.rs",
    ];
    let code: String = code.map(read).concat();
    let there: BTreeSet<&str> = code.split('"').filter(is_id).collect();
    assert_eq!(listed, there);
    assert!(there.len() > 40, "{there:?}");
}

#[test]
fn a_kernel_that_is_missing_damaged_or_silent_is_a_finding() {
    let home = Home::new();
    let (report, code) = doctor(&home, &[]);
    assert_eq!(
        (wrong(&report, "kernel."), code),
        (vec!["kernel.set-up problem".to_owned()], 1)
    );
    assert_eq!(finding(&report, "kernel.set-up")["fix"], "firebrick setup");
    put_kernel(&home, "6.1.0-1", &config(""));
    fs::write(home.path().join("fb/kernels/6.1.0-1/vmlinux"), "y").expect("a file");
    let (report, _) = doctor(&home, &[]);
    assert_eq!(wrong(&report, "kernel."), ["kernel.set-up problem"]);
    assert_eq!(
        finding(&report, "kernel.set-up")["fix"],
        "firebrick setup --force"
    );
    put_kernel(&home, "6.1.0-1", "");
    fs::remove_file(home.path().join("fb/kernels/6.1.0-1/config")).expect("it is there");
    let (report, _) = doctor(&home, &[]);
    assert_eq!(wrong(&report, "kernel."), ["kernel.config warning"]);
    // Another processor has a kernel of its own.
    let (report, _) = doctor(
        &home,
        &[
            "--platform",
            if cfg!(target_arch = "x86_64") {
                "linux/arm64"
            } else {
                "linux/amd64"
            },
        ],
    );
    assert_eq!(wrong(&report, "kernel."), ["kernel.set-up problem"]);
}

/// An image of a root folder that `change` has had its way with; the guest is in it unless `flags` say otherwise.
fn image(home: &Home, name: &str, flags: &[&str], change: impl FnOnce(&Path)) {
    let root = home.path().join(format!("root-{name}"));
    fs::create_dir_all(root.join("bin")).expect("a folder");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    symlink("busybox", root.join("bin/sh")).expect("a link");
    change(&root);
    let reference = format!("dir:{}", root.display());
    let build = ["rootfs", "from-docker", "-q", "-n", name, "-i", &reference];
    home.firebrick(&[&build[..], flags].concat()).assert().success();
}

fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, bytes).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A program that is all header: for this processor, with this loader.
fn program(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    if let Some(loader) = loader {
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&3_u32.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        let len = u64::try_from(loader.len() + 1).expect("short");
        file[96..104].copy_from_slice(&len.to_le_bytes());
        file.extend_from_slice(loader.as_bytes());
        file.push(0);
    }
    file
}

fn own_machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

#[test]
fn an_image_with_nothing_wrong_has_no_finding() {
    let home = Home::new();
    put_kernel(&home, "6.1.0-1", &config(""));
    image(&home, "good", &[], |root| {
        put(root, "lib/ld-x.so", &program(own_machine(), None), 0o755);
        put(root, "usr/bin/node", b"x", 0o755);
        fs::remove_file(root.join("bin/sh")).expect("it is there");
        put(
            root,
            "bin/sh",
            &program(own_machine(), Some("/lib/ld-x.so")),
            0o755,
        );
    });
    let (report, _) = doctor(&home, &["good"]);
    assert_eq!(wrong(&report, "image."), Vec::<String>::new(), "{report}");
    assert!(
        finding(&report, "image.agent")["found"]
            .as_str()
            .unwrap()
            .contains("of this firebrick"),
        "{report}"
    );
    assert!(
        finding(&report, "image.loader")["found"]
            .as_str()
            .unwrap()
            .contains("/lib/ld-x.so"),
        "{report}"
    );
    // Warnings and problems of the host alone decide the rest; without QEMU there is one.
    assert_eq!(report["problems"], 1);
    assert_eq!(wrong(&report, "host.qemu"), ["host.qemu problem"]);
}

#[test]
fn what_is_wrong_with_pid_1_is_a_finding() {
    let home = Home::new();
    let own = own_machine();
    let other = if own == 62 { 183 } else { 62 };
    type Change<'a> = &'a dyn Fn(&Path);
    let cases: &[(&str, &[&str], Change<'_>)] = &[
        ("image.init problem", &["--agent", "none"], &|_| {}),
        ("image.init problem", &[], &|root| {
            put(root, "sbin/init", &program(own, None), 0o644)
        }),
        ("image.init problem", &[], &|root| {
            put(root, "sbin/init", b"x", 0o755)
        }),
        ("image.init problem", &[], &|root| {
            put(root, "sbin/init", b"#!/bin/none\n", 0o755)
        }),
        ("image.processor problem", &[], &|root| {
            put(root, "sbin/init", &program(other, None), 0o755)
        }),
        ("image.loader problem", &[], &|root| {
            put(root, "sbin/init", &program(own, Some("/lib/ld-none")), 0o755)
        }),
        ("image.loader problem", &[], &|root| {
            put(root, "lib/ld-other", &program(other, None), 0o755);
            put(root, "sbin/init", &program(own, Some("/lib/ld-other")), 0o755);
        }),
    ];
    for (number, (expected, flags, change)) in cases.iter().enumerate() {
        let name = format!("case{number}");
        image(&home, &name, flags, change);
        let (report, code) = doctor(&home, &[&name]);
        let wrong = wrong(&report, "image.");
        assert!(
            wrong.contains(&(*expected).to_owned()),
            "{number}: {wrong:?} in {report}"
        );
        let problems = wrong
            .iter()
            .filter(|finding| finding.ends_with("problem"))
            .count();
        assert_eq!((problems, code), (1, 1), "{number}: {report}");
    }
}

/// The guest is for the VM's processor, whatever the image's programs are for: they tell.
#[test]
fn programs_for_another_processor_are_a_finding_and_are_refused() {
    let home = Home::new();
    let other = if own_machine() == 62 { 183 } else { 62 };
    image(&home, "mixed", &["--free", "4M"], |_| {});
    let loader = "/bin/ld-other";
    put(home.path(), "sh", &program(other, Some(loader)), 0o755);
    put(home.path(), "ld", &program(other, None), 0o755);
    for (file, to) in [("sh", "mixed:/bin/sh"), ("ld", "mixed:/bin/ld-other")] {
        home.firebrick(&["rootfs", "cp", file, to]).assert().success();
    }
    let (report, code) = doctor(&home, &["mixed"]);
    let wrong = wrong(&report, "image.");
    for expected in ["image.processor problem", "image.loader problem"] {
        assert!(wrong.contains(&expected.to_owned()), "{wrong:?} in {report}");
    }
    assert_eq!(code, 1);
    for (args, code) in [
        (&["run", "-i", "mixed", "--", "true"][..], 125),
        (&["boot", "mixed"], 1),
    ] {
        let text = home.transcript(args);
        assert!(text.contains("it cannot start /bin/sh"), "{text}");
        assert!(text.ends_with(&format!("exit code {code}\n")), "{text}");
    }
    // One whose numbers stand the other way round.
    let mut s390x = program(22, None);
    s390x[5] = 2;
    for at in [18, 54] {
        s390x.swap(at, at + 1);
    }
    s390x[32..40].reverse();
    put(home.path(), "sh", &s390x, 0o755);
    home.firebrick(&["rootfs", "cp", "sh", "mixed:/bin/sh"])
        .assert()
        .success();
    let (report, _) = doctor(&home, &["mixed"]);
    let found = finding(&report, "image.processor");
    assert!(
        found["severity"] == "problem" && found["found"].as_str().unwrap().contains("/bin/sh is for s390x"),
        "{report}"
    );
    let text = home.transcript(&["boot", "mixed"]);
    assert!(text.contains("it cannot start /bin/sh"), "{text}");
}

#[test]
fn what_else_is_wrong_with_an_image_is_a_finding() {
    let home = Home::new();
    put_kernel(&home, "5.4.0-1", &config(""));
    let guest = "usr/lib/firebrick/firebrick-guest";
    image(&home, "plain", &["--agent", "none"], |root| {
        put(root, "sbin/init", &program(own_machine(), None), 0o755)
    });
    let (report, _) = doctor(&home, &["plain"]);
    assert_eq!(wrong(&report, "image."), ["image.agent warning"], "{report}");

    image(&home, "old", &["--agent", "none"], |root| {
        put(root, "sbin/init", &program(own_machine(), None), 0o755);
        put(root, guest, b"..firebrick-guest version 0.0.9\n..", 0o755);
    });
    let (report, _) = doctor(&home, &["old"]);
    assert_eq!(wrong(&report, "image."), ["image.agent warning"], "{report}");
    assert!(
        finding(&report, "image.agent")["found"]
            .as_str()
            .unwrap()
            .contains("is 0.0.9"),
        "{report}"
    );

    image(&home, "node", &[], |root| {
        put(root, "usr/bin/node", b"x", 0o755);
        let header =
            "#define NODE_MAJOR_VERSION 22\n#define NODE_MINOR_VERSION 1\n#define NODE_PATCH_VERSION 0\n";
        put(root, "usr/include/node/node_version.h", header.as_bytes(), 0o644);
    });
    let (report, _) = doctor(&home, &["node"]);
    assert_eq!(wrong(&report, "image."), ["image.nodejs problem"], "{report}");
    assert!(
        finding(&report, "image.nodejs")["found"]
            .as_str()
            .unwrap()
            .contains("22.1.0 needs Linux 5.10"),
        "{report}"
    );

    image(&home, "odd", &[], |root| put(root, "proc", b"no folder", 0o644));
    let (report, _) = doctor(&home, &["odd"]);
    assert_eq!(
        wrong(&report, "image."),
        ["image.mount-points problem"],
        "{report}"
    );
    image(&home, "link", &[], |root| {
        symlink("nowhere", root.join("tmp")).expect("a link")
    });
    let (report, _) = doctor(&home, &["link"]);
    assert_eq!(
        wrong(&report, "image."),
        ["image.mount-points warning"],
        "{report}"
    );
}

#[test]
fn a_filesystem_that_is_none_or_was_left_in_disorder_is_a_finding() {
    let home = Home::new();
    image(&home, "link", &[], |_| {});
    fs::write(home.path().join("none.ext4"), [0; 4096]).expect("a file");
    let (report, code) = doctor(&home, &["./none.ext4"]);
    assert_eq!(
        (wrong(&report, "image."), code),
        (vec!["image.filesystem problem".to_owned()], 1)
    );
    let path = home.path().join("fb/images/rootfs-link.ext4");
    for (state, expected) in [
        (0_u16, "image.filesystem warning"),
        (3, "image.filesystem problem"),
    ] {
        let mut bytes = fs::read(&path).expect("the image");
        bytes[1024 + 0x3a..1024 + 0x3c].copy_from_slice(&state.to_le_bytes());
        set_checksum(&mut bytes[1024..2048]);
        fs::write(home.path().join("state.ext4"), bytes).expect("a file");
        let (report, _) = doctor(&home, &["./state.ext4"]);
        assert!(
            wrong(&report, "image.").contains(&expected.to_owned()),
            "{report}"
        );
    }
}

#[test]
fn squashfs_images_ask_for_squashfs_and_not_for_ext4() {
    let home = Home::new();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("bin")).expect("a folder");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let reference = format!("dir:{}", root.display());
    let build = [
        "rootfs",
        "from-docker",
        "-q",
        "-i",
        &reference,
        "--format",
        "squashfs",
    ];
    for (compression, option, expected) in [
        ("zstd", "EXT4_FS", ""),
        ("zstd", "SQUASHFS", "kernel.squashfs problem"),
        ("zstd", "SQUASHFS_ZSTD", "kernel.squashfs-zstd problem"),
        ("zstd", "SQUASHFS_ZLIB", ""),
        ("gzip", "SQUASHFS_ZLIB", "kernel.squashfs-gzip problem"),
        ("gzip", "SQUASHFS_ZSTD", ""),
        ("lz4", "SQUASHFS_LZ4", "kernel.squashfs-lz4 problem"),
        ("xz", "SQUASHFS_XZ", "kernel.squashfs-xz problem"),
    ] {
        let name = format!("small-{compression}");
        if !home
            .path()
            .join(format!("fb/images/rootfs-{name}.squashfs"))
            .exists()
        {
            let flags = ["-n", &name, "--compression", compression];
            home.firebrick(&[&build[..], &flags].concat()).assert().success();
        }
        put_kernel(&home, "6.1.0-1", &config(option));
        let (report, _) = doctor(&home, &[&name]);
        assert_eq!(wrong(&report, "image."), Vec::<String>::new(), "{report}");
        assert_eq!(
            wrong(&report, "kernel.").join(""),
            expected,
            "{compression} {report}"
        );
    }
}

/// Images that firebrick did not make need not say what they run, or say it well.
#[test]
fn settings_that_are_missing_or_damaged_are_a_finding() {
    let home = Home::new();
    for (json, expected) in [
        (None, "image.settings warning"),
        (Some("{"), "image.settings problem"),
        (Some("[]"), "image.settings problem"),
        (Some("{}"), ""),
    ] {
        let root = home.path().join("root");
        put(&root, "sbin/init", &program(own_machine(), None), 0o755);
        for folder in ["proc", "sys", "dev", "run", "tmp"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        if let Some(json) = json {
            put(&root, "etc/firebrick/image.json", json.as_bytes(), 0o644);
        }
        let image = home.path().join("made.ext4");
        let _ = fs::remove_file(&image);
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&root)
            .arg(&image)
            .arg("16M")
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("mke2fs (Debian package e2fsprogs)").success());
        let (report, _) = doctor(&home, &["./made.ext4"]);
        let mut wrong = wrong(&report, "image.");
        wrong.retain(|finding| finding != "image.agent warning");
        assert_eq!(wrong.join(""), expected, "{report}");
    }
}

/// CRC32c of the superblock but its last four bytes, as `metadata_csum` has it.
fn set_checksum(superblock: &mut [u8]) {
    let mut crc = !0_u32;
    for &byte in &superblock[..1020] {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    superblock[1020..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn the_report_for_people_has_a_line_a_finding_and_its_fix() {
    let home = Home::new();
    let text = home.transcript(&["doctor"]);
    for part in [
        "problem  kernel.set-up ",
        "fix: firebrick setup\n",
        "host.disk ",
        " problem",
        "exit code 1\n",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let text = home.transcript(&["doctor", "nothing"]);
    assert!(
        text.contains("error: there is no image named \"nothing\""),
        "{text}"
    );
}
