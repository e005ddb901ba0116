//! Snapshots: one machine, from which many go on.

use firebrick_vmm::Vmm as _;

use crate::fake::{LIMIT, agent, console_says, fake};

#[test]
fn many_machines_go_on_where_one_was_paused() {
    let Some(fake) = fake("") else { return };
    for vmm in [fake.vmm(), fake.jailed()] {
        let folder = tempfile::tempdir_in(fake.dir.path()).unwrap();
        let mut spec = fake.spec();
        spec.drives.truncate(1); // what is written cannot be shared
        let first = vmm.launch(&spec).unwrap();
        agent(&*first).ping(LIMIT).unwrap();
        first.pause().unwrap();
        let snapshot = first.snapshot(folder.path()).unwrap();
        assert!(snapshot.state.is_file() && snapshot.memory.is_file());
        drop(first);
        let members: Vec<_> = (0..3).map(|_| vmm.restore(&snapshot).unwrap()).collect();
        for member in &members {
            // Each has a vsock of its own, though the snapshot names one only.
            agent(&**member).ping(LIMIT).unwrap();
            console_says(&**member, "going on from a snapshot");
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
