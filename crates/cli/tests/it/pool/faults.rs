//! What goes wrong with pools: VMs that do not start, keepers that hang or are killed, and two who want the same at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{is_clean, run, start, status, warm};
use crate::support::vm::{Home, LIMIT, eventually};

fn keeper(home: &Home) -> Pid {
    let pid = i32::try_from(status(home)["pid"].as_i64().expect("a number")).expect("a process");
    Pid::from_raw(pid).expect("a process")
}

/// Starts a command whose words can be read later.
fn spawn(mut command: Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().expect("the binary starts")
}

/// Exit code, stdout and stderr.
fn outcome(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A PATH where QEMU starts as many VMs as `allowed` has lines, and fails after that.
fn limited_qemu(home: &Home) -> String {
    let folder = home.at("bin");
    fs::create_dir(&folder).expect("a folder");
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *' -blockdev '*)\n\
           for slot in $(cat {0}/allowed); do mkdir {0}/$slot 2>/dev/null && exec /usr/bin/qemu-system-x86_64 \"$@\"; done\n\
           echo 'no VM today' >&2; exit 1;;\n\
         esac\n\
         exec /usr/bin/qemu-system-x86_64 \"$@\"\n",
        folder.display()
    );
    let qemu = folder.join("qemu-system-x86_64");
    fs::write(&qemu, script).expect("a file");
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("a mode");
    format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    )
}

#[test]
fn a_pool_that_fills_in_part_says_so_and_goes_on_trying() {
    let Some(home) = Home::new() else { return };
    let path = limited_qemu(&home);
    let start = |allowed: &str| {
        fs::write(home.at("bin/allowed"), allowed).expect("a file");
        let mut command = home.firebrick(&["pool", "start", "-l", "busybox", "--size", "2", "--json"]);
        command.env("PATH", &path);
        outcome(spawn(command))
    };
    let (code, stdout, stderr) = start("");
    assert!(
        code == Some(1) && stdout.is_empty() && stderr.contains("error: cannot start the pool: "),
        "{stderr}"
    );
    assert!(
        stderr.contains("no VM today")
            && stderr.contains("hint: see how the image boots: firebrick boot busybox\n"),
        "{stderr}"
    );
    is_clean(&home);

    let (code, stdout, stderr) = start("one\n");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("warning: only 1 of 2 VMs could be started, and the pool goes on trying: ")
            && stderr.contains("no VM today"),
        "{stderr}"
    );
    let told: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (&told["warm"], &told["size"]),
        (&Value::from(1), &Value::from(2)),
        "{told}"
    );
    let table = home.output(&["pool", "status"]).1;
    assert!(
        table.contains(" 1/2 ") && table.ends_with("no VM today\n"),
        "{table}"
    );
    // The one that is warm is lent, and what did not start is made up for.
    let (code, _, stderr) = run(&home, &["--pool"], "exit 9");
    assert!(code == Some(9) && stderr.contains("a VM of the pool"), "{stderr}");
    fs::write(home.at("bin/allowed"), "two\nthree\n").expect("a file");
    eventually(LIMIT, || warm(&home) == 2);
    assert_eq!(status(&home)["last_error"], Value::Null);
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}

#[test]
fn a_run_that_waits_for_a_vm_ends_by_its_signal_and_outlives_a_stop() {
    let Some(home) = Home::new() else { return };
    let path = limited_qemu(&home);
    fs::write(home.at("bin/allowed"), "").expect("a file");
    let mut start = home.firebrick(&["pool", "start", "-l", "busybox", "--size", "1", "--no-wait"]);
    start.env("PATH", &path);
    let (code, _, stderr) = outcome(spawn(start));
    assert_eq!(code, Some(0), "{stderr}");
    let waiting = |count: u64| eventually(LIMIT, || status(&home)["waiting"] == count);
    let most = u64::MAX.to_string();
    let limits = [
        "run",
        "-l",
        "busybox",
        "--pool",
        "--boot-timeout",
        &most,
        "-t",
        &most,
    ];
    let wait = || {
        let child = spawn(home.firebrick(&[&limits[..], &["--", "echo", "up"]].concat()));
        waiting(1);
        child
    };
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let child = wait();
        kill_process(Pid::from_child(&child), signal).expect("it is there");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        waiting(0);
    }
    // As with Ctrl-Z and fg: a wait that was interrupted goes on.
    let child = wait();
    let stat = format!("/proc/{}/stat", child.id());
    kill_process(Pid::from_child(&child), Signal::STOP).expect("it is there");
    eventually(LIMIT, || {
        fs::read_to_string(&stat).expect("it is there").contains(") T ")
    });
    kill_process(Pid::from_child(&child), Signal::CONT).expect("it is there");
    fs::write(home.at("bin/allowed"), "one\n").expect("a file");
    let (code, stdout, stderr) = outcome(child);
    assert_eq!((code, &*stdout), (Some(0), "up\n"), "{stderr}");
    // None was lent to those who had gone.
    eventually(LIMIT, || status(&home)["used"] == 1);
    // A keeper that is killed meanwhile is told as one that was never there.
    let child = wait();
    kill_process(keeper(&home), Signal::KILL).expect("it is there");
    let (code, _, stderr) = outcome(child);
    assert!(
        code == Some(125) && stderr.contains("there is no pool") && stderr.contains("hint: "),
        "{code:?} {stderr}"
    );
    home.no_process_is_left();
    // Its lock goes a moment after its name.
    eventually(LIMIT, || {
        assert_eq!(home.output(&["pool", "status"]).0, Some(0));
        fs::read_dir(home.path().join("run")).expect("a folder").count() == 0
    });
    is_clean(&home);
}

