//! What a pool is for: its VMs answer at once, are used once, and are those that were asked for.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{is_clean, run, start, status, warm};
use crate::support::vm::{Home, LIMIT, eventually};

#[test]
fn warm_vms_answer_at_once_are_used_once_and_replaced() {
    let Some(home) = Home::new() else { return };
    start(&home, &["--size", "1"]);
    assert_eq!(warm(&home), 1);
    let begun = Instant::now();
    let (code, stdout, stderr) = run(&home, &[], "echo x > /marker; date +%s; exit 5");
    let took = begun.elapsed();
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("a VM of the pool busybox"), "{stderr}");
    let boot = Duration::from_millis(status(&home)["last_start_ms"].as_u64().expect("a number"));
    assert!(took < boot, "{took:?} is not less than the {boot:?} of a boot");
    let clock: u64 = stdout.trim().parse().expect("seconds");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("after 1970")
        .as_secs();
    assert!(now.abs_diff(clock) < 5, "the clock is {clock}, and it is {now}");
    // The next one has nothing of the first.
    eventually(LIMIT, || warm(&home) == 1);
    let (code, _, stderr) = run(&home, &["--pool"], "cat /marker");
    assert_eq!(code, Some(1), "{stderr}");
    eventually(LIMIT, || status(&home)["used"] == 2);
    // None is warm: one is booted, or waited for.
    let (code, _, stderr) = run(&home, &[], "exit 4");
    assert!(
        code == Some(4) && stderr.contains("no VM of the pool busybox: none is warm"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&home, &["--pool"], "exit 6");
    assert!(code == Some(6) && stderr.contains("a VM of the pool"), "{stderr}");
    let (code, _, stderr) = home.output(&["pool", "start", "-l", "busybox"]);
    assert!(code == Some(1) && stderr.contains("already"), "{stderr}");
    let table = home.output(&["pool", "status"]).1;
    assert!(
        table.starts_with("NAME") && table.contains("\nbusybox "),
        "{table}"
    );
    assert_eq!(home.output(&["pool", "stop", "-l", "busybox"]).0, Some(0));
    is_clean(&home);
    let (code, _, stderr) = home.output(&["pool", "stop", "-l", "busybox"]);
    assert!(
        code == Some(1) && stderr.contains("there is no pool \"busybox\""),
        "{stderr}"
    );
    let (code, _, stderr) = run(&home, &["--pool"], "true");
    assert!(
        code == Some(125) && stderr.contains("there is no pool"),
        "{stderr}"
    );
}

#[test]
fn vms_that_differ_are_not_taken_and_an_image_that_is_another_replaces_them() {
    let Some(home) = Home::new() else { return };
    start(&home, &["--size", "1", "--mem", "300"]);
    let (code, _, stderr) = run(&home, &["--pool", "--mem", "400"], "true");
    assert!(
        code == Some(125) && stderr.contains("its VMs have a memory (MiB) of 300, not 400"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&home, &["--pool", "--vmm", "firecracker"], "true");
    assert!(
        code == Some(125) && stderr.contains("its vmm is qemu"),
        "{stderr}"
    );
    fs::write(home.at("root/new"), "new").expect("a file");
    home.make_image();
    let (code, stdout, stderr) = run(&home, &["--pool"], "cat /new");
    assert_eq!((code, &*stdout), (Some(0), "new"), "{stderr}");
    // Who is killed has no use for a VM any more.
    eventually(LIMIT, || warm(&home) == 1);
    let mut child = home
        .firebrick(&[
            "run",
            "-l",
            "busybox",
            "--pool",
            "--",
            "sh",
            "-c",
            "echo up; sleep 200",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("text");
    assert_eq!(
        (line.as_str(), &status(&home)["in_use"]),
        ("up\n", &Value::from(1))
    );
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    eventually(Duration::from_secs(10), || status(&home)["in_use"] == 0);
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}

/// The keeper finds an image that was named by a path from here, and then leaves the folder.
#[test]
fn an_image_may_be_named_by_a_relative_path() {
    let Some(home) = Home::new() else { return };
    let mine = home.at("mine.ext4");
    fs::copy(home.path().join("images/rootfs-busybox.ext4"), &mine).expect("a copy");
    let output = home
        .firebrick(&[
            "pool",
            "start",
            "-l",
            "./mine.ext4",
            "--size",
            "1",
            "--no-wait",
            "--json",
        ])
        .current_dir(mine.parent().expect("a folder"))
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let folder = fs::read_link(format!("/proc/{}/cwd", status["pid"])).expect("it is there");
    assert_eq!(folder, std::path::Path::new("/"));
    assert_eq!(home.output(&["pool", "stop", "-l", "mine.ext4"]).0, Some(0));
    is_clean(&home);
}

#[test]
fn an_image_of_another_format_ends_its_pool_with_the_reason() {
    let Some(home) = Home::new() else { return };
    start(&home, &["--size", "1"]);
    let reference = format!("dir:{}", home.at("root").display());
    let args = [
        "rootfs",
        "from-docker",
        "-q",
        "-n",
        "busybox",
        "--format",
        "squashfs",
        "-i",
        &reference,
    ];
    assert_eq!(home.output(&args).0, Some(0));
    home.no_process_is_left();
    let log = fs::read_to_string(home.path().join("run/pool-busybox.log")).expect("a log");
    assert!(
        log.contains("the image is squashfs now, not ext4 any more: the pool must be started again"),
        "{log}"
    );
    // What is said is the new one's.
    start(&home, &["--size", "1"]);
    let log = fs::read_to_string(home.path().join("run/pool-busybox.log")).expect("a log");
    assert!(!log.contains("any more"), "{log}");
    let (code, _, stderr) = run(&home, &["--pool"], "exit 7");
    assert_eq!(code, Some(7), "{stderr}");
    assert_eq!(home.output(&["pool", "stop", "--all"]).0, Some(0));
    is_clean(&home);
}
