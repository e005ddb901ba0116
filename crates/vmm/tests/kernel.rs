//! The real kernel package: fetched by apt, taken apart, put in place; and packages that lie.
//!
//! The package is fetched once per target folder. `FIREBRICK_SKIP_ORACLES=1` leaves these tests out where there is no apt.

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use firebrick_vmm::kernel::bzimage::BzImage;
use firebrick_vmm::kernel::{Format, Kernel, KernelError, SetupEvent, SetupRequest, Source, modules, setup};
use firebrick_vmm::{Arch, BootSpec, Drive, Network, Vsock, firecracker, initramfs, qemu};

fn request(state: &Path, source: Source) -> SetupRequest {
    SetupRequest {
        state: state.to_owned(),
        source,
        force: false,
    }
}

#[test]
fn the_kernel_is_elf_and_its_modules_are_in_order() {
    let Some(kernel) = common::kernel() else { return };
    let manifest = kernel.manifest();
    assert_eq!(manifest.format, Format::Elf);
    assert!(manifest.release.ends_with("-cloud-amd64"), "{}", manifest.release);
    kernel.verify().unwrap();
    let names: Vec<&str> = manifest.modules.iter().map(|module| &*module.name).collect();
    let at = |name: &str| names.iter().position(|&other| other == name);
    for name in [
        "virtio_mmio",
        "virtio_blk",
        "virtio_console",
        "virtio_net",
        "overlay",
        "squashfs",
        "erofs",
    ] {
        assert!(at(name).is_some(), "{name} is not in {names:?}");
    }
    // `modinfo` is the judge of what depends on what.
    for module in &manifest.modules {
        let output = Command::new("modinfo")
            .args(["-F", "depends"])
            .arg(kernel.module_path(module))
            .output();
        let output = output.expect("modinfo (Debian package kmod)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        for depends in text.trim().split(',').filter(|name| !name.is_empty()) {
            assert!(
                at(depends) < at(&module.name),
                "{} before {depends} in {names:?}",
                module.name
            );
        }
    }
    for (filesystem, compression, systemd) in [
        ("ext4", None, true),
        ("squashfs", Some("zstd"), false),
        ("squashfs", Some("gzip"), false),
        ("squashfs", Some("lz4"), false),
        ("squashfs", Some("xz"), false),
    ] {
        let lacks = kernel
            .lacks(filesystem, compression, systemd)
            .expect("the package has a configuration");
        assert_eq!(lacks, [], "{filesystem}");
    }
}

#[test]
fn a_second_setup_downloads_nothing_and_changes_nothing() {
    let Some(kernel) = common::kernel() else { return };
    let before = common::listing(kernel.dir());
    let events = std::cell::RefCell::new(Vec::new());
    let again = setup(
        &request(
            &common::state(),
            Source::Apt {
                version: None,
                arch: Arch::HOST,
            },
        ),
        &|event| {
            events.borrow_mut().push(event);
        },
    )
    .unwrap();
    assert_eq!(again, kernel);
    assert_eq!(common::listing(kernel.dir()), before);
    let downloads = |event: &SetupEvent| matches!(event, SetupEvent::Downloading { .. });
    assert!(!events.borrow().iter().any(downloads), "{events:?}");
}