#[test]
fn a_keeper_that_can_open_nothing_more_goes_on_when_it_can() {
    let Some(home) = Home::new() else { return };
    let mut command = Command::new("prlimit");
    command
        .arg("--nofile=64:64")
        .arg(assert_cmd::cargo::cargo_bin("firebrick"))
        .args(["pool", "start", "-l", "busybox", "--size", "1"])
        .env("FIREBRICK_HOME", home.path());
    let (code, _, stderr) = outcome(spawn(command));
    assert_eq!(code, Some(0), "{stderr}");
    let pid = keeper(&home).as_raw_nonzero();
    let open = || {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it is there")
            .count()
    };
    let before = open();
    let socket = home.path().join("run/pool-busybox.sock");
    let connect = |_| UnixStream::connect(&socket).expect("there is room to wait");
    let crowd: Vec<UnixStream> = (0..100).map(connect).collect();
    let log = || fs::read_to_string(home.path().join("run/pool-busybox.log")).expect("a log");
    eventually(LIMIT, || {
        log().contains("cannot let somebody in: Too many open files")
    });
    assert!(open() > 60, "{}", open());
    drop(crowd);
    assert_eq!(warm(&home), 1);
    eventually(LIMIT, || open() <= before);
    let (code, _, stderr) = run(&home, &["--pool"], "exit 8");
    assert_eq!(code, Some(8), "{stderr}");
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}

#[test]
fn stop_all_goes_past_a_keeper_that_hangs_and_tells_its_process() {
    let Some(home) = Home::new() else { return };
    let images = home.path().join("images");
    fs::copy(
        images.join("rootfs-busybox.ext4"),
        images.join("rootfs-other.ext4"),
    )
    .expect("a copy");
    start(&home, &["--size", "1"]);
    let (code, _, stderr) = home.output(&["pool", "start", "-l", "other", "--size", "1"]);
    assert_eq!(code, Some(0), "{stderr}");
    let hung = keeper(&home);
    kill_process(hung, Signal::STOP).expect("it is there");
    let (code, stdout, stderr) = home.output(&["pool", "stop", "--all"]);
    assert_eq!((code, &*stdout), (Some(1), ""), "{stderr}");
    assert!(
        stderr.contains("cannot stop the pool busybox: its keeper does not answer\n")
            && stderr.contains("stopped the pool other\n")
            && stderr.contains(&format!(
                "hint: if it stays so, end it, and its VMs with it: kill -9 {hung}\n"
            )),
        "{stderr}"
    );
    // A start of its name is told so, too, and a run boots.
    let (code, _, stderr) = home.output(&["pool", "start", "-l", "busybox"]);
    assert!(code == Some(1) && stderr.contains("does not answer"), "{stderr}");
    let (code, _, stderr) = run(&home, &[], "exit 3");
    assert!(
        code == Some(3) && stderr.contains("its keeper does not answer"),
        "{stderr}"
    );
    kill_process(hung, Signal::KILL).expect("it is there");
    home.no_process_is_left();
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}

#[test]
fn of_those_who_start_the_same_pool_at_once_one_wins() {
    let Some(home) = Home::new() else { return };
    for wait in [&["--no-wait"][..], &[]] {
        let args = ["pool", "start", "-l", "busybox", "--size", "1", "--json"];
        let all: Vec<Child> = (0..4)
            .map(|_| spawn(home.firebrick(&[&args, wait].concat())))
            .collect();
        let outcomes: Vec<_> = all.into_iter().map(outcome).collect();
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(code, ..)| *code == Some(0));
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for (code, stdout, stderr) in lost {
            assert!(
                *code == Some(1)
                    && stdout.is_empty()
                    && stderr.contains("there is a pool \"busybox\" already"),
                "{outcomes:?}"
            );
        }
        let told: Value = serde_json::from_str(&won[0].1).expect("JSON");
        assert_eq!(told["pid"], status(&home)["pid"]);
        eventually(LIMIT, || warm(&home) == 1);
        assert_eq!(home.output(&["pool", "stop", "-l", "busybox"]).0, Some(0));
        is_clean(&home);
    }
}

