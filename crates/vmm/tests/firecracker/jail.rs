//! The jailer's layout: what is in the root, and that all of it goes.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use firebrick_vmm::firecracker::Jail;
use firebrick_vmm::{MachineSpec, Vmm as _, Vsock};

use crate::fake::{Fake, LIMIT, agent, fake};

/// The root of the only machine.
fn root(fake: &Fake) -> PathBuf {
    let machines: Vec<_> = std::fs::read_dir(fake.at("jail/firecracker")).unwrap().collect();
    assert_eq!(machines.len(), 1);
    machines[0].as_ref().unwrap().path().join("root")
}

#[test]
fn files_are_linked_in_named_as_seen_inside_and_removed() {
    let Some(fake) = fake("") else { return };
    let socket = fake.at("vsock");
    let spec = MachineSpec {
        vsock: Vsock::Socket(socket.clone()),
        ..fake.spec()
    };
    // What a killed machine has left is no hindrance.
    std::os::unix::fs::symlink(fake.at("gone/v.sock"), &socket).unwrap();
    let machine = fake.jailed().launch(&spec).unwrap();
    agent(&*machine).ping(LIMIT).unwrap();
    let root = root(&fake);
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    for (inside, outside) in [("kernel", "vmlinux"), ("drive0", "image"), ("drive1", "data")] {
        assert_eq!(
            inode(root.join(inside)),
            inode(fake.at(outside)),
            "{inside} is a link"
        );
    }
    assert_eq!(std::fs::read(root.join("initramfs")).unwrap(), b"an initramfs");
    for entry in fake.log() {
        for name in [
            "kernel_image_path",
            "initrd_path",
            "path_on_host",
            "uds_path",
            "log_path",
        ] {
            if let Some(path) = entry["body"][name].as_str() {
                assert!(!path.contains('/'), "{name} is {path}, which is not in the root");
            }
        }
    }
    assert!(std::fs::symlink_metadata(&socket).unwrap().is_symlink());
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    drop(machine);
    assert!(std::fs::symlink_metadata(&socket).is_err());
    assert_eq!(std::fs::read(fake.at("image")).unwrap(), b"an image");
    fake.is_clean();
}

#[test]
fn a_jail_that_copies_leaves_files_as_they_were() {
    let Some(fake) = fake("") else { return };
    let looked_at = || {
        let metadata = std::fs::metadata(fake.at("image")).unwrap();
        (metadata.ctime(), metadata.ctime_nsec(), metadata.ino())
    };
    let before = looked_at();
    let jail = Jail {
        copies: true,
        ..fake.jail()
    };
    let machine = fake.vmm().with_jail(jail).launch(&fake.spec()).unwrap();
    let root = root(&fake);
    assert_eq!(std::fs::read(root.join("drive0")).unwrap(), b"an image");
    assert_ne!(std::fs::metadata(root.join("drive0")).unwrap().ino(), before.2);
    // What is written must be seen.
    let data = std::fs::metadata(fake.at("data")).unwrap().ino();
    assert_eq!(std::fs::metadata(root.join("drive1")).unwrap().ino(), data);
    drop(machine);
    assert_eq!(looked_at(), before);
    fake.is_clean();
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that was left out should be seen")]
fn what_cannot_be_linked_is_copied_unless_it_is_written() {
    let Some(fake) = fake("") else { return };
    // Another filesystem, so no link.
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("left out: no /dev/shm");
        return;
    };
    let image = elsewhere.path().join("image");
    std::fs::write(&image, "elsewhere").unwrap();
    let mut spec = fake.spec();
    spec.drives[0].path.clone_from(&image);
    let machine = fake.jailed().launch(&spec).unwrap();
    let copy = root(&fake).join("drive0");
    assert_eq!(std::fs::read(&copy).unwrap(), b"elsewhere");
    assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o777, 0o400);
    drop(machine);
    spec.drives[0].read_only = false;
    let error = fake.jailed().launch(&spec).unwrap_err();
    assert!(
        error.to_string().starts_with("writing to this drive in a jail"),
        "{error}"
    );
    fake.is_clean();
}