#[test]
fn a_version_that_is_not_there_is_answered_with_those_that_are() {
    if common::kernel().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Apt {
        version: Some("2.4".to_owned()),
        arch: Arch::HOST,
    };
    match setup(&request(dir.path(), source), &|_| {}) {
        Err(KernelError::NoSuchVersion { wanted, known }) => {
            assert_eq!(wanted, "2.4");
            assert!(
                known.iter().any(|name| name.contains("-cloud-amd64")),
                "{known:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    let left = common::listing(dir.path());
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        ["kernels", "kernels/.lock"],
        "{left:?}"
    );
}

/// Node.js of Alpine and others asks for 5.10 at least, Firecracker is tested with it, and Debian 12 has 6.1.
#[test]
fn a_kernel_of_another_release_of_debian_comes_from_the_same_mirror() {
    if common::kernel().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Apt {
        version: Some("5.10".to_owned()),
        arch: Arch::HOST,
    };
    let events = std::cell::RefCell::new(Vec::new());
    let kernel = setup(&request(dir.path(), source), &|event| {
        events.borrow_mut().push(event)
    })
    .unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    assert!(
        kernel.manifest().release.starts_with("5.10."),
        "{:?}",
        kernel.manifest()
    );
    assert_eq!(kernel.version(), Some((5, 10)));
    assert_eq!(kernel.lacks("ext4", None, true), Some(Vec::new()));
    let asked = |event: &SetupEvent| {
        matches!(
            event,
            SetupEvent::UpdatingLists {
                suite: Some("bullseye")
            }
        )
    };
    assert!(events.borrow().iter().any(asked), "{events:?}");
}

#[test]
fn a_package_file_an_elf_file_and_a_bzimage_all_set_up() {
    let Some(kernel) = common::kernel() else { return };
    let dir = tempfile::tempdir().unwrap();
    let elf = setup(&request(dir.path(), Source::File(kernel.path())), &|_| {}).unwrap();
    assert!(
        elf.manifest().release.starts_with("file-"),
        "{}",
        elf.manifest().release
    );
    assert_eq!(elf.manifest().digest, kernel.manifest().digest);
    let image = bzimage_of(&kernel.path());
    let path = dir.path().join("bzImage");
    std::fs::write(&path, &image).unwrap();
    let from_image = setup(&request(dir.path(), Source::File(path)), &|_| {}).unwrap();
    assert_eq!(from_image.manifest().format, Format::Elf);
    assert_eq!(from_image.manifest().digest, kernel.manifest().digest);
    let deb = package(&[
        ("boot/vmlinuz-6.9.0-test", &image),
        ("lib/modules/6.9.0-test/modules.builtin", BUILT_IN),
    ]);
    let path = dir.path().join("k.deb");
    std::fs::write(&path, deb).unwrap();
    let from_deb = setup(&request(dir.path(), Source::Package(path)), &|_| {}).unwrap();
    assert_eq!(from_deb.manifest().modules, []);
    assert_eq!(from_deb.manifest().missing, ["erofs"]);
    assert_eq!(
        Kernel::default_of(dir.path()).unwrap().manifest().digest,
        kernel.manifest().digest
    );
    assert_eq!(BzImage::parse(&image).unwrap().release, "6.9.0-test");
}

const BUILT_IN: &[u8] = b"kernel/a/virtio_mmio.ko\nkernel/a/virtio_blk.ko\nkernel/a/virtio_console.ko\nkernel/a/overlay.ko
kernel/a/virtio_net.ko\nkernel/a/virtio-rng.ko\nkernel/a/vsock.ko\nkernel/a/vmw_vsock_virtio_transport.ko\nkernel/a/squashfs.ko
kernel/a/i8042.ko\nkernel/a/atkbd.ko\n";

/// Ctrl-Alt-Del is heard where the kernel has its keyboard as modules, too; QEMU's machines have none.
#[test]
fn a_keyboard_that_is_a_module_is_brought_to_firecrackers_guests() {
    let Some(kernel) = common::kernel() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Any module that depends on nothing will do.
    let modules = &kernel.manifest().modules;
    let overlay = modules.iter().find(|module| module.name == "overlay").unwrap();
    let module = std::fs::read(kernel.module_path(overlay)).unwrap();
    let built_in = String::from_utf8_lossy(BUILT_IN).replace("kernel/a/i8042.ko\nkernel/a/atkbd.ko\n", "");
    let deb = package(&[
        ("boot/vmlinuz-6.9.0-test", &bzimage(&common::tiny_elf_kernel())),
        ("lib/modules/6.9.0-test/modules.builtin", built_in.as_bytes()),
        (
            "lib/modules/6.9.0-test/kernel/drivers/input/serio/i8042.ko",
            &module,
        ),
        (
            "lib/modules/6.9.0-test/kernel/drivers/input/keyboard/atkbd.ko",
            &module,
        ),
    ]);
    let path = dir.path().join("k.deb");
    std::fs::write(&path, deb).unwrap();
    let modular = setup(&request(dir.path(), Source::Package(path)), &|_| {}).unwrap();
    let names: Vec<&str> = modular
        .manifest()
        .modules
        .iter()
        .map(|module| &*module.name)
        .collect();
    assert_eq!(names, ["i8042", "atkbd"]);
    let spec = BootSpec::new("/x/image", &modular, b"guest");
    let has_keyboard = |facts| {
        let initramfs = spec.machine(&facts).unwrap().initramfs.unwrap();
        let list: &[u8] = b"/lib/firebrick/modules.d/i8042.ko\n/lib/firebrick/modules.d/atkbd.ko\n";
        initramfs.windows(list.len()).any(|window| window == list)
    };
    assert!(has_keyboard(firecracker::facts()) && !has_keyboard(qemu::facts()));
}

#[test]
fn packages_that_lie_are_refused_and_leave_nothing() {
    let tiny = common::tiny_elf_kernel();
    let image = bzimage(&tiny);
    let module = ("lib/modules/6.9.0-test/kernel/x.ko", &b"not a module"[..]);
    let vmlinuz = ("boot/vmlinuz-6.9.0-test", &image[..]);
    let mut renamed = image.clone();
    renamed[0x300..0x30c].copy_from_slice(b"../../../etc");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "no kernel",
            package(&[("lib/modules/x/modules.builtin", BUILT_IN)]),
        ),
        ("a kernel that is text", package(&[("boot/vmlinuz-1", b"hello")])),
        ("no modules", package(&[vmlinuz])),
        ("a module that is text", package(&[vmlinuz, module])),
        (
            "a release that is a path",
            package(&[
                ("boot/vmlinuz-x", &renamed),
                ("lib/modules/x/modules.builtin", BUILT_IN),
            ]),
        ),
        ("empty", Vec::new()),
        (
            "cut",
            package(&[vmlinuz, ("lib/modules/x/modules.builtin", BUILT_IN)])[..300].to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.deb");
        std::fs::write(&path, bytes).unwrap();
        let error = setup(
            &request(&dir.path().join("state"), Source::Package(path)),
            &|_| {},
        )
        .unwrap_err();
        let host = matches!(error, KernelError::Host { .. });
        assert!(!host, "{what}: {error:?}");
        let left = common::listing(&dir.path().join("state"));
        assert_eq!(
            left.keys().collect::<Vec<_>>(),
            ["kernels", "kernels/.lock"],
            "{what}"
        );
    }
}

#[test]
fn what_a_killed_setup_left_is_removed_and_damage_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    std::fs::write(&path, common::tiny_elf_kernel()).unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir_all(state.join("kernels/.new-killed/modules")).unwrap();
    let kernel = setup(&request(&state, Source::File(path.clone())), &|_| {}).unwrap();
    assert!(!state.join("kernels/.new-killed").exists());
    std::fs::write(
        kernel.path(),
        vec![0; usize::try_from(kernel.manifest().size_bytes).unwrap()],
    )
    .unwrap();
    assert!(matches!(kernel.verify(), Err(KernelError::Damaged { .. })));
    setup(&request(&state, Source::File(path)), &|_| {})
        .unwrap()
        .verify()
        .unwrap();
    std::fs::write(kernel.path(), b"short").unwrap();
    assert!(matches!(
        Kernel::default_of(&state),
        Err(KernelError::Damaged { .. })
    ));
    assert!(matches!(
        Kernel::default_of(dir.path()),
        Err(KernelError::NotSetUp { .. })
    ));
}