#[test]
fn a_start_that_is_given_up_leaves_no_pool() {
    let Some(home) = Home::new() else { return };
    let log = home.path().join("run/pool-busybox.log");
    let socket = log.with_extension("sock");
    for (file, signal) in [(&log, Signal::INT), (&socket, Signal::TERM)] {
        let child = spawn(home.firebrick(&["pool", "start", "-l", "busybox", "--size", "1"]));
        eventually(LIMIT, || file.exists());
        kill_process(Pid::from_child(&child), signal).expect("it is there");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.signal(), Some(signal.as_raw()), "{output:?}");
        is_clean(&home);
    }
    // Somebody else does not want it.
    let child = spawn(home.firebrick(&["pool", "start", "-l", "busybox", "--size", "1"]));
    eventually(LIMIT, || socket.exists());
    assert_eq!(home.output(&["pool", "stop", "-l", "busybox"]).0, Some(0));
    let (code, _, stderr) = outcome(child);
    assert!(
        code == Some(1)
            && stderr.contains("error: the pool \"busybox\" was stopped while it was started\n")
            && stderr.contains("hint: start it again: firebrick pool start -l busybox\n"),
        "{stderr}"
    );
    is_clean(&home);
}

#[test]
fn a_run_whose_pool_is_stopped_ends_with_the_reason() {
    let Some(home) = Home::new() else { return };
    let args = ["run", "-l", "busybox", "--pool", "--", "sh", "-c"];
    start(&home, &["--size", "1"]);
    let mut child = spawn(home.firebrick(&[&args[..], &["echo up; sleep 200"]].concat()));
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped"))
        .read_line(&mut line)
        .expect("text");
    assert_eq!(line, "up\n");
    assert_eq!(home.output(&["pool", "stop", "-l", "busybox"]).0, Some(0));
    let (code, _, stderr) = outcome(child);
    assert!(
        code == Some(125) && stderr.contains("its pool was stopped"),
        "{stderr}"
    );
    is_clean(&home);
    // Wherever the two meet, each comes to its end.
    for pause in [0, 10, 30, 100] {
        start(&home, &["--size", "1"]);
        let child = spawn(home.firebrick(&[&args[..], &["echo done"]].concat()));
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(home.output(&["pool", "stop", "-l", "busybox"]).0, Some(0));
        let (code, stdout, stderr) = outcome(child);
        match code {
            Some(0) => assert_eq!(stdout, "done\n"),
            _ => assert!(
                code == Some(125) && stderr.contains("pool"),
                "{pause} ms: {code:?} {stderr}"
            ),
        }
        is_clean(&home);
    }
}

#[test]
fn a_killed_keeper_leaves_no_vm_and_its_files_are_no_hindrance() {
    let Some(home) = Home::new() else { return };
    start(&home, &["--size", "1"]);
    kill_process(keeper(&home), Signal::KILL).expect("it is there");
    home.no_process_is_left();
    // Who wants a VM boots one, and what is left is no hindrance.
    let (code, _, stderr) = run(&home, &[], "exit 3");
    assert!(code == Some(3) && !stderr.contains("of the pool"), "{stderr}");
    let (code, table, stderr) = home.output(&["pool", "status"]);
    assert_eq!((code, &*table, &*stderr), (Some(0), "", "no pools\n"));
    assert_eq!(home.output(&["pool", "status", "--json"]).1, "[]\n");
    is_clean(&home);
    // A signal ends it as `pool stop` does.
    start(&home, &["--size", "1"]);
    kill_process(keeper(&home), Signal::TERM).expect("it is there");
    is_clean(&home);
}

#[test]
fn what_cannot_start_is_told_and_leaves_nothing() {
    let Some(home) = Home::new() else { return };
    let (code, _, stderr) = home.output(&["pool", "start", "-l", "nothing"]);
    assert!(
        code == Some(1) && stderr.contains("there is no image named"),
        "{stderr}"
    );
    // A Firecracker that is no longer there when the keeper looks.
    let (code, _, stderr) = home.output(&["pool", "start", "-l", "busybox", "--vmm", "firecracker"]);
    assert!(
        code == Some(1) && stderr.contains("cannot start the pool: firecracker is not installed"),
        "{stderr}"
    );
    is_clean(&home);
}

#[test]
fn a_keeper_that_does_not_answer_is_told_and_hides_no_other() {
    let Some(home) = Home::new() else { return };
    // As a keeper that hangs: there, and silent.
    let folder = home.path().join("run");
    fs::create_dir_all(&folder).expect("a folder");
    let silent = std::os::unix::net::UnixListener::bind(folder.join("pool-aaa.sock")).expect("a socket");
    start(&home, &["--size", "1"]);
    let (code, table, stderr) = home.output(&["pool", "status"]);
    assert_eq!(code, Some(0), "{stderr}");
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert!(
        rows.len() == 2 && rows[0].starts_with("aaa ") && rows[0].ends_with("its keeper does not answer"),
        "{table}"
    );
    assert!(rows[1].starts_with("busybox "), "{table}");
    let (code, _, stderr) = home.output(&["pool", "status", "-l", "aaa"]);
    assert!(
        code == Some(1)
            && stderr.contains("does not answer")
            && stderr.contains("hint: see what it said last: cat /")
            && stderr.contains(&format!("kill -9 {}\n", std::process::id())),
        "{stderr}"
    );
    drop(silent);
    fs::remove_file(folder.join("pool-aaa.sock")).expect("it is there");
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}
