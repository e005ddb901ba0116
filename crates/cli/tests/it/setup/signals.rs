//! Who ends `setup` in the middle has nothing to clear up: no folder, and no program that it has started.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Home;

fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn work_folders(home: &Home) -> usize {
    let entries = fs::read_dir(home.path().join("fb/kernels")).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(".new-"))
        .count()
}

#[test]
fn a_setup_that_is_ended_takes_its_things_along() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        let home = Home::new();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        // An apt that is at work for ever.
        let apt = bin.join("apt-cache");
        let told = home.path().join("pid");
        let script = format!(
            "#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}; exec sleep 1000\n",
            told.display()
        );
        fs::write(&apt, script).expect("a file");
        fs::set_permissions(&apt, fs::Permissions::from_mode(0o755)).expect("a mode");
        let setup = Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
            .arg("setup")
            .env("FIREBRICK_HOME", home.path().join("fb"))
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        eventually(|| told.exists());
        assert_eq!(work_folders(&home), 1);
        kill_process(Pid::from_child(&setup), signal).expect("it is there");
        let output = setup.wait_with_output().expect("it ends");
        assert_eq!(output.status.signal(), Some(signal.as_raw()));
        let apt = fs::read_to_string(&told).expect("a number");
        let apt = Path::new("/proc").join(apt.trim()).join("cmdline");
        // It may be a zombie that waits for init: that has no words any more.
        eventually(|| !fs::read(&apt).is_ok_and(|words| words.starts_with(b"sleep")));
        if signal == Signal::KILL {
            // Nobody could: the next one does.
            fs::write(home.path().join("none"), "x").expect("a file");
            home.firebrick(&["setup", "--kernel", "none"]).assert().failure();
        }
        assert_eq!(work_folders(&home), 0);
    }
}
