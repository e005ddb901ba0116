//! One host a finding, made of files in a folder, and one that has everything.

use std::os::unix::fs::PermissionsExt as _;

use firebrick_digest::Digest;

use super::*;
use crate::doctor::Severity;

/// A host that has everything; `HostView::kvm` proves no more than that a file opens, so that finding stays a warning.
fn good(folder: &Path) -> HostView {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("a file");
        path
    };
    let program = |name: &str, says: &str| {
        let path = file(name, &format!("#!/bin/sh\necho '{says}'\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    program(
        &format!("qemu-system-{}", Arch::HOST),
        "QEMU emulator version 7.2.22 (Debian)",
    );
    program("firecracker", "Firecracker v1.15.1");
    program("newuidmap", "");
    HostView {
        kvm: file("kvm", ""),
        vsock: file("vsock", ""),
        subuid: file("subuid", "root:1:65536\nme:100000:65536\n"),
        subgid: file("subgid", "me:100000:65536\n"),
        meminfo: file("meminfo", "MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n"),
        search_path: folder.into(),
        state: folder.join("state"),
        user: "me".to_owned(),
        is_root: false,
        arch: Arch::HOST,
    }
}

fn finding(view: &HostView, id: &str) -> Finding {
    let all = view.findings(None);
    all.into_iter()
        .find(|finding| finding.id == id)
        .expect("the id is known")
}

/// What `change` makes of a good host must show in this finding, with this in its text and in its fix.
#[track_caller]
fn shows(id: &str, severity: Severity, found: &str, fix: &str, change: impl FnOnce(&mut HostView, &Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut view = good(folder.path());
    change(&mut view, folder.path());
    let finding = finding(&view, id);
    assert_eq!(finding.severity, severity, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    assert!(
        finding.fix.as_deref().unwrap_or_default().contains(fix),
        "{finding:?}"
    );
}

#[test]
fn a_host_that_has_everything_is_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let view = good(folder.path());
    for finding in view.findings(None) {
        let expected = match finding.id {
            "host.kvm" => Severity::Warning, // no kernel to try it with
            "host.disk" => finding.severity, // the real one
            _ => Severity::Ok,
        };
        assert_eq!(finding.severity, expected, "{finding:?}");
    }
    assert!(finding(&view, "host.qemu").found.contains("7.2.22"));
    assert!(finding(&view, "host.firecracker").found.contains("v1.15.1"));
}

#[test]
fn programs_that_are_missing_or_broken_are_told() {
    let qemu = format!("qemu-system-{}", Arch::HOST);
    shows(
        "host.qemu",
        Severity::Problem,
        "no qemu-system",
        "apt-get install qemu-system-",
        |_, folder| {
            fs::remove_file(folder.join(&qemu)).expect("it is there");
            fs::remove_file(folder.join("firecracker")).expect("it is there");
        },
    );
    shows(
        "host.qemu",
        Severity::Problem,
        "does not start",
        "--reinstall",
        |_, folder| {
            fs::write(folder.join(&qemu), "#!/bin/sh\nexit 1\n").expect("a file");
        },
    );
    shows(
        "host.qemu",
        Severity::Problem,
        "aarch64",
        "qemu-system-arm",
        |view, _| {
            view.arch = Arch::Aarch64;
        },
    );
    let setup = "firebrick setup --firecracker-version";
    shows(
        "host.firecracker",
        Severity::Warning,
        "not installed",
        setup,
        |_, folder| {
            fs::remove_file(folder.join("firecracker")).expect("it is there");
        },
    );
    shows(
        "host.firecracker",
        Severity::Warning,
        "does not tell",
        setup,
        |_, folder| {
            fs::write(folder.join("firecracker"), "#!/bin/sh\nexit 1\n").expect("a file");
        },
    );
    shows(
        "host.uidmap",
        Severity::Warning,
        "not installed",
        "uidmap",
        |_, folder| {
            fs::remove_file(folder.join("newuidmap")).expect("it is there");
        },
    );
}

/// It runs VMs where KVM works, and only there.
#[test]
fn firecracker_alone_is_no_problem_but_needs_kvm() {
    let without_qemu = |folder: &Path| {
        fs::remove_file(folder.join(format!("qemu-system-{}", Arch::HOST))).expect("it is there");
    };
    shows(
        "host.qemu",
        Severity::Warning,
        "Firecracker runs VMs",
        "apt-get install qemu-system-",
        |_, folder| without_qemu(folder),
    );
    shows(
        "host.kvm",
        Severity::Problem,
        "which alone is here to run VMs, needs it",
        "modprobe kvm_intel",
        |view, folder| {
            without_qemu(folder);
            view.kvm = "/nowhere/kvm".into();
        },
    );
    for (version, severity) in [
        ("1.7.0", Severity::Warning),
        ("1.8.0", Severity::Ok),
        ("1.10.1-x", Severity::Ok),
    ] {
        shows("host.firecracker", severity, version, "", |_, folder| {
            let script = format!("#!/bin/sh\necho 'Firecracker v{version}'\n");
            fs::write(folder.join("firecracker"), script).expect("a file");
        });
    }
}

/// A kernel as `setup` keeps it, that nothing but the fake Firecracker starts.
fn put_kernel(state: &Path) -> Kernel {
    let folder = state.join("kernels/6.1.0-1");
    fs::create_dir_all(&folder).expect("a folder");
    let bytes = b"\x7fELF";
    fs::write(folder.join("vmlinux"), bytes).expect("a file");
    let manifest = serde_json::json!({
        "version": 1, "release": "6.1.0-1", "arch": Arch::HOST.name(), "file": "vmlinux", "format": "elf", "size_bytes": 4,
        "digest": Digest::of(bytes).to_string(), "modules": [], "missing": [],
        "origin": {"kind": "file", "path": "/x", "digest": "sha256:0"},
    });
    fs::write(folder.join("kernel.json"), manifest.to_string()).expect("a file");
    Kernel::open(&folder).expect("it is whole")
}

/// Where it is all that there is, the kernel is started on it: it comes up, or what the VMM said is told.
#[test]
fn firecracker_alone_is_tried() {
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/tests/firecracker/fake-firecracker");
    let folder = tempfile::tempdir().expect("a folder");
    let view = good(folder.path());
    fs::remove_file(folder.path().join(format!("qemu-system-{}", Arch::HOST))).expect("it is there");
    let kernel = put_kernel(&view.state);
    for (mode, severity, found) in [
        ("", Severity::Ok, "kvm runs a stock kernel"),
        ("dead", Severity::Problem, "Failed to open /dev/kvm"),
        ("refuse:/boot-source", Severity::Problem, "as the test wants it"),
    ] {
        let script = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin FAKE_MODE={mode} exec '{}' \"$@\"\n",
            fake.display()
        );
        fs::write(folder.path().join("firecracker"), script).expect("a file");
        let all = view.findings(Some(&kernel));
        let finding = all
            .iter()
            .find(|finding| finding.id == "host.kvm")
            .expect("it is known");
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(finding.found.contains(found), "{finding:?}");
        assert_eq!(fs::read_dir(view.state.join("run")).expect("a folder").count(), 0);
    }
}

/// What was set up is held to its digest before it is started.
#[test]
fn a_firecracker_that_is_not_whole_is_told_and_not_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let view = good(folder.path());
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(18, 0);
    program.extend_from_slice(&Arch::HOST.elf_machine().to_le_bytes());
    let mine = folder.path().join("mine");
    fs::write(&mine, &program).expect("a file");
    Release::install_program(&view.state, &mine, "1.15.1").expect("it is a program");
    let own = release::folder(&view.state).join("firecracker");
    // Whole, but no more than a header.
    let told = finding(&view, "host.firecracker");
    assert_eq!(told.severity, Severity::Warning, "{told:?}");
    let started = folder.path().join("started");
    fs::write(&own, format!("#!/bin/sh\ntouch {}\n", started.display())).expect("a file");
    let told = finding(&view, "host.firecracker");
    assert_eq!(told.severity, Severity::Problem, "{told:?}");
    assert!(
        told.found.contains("bin/firecracker is not as it was set up"),
        "{told:?}"
    );
    assert!(
        told.fix
            .expect("a fix")
            .starts_with("firebrick setup --firecracker-version ")
    );
    fs::remove_file(folder.path().join(format!("qemu-system-{}", Arch::HOST))).expect("it is there");
    assert_eq!(finding(&view, "host.qemu").severity, Severity::Problem);
    fs::write(release::folder(&view.state).join("firecracker.json"), "{").expect("a file");
    let told = finding(&view, "host.firecracker");
    assert!(told.found.contains("firecracker.json is not as"), "{told:?}");
    assert!(!started.exists());
}

