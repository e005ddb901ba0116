//! Trees deeper than an agent may have files open.

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

use crate::common::{Agent, assert_nothing_left};

const DEPTH: usize = 5_000;

const FILES: u64 = 1_024;

fn agent_with_few_files() -> Agent {
    let agent = Agent::start();
    let limit = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    rustix::process::prlimit(Some(Pid::from_child(&agent.process)), Resource::Nofile, limit)
        .expect("a limit for a child");
    agent
}

/// Makes folders within each other; every hundredth also has a file, a folder with a file, and a symlink out of all.
fn make_deep(top: &Path, outside: &Path) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(top, flags, Mode::empty()).expect("a folder");
    for level in 0..DEPTH {
        if level % 100 == 0 {
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::mkdirat(&folder, "a", Mode::RWXU).expect("a folder");
            rustix::fs::symlinkat(outside, &folder, "out").expect("a symlink");
            for name in ["file", "a/file"] {
                rustix::fs::openat(&folder, name, create, Mode::RWXU).expect("a file");
            }
        }
        rustix::fs::mkdirat(&folder, "deeper", Mode::RWXU).expect("a folder");
        folder = rustix::fs::openat(&folder, "deeper", flags, Mode::empty()).expect("the folder");
    }
}

#[test]
fn trees_deeper_than_there_are_files_are_removed() {
    let agent = agent_with_few_files();
    let place = tempfile::tempdir().expect("a folder");
    let (top, outside) = (place.path().join("top"), place.path().join("outside"));
    for folder in [&top, &outside] {
        std::fs::create_dir(folder).expect("a folder");
    }
    std::fs::write(outside.join("kept"), "kept").expect("a file");
    make_deep(&top, &outside);

    let mut client = agent.dial();
    let params = json!({"path": top, "recursive": true});
    assert_eq!(client.call("remove", params.clone()), json!({}));
    assert_eq!(client.fail("remove", params)["data"]["errno"], 2);
    let names: Vec<_> = std::fs::read_dir(place.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["outside"]);
    assert_eq!(std::fs::read(outside.join("kept")).expect("the file"), b"kept");
    drop(client);
    assert_nothing_left(&agent);
}

#[test]
fn jobs_leave_nothing_however_deep() {
    let agent = agent_with_few_files();
    let code = format!("import os\nfor _ in range({DEPTH}):\n os.mkdir('d'); os.chdir('d')\nprint('deep')");
    let answer = agent.job(&json!({"lang": "python", "code": code}));
    assert_eq!(answer["stdout"], "deep\n", "{answer}");
    assert_nothing_left(&agent);
}