#[test]
fn cpio_reads_the_initramfs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    std::fs::write(&path, common::tiny_elf_kernel()).unwrap();
    let tiny = setup(&request(dir.path(), Source::File(path)), &|_| {}).unwrap();
    let kernel = common::kernel().unwrap_or(tiny);
    let guest = vec![0x5a; 123_457];
    let archive = initramfs::assemble(&kernel, &guest).unwrap();
    assert_eq!(archive, initramfs::assemble(&kernel, &guest).unwrap());
    assert_eq!(archive.len() % 4096, 0);
    let few = initramfs::assemble_with(&kernel, &guest, &["virtio_blk", "ext4"]).unwrap();
    let listed = cpio(&["-it", "--quiet", "lib/firebrick/modules.d/*"], &few);
    let mut modules: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .collect();
    modules.retain(|name| !["virtio.ko", "virtio_ring.ko", "virtio_blk.ko"].contains(name));
    assert_eq!(modules, [""; 0], "neither wanted nor needed");
    assert!(few.len() <= archive.len());
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // `-D` and relative names: nothing lands elsewhere. The device needs root, so it is only listed.
    let listed = cpio(&["-itv", "--quiet", "--numeric-uid-gid"], &archive);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("crw-------") && line.ends_with("dev/console")),
        "{listed}"
    );
    let out_text = out.to_str().unwrap();
    cpio(&["-idm", "--quiet", "-D", out_text, "init", "lib/*"], &archive);
    assert_eq!(std::fs::read(out.join("init")).unwrap(), guest);
    let list = std::fs::read_to_string(out.join(initramfs::MODULE_LIST)).unwrap();
    let modules: Vec<PathBuf> = list
        .lines()
        .map(|line| out.join(line.trim_start_matches('/')))
        .collect();
    assert_eq!(modules.len(), kernel.manifest().modules.len());
    for (path, module) in modules.iter().zip(&kernel.manifest().modules) {
        assert_eq!(
            std::fs::read(path).unwrap(),
            modules::lean(std::fs::read(kernel.module_path(module)).unwrap())
        );
    }
}