#[test]
fn devices_that_are_missing_or_closed_are_told() {
    shows(
        "host.kvm",
        Severity::Warning,
        "there is no",
        "modprobe kvm_intel",
        |view, _| {
            view.kvm = "/nowhere/kvm".into();
        },
    );
    // A folder opens for nobody, whoever runs the tests.
    shows(
        "host.kvm",
        Severity::Warning,
        "cannot be opened",
        "usermod -aG kvm me",
        |view, folder| {
            view.kvm = folder.to_owned();
        },
    );
    shows(
        "host.vsock",
        Severity::Warning,
        "there is no",
        "modprobe vhost_vsock",
        |view, _| {
            view.vsock = "/nowhere/vsock".into();
        },
    );
    shows(
        "host.vsock",
        Severity::Warning,
        "cannot be opened",
        "u:me:rw",
        |view, folder| {
            view.vsock = folder.to_owned();
        },
    );
}

#[test]
fn room_that_is_short_is_told() {
    shows(
        "host.memory",
        Severity::Warning,
        "only 97.7 MiB",
        "--mem 256",
        |view, _| {
            fs::write(&view.meminfo, "MemAvailable: 100000 kB\n").expect("a file");
        },
    );
    let folder = tempfile::tempdir().expect("a folder");
    let view = good(folder.path());
    for (free, severity) in [
        (100 << 20, Severity::Problem),
        (1 << 30, Severity::Warning),
        (9 << 30, Severity::Ok),
    ] {
        let finding = view.disk_of(free);
        assert_eq!(finding.severity, severity);
        assert_eq!(finding.fix.is_some(), severity != Severity::Ok);
    }
}

#[test]
fn ids_that_are_missing_are_told_but_not_to_root() {
    let fix = "--add-subgids 100000-165535 me";
    shows("host.subids", Severity::Warning, "subgid", fix, |view, _| {
        fs::write(&view.subgid, "other:1:65536\nme:1:10\n").expect("a file");
    });
    shows("host.subids", Severity::Ok, "root", "", |view, _| {
        view.is_root = true;
        fs::remove_file(&view.subuid).expect("it is there");
    });
}
