//! Snapshots: one machine, from which many go on.

use std::os::unix::fs::MetadataExt as _;

use firebrick_vmm::Vmm as _;
use firebrick_vmm::firecracker::Jail;

use crate::common::chain;
use crate::fake::{LIMIT, agent, console_says, fake};

#[test]
fn many_machines_go_on_where_one_was_paused() {
    let Some(fake) = fake("") else { return };
    let copying = Jail {
        copies: true,
        ..fake.jail()
    };
    for (vmm, is_jailed) in [
        (fake.vmm(), false),
        (fake.jailed(), true),
        (fake.vmm().with_jail(copying), true),
    ] {
        let folder = tempfile::tempdir_in(fake.dir.path()).unwrap();
        let mut spec = fake.spec();
        spec.drives.truncate(1); // what is written cannot be shared
        let first = vmm.launch(&spec).unwrap();
        agent(&*first).ping(LIMIT).unwrap();
        first.pause().unwrap();
        let snapshot = first.snapshot(folder.path()).unwrap();
        assert!(snapshot.state.is_file() && snapshot.memory.is_file());
        drop(first);
        let memory = std::fs::metadata(&snapshot.memory).unwrap();
        if is_jailed {
            // No member may change what the others read.
            assert_eq!(memory.uid(), rustix::process::geteuid().as_raw());
            assert_eq!(memory.mode() & 0o777, 0o440);
        }
        let members: Vec<_> = (0..3).map(|_| vmm.restore(&snapshot).unwrap()).collect();
        for member in &members {
            // Each has a vsock of its own, though the snapshot names one only.
            agent(&**member).ping(LIMIT).unwrap();
            console_says(&**member, "going on from a snapshot");
        }
        if is_jailed {
            let links = std::fs::metadata(&snapshot.memory).unwrap().nlink();
            assert_eq!(links, 4, "a guest's memory is not copied");
        }
        drop(members);
        fake.is_clean();
    }
    let asked = fake.requests();
    assert!(asked.iter().all(|request| request.ends_with(" 204")), "{asked:?}");
    for wanted in [
        "PATCH /vm 204",
        "PUT /snapshot/create 204",
        "PUT /snapshot/load 204",
    ] {
        assert!(asked.iter().any(|request| request == wanted), "{wanted}");
    }
}

/// As a Firecracker that its guest has taken over would do.
#[test]
fn a_jailed_firecracker_cannot_pass_off_other_files_as_its_memory() {
    for mode in ["link", "twice"] {
        let Some(fake) = fake(mode) else { return };
        let folder = tempfile::tempdir_in(fake.dir.path()).unwrap();
        let machine = fake.jailed().launch(&fake.spec()).unwrap();
        machine.pause().unwrap();
        let error = machine.snapshot(folder.path()).unwrap_err();
        assert!(
            chain(&error).contains("no plain file"),
            "{mode}: {}",
            chain(&error)
        );
        assert!(!folder.path().join("memory").exists(), "{mode}");
        drop(machine);
        fake.is_clean();
    }
}