fn cpio(args: &[&str], archive: &[u8]) -> String {
    let mut child = Command::new("cpio")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio (Debian package cpio)");
    let mut stdin = child.stdin.take().unwrap();
    let archive = archive.to_vec();
    // cpio stops reading at the trailer.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&archive)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn bzimage_of(vmlinux: &Path) -> Vec<u8> {
    bzimage(&std::fs::read(vmlinux).unwrap())
}

/// A `bzImage` around an ELF file: the fields that say where the payload lies, and no code.
fn bzimage(vmlinux: &[u8]) -> Vec<u8> {
    let mut payload = zstd::encode_all(vmlinux, 1).unwrap();
    payload.extend_from_slice(&u32::try_from(vmlinux.len()).unwrap().to_le_bytes());
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 2]);
    image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    image[0x300..0x30f].copy_from_slice(b"6.9.0-test (me)");
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    image.extend_from_slice(&payload);
    image
}

fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len()).unwrap());
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("./{name}"), *bytes).unwrap();
    }
    let data = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
    let mut deb = b"!<arch>\n".to_vec();
    for (name, body) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.zst", &data)] {
        writeln!(
            deb,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`",
            0,
            0,
            0,
            100_644,
            body.len()
        )
        .unwrap();
        deb.extend_from_slice(body);
        if body.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    deb
}

/// A kernel of a few bytes, set up in this folder.
fn tiny_kernel(state: &Path) -> Kernel {
    let file = state.join("vmlinux");
    std::fs::write(&file, common::tiny_elf_kernel()).unwrap();
    setup(&request(state, Source::File(file)), &|_| {}).unwrap()
}

/// `run` and `boot` both start from this: the machine, and every word of its kernel's command line.
#[test]
fn the_machine_follows_from_what_is_to_be_booted() {
    let state = tempfile::tempdir().unwrap();
    let kernel = tiny_kernel(state.path());
    let mut spec = BootSpec::new("/x/image", &kernel, b"guest");
    let words = |spec: &BootSpec<'_>| {
        let append = spec.machine(&qemu::facts()).unwrap().append;
        append.split(' ').map(str::to_owned).collect::<Vec<String>>()
    };
    let plain = words(&spec);
    assert_eq!(
        plain[..6],
        [
            "root=/dev/vda",
            "rootfstype=ext4",
            "ro",
            "overlay_root=ram",
            "overlay_size=256M",
            "firebrick.exit=poweroff"
        ]
    );
    let epoch: u64 = plain[6]
        .strip_prefix("firebrick.epoch=")
        .unwrap()
        .parse()
        .unwrap();
    assert!(epoch > 1_700_000_000);
    assert_eq!(plain[7..], ["firebrick.hostname=firebrick"]);

    spec.network = Network::User;
    spec.hostname = "brick".to_owned();
    spec.init = Some("/bin/sh".to_owned());
    spec.append = "a=1 b".to_owned();
    spec.memory_mib = 700;
    let ip = "ip=10.0.2.15::10.0.2.2:255.255.255.0:brick:eth0:off:10.0.2.3";
    assert_eq!(
        words(&spec)[7..],
        ["firebrick.hostname=brick", ip, "init=/bin/sh", "a=1", "b"]
    );
    let machine = spec.machine(&qemu::facts()).unwrap();
    assert_eq!((machine.memory_mib, machine.network), (700, Network::User));
    assert_eq!(machine.drives.len(), 1);
    assert!(machine.drives[0].read_only);

    // Firecracker has no power-off, and a way to the agent that is its own.
    let data = Drive {
        path: "/x/data".into(),
        read_only: false,
    };
    spec.drives = vec![data.clone()];
    let machine = spec.machine_for_later(&firecracker::facts()).unwrap();
    assert!(
        machine
            .append
            .contains(" firebrick.exit=reboot firebrick.hostname="),
        "{}",
        machine.append
    );
    assert_eq!(machine.vsock, Vsock::Host);
    assert_eq!(machine.drives[1], data);
}

#[test]
fn what_would_be_other_words_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let kernel = tiny_kernel(state.path());
    let mut spec = BootSpec::new("/x/image", &kernel, b"guest");
    spec.init = Some("/bin/two words".to_owned());
    let error = spec.machine(&qemu::facts()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the path of init \"/bin/two words\" cannot stand on a kernel command line"
    );
    spec.init = None;
    spec.append = "a=1\nb".to_owned();
    let error = spec.machine(&qemu::facts()).unwrap_err().to_string();
    assert_eq!(
        error,
        "what is appended, \"a=1\\nb\" cannot stand on a kernel command line"
    );
}
