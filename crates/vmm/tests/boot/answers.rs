//! What the agent answers in Alpine, busybox and Debian.

use firebrick_protocol::agent::{Exec, ExecCode, JobOptions, Shutdown, ShutdownMode};
use firebrick_vmm::client::{Client, Command, Ended};
use serde_json::json;

use crate::host::{ANSWER_LIMIT, env, exec, host, output, stream, texts};
use crate::images::{self, layer};

fn code(client: &mut Client, lang: &str, code: &str) -> (i32, String, String) {
    let call = ExecCode {
        lang: lang.to_owned(),
        code: code.to_owned(),
        options: JobOptions::default(),
    };
    texts(client.exec_code(call, ANSWER_LIMIT).expect("an answer"))
}

fn argv(words: &[&str], options: JobOptions) -> Exec {
    Exec {
        argv: Some(words.iter().map(|&word| word.to_owned()).collect()),
        options,
        ..Exec::default()
    }
}

/// Every byte, many times, in no simple order.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn alpine_answers() {
    let config = json!({
        "Env": ["PATH=/opt/own:/usr/bin:/bin", "GREETING=good day"],
        "User": "app",
        "WorkingDir": "/srv/app",
        "Entrypoint": ["/opt/own/entry", "first"],
        "Cmd": ["second word"],
    });
    let own = layer(
        "f 0644 /etc/passwd \"root:x:0:0::/root:/bin/sh\\napp:x:1234:1235::/home/app:/bin/sh\\n\"
         f 0644 /etc/group \"root:x:0:\\napp:x:1235:\\nextra:x:77:app\\n\"
         d 0755 /srv/app uid=1234 gid=1235
         f 0755 /opt/own/entry \"#!/bin/sh\\necho $0 $# \\\"$@\\\" $(id -u):$(id -g) $(pwd) $GREETING $HOME\\n\"",
    );
    let Some(image) = images::alpine(config, &[own]) else {
        return;
    };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    let client = &mut booted.client;
    client.ping(ANSWER_LIMIT).expect("a second ping");

    let status = client.status(ANSWER_LIMIT).expect("a status");
    assert!(status.pid1);
    assert_eq!(status.warnings, [""; 0]);
    let times: Vec<u64> = status.boot.iter().map(|stamp| stamp.boottime_us).collect();
    assert!(times.is_sorted() && times.len() >= 7, "{:?}", status.boot);

    it_runs_programs(client);
    it_uses_the_images_config(client);
    bytes_stay_as_they_are(client);
    the_machine_is_set_up(client);

    // A job that waits for another's doing: it holds up nobody, on this connection or elsewhere.
    let mut other = booted.connect(ANSWER_LIMIT).expect("a second connection");
    let wait = "until test -e /tmp/go; do sleep 0.1; done; echo gone";
    let waiting = std::thread::spawn(move || exec(&mut other, wait, JobOptions::default()));
    output(&mut booted.client, "touch /tmp/go");
    assert_eq!(waiting.join().expect("it ends").1, "gone\n");

    let shutdown = Shutdown {
        mode: Some(ShutdownMode::Poweroff),
        grace_ms: Some(100),
    };
    booted.client.shutdown(shutdown, ANSWER_LIMIT).expect("an answer");
    let exit = booted.machine().wait(ANSWER_LIMIT).expect("it is waited for");
    assert!(exit.is_some(), "the machine has not ended");
}

fn it_runs_programs(client: &mut Client) {
    let none = JobOptions::default;
    assert_eq!(
        exec(client, "echo out; echo err >&2; exit 3", none()),
        (3, "out\n".into(), "err\n".into())
    );
    assert_eq!(exec(client, "kill -9 $$", none()).0, 137);
    assert_eq!(
        code(client, "sh", "echo $((6 * 7)); exit 4"),
        (4, "42\n".into(), "".into())
    );
    let (missing, _, reason) = code(client, "python", "1");
    assert_eq!(missing, -1, "Alpine has no Python");
    assert!(reason.contains("python3"), "{reason}");
}

fn it_uses_the_images_config(client: &mut Client) {
    // The image's ENV always; its USER, WORKDIR, ENTRYPOINT and CMD where they are asked for.
    assert_eq!(
        output(client, "echo $GREETING $PATH $(id -u) $(pwd)"),
        "good day /opt/own:/usr/bin:/bin 0 /\n"
    );
    let options = JobOptions {
        env: env(&[("GREETING", "bye"), ("MORE", "a=b c")]),
        user: Some("1:2".to_owned()),
        cwd: Some("/etc".to_owned()),
        ..JobOptions::default()
    };
    assert_eq!(
        exec(client, "echo $GREETING $MORE $(id -u):$(id -g) $(pwd)", options),
        (0, "bye a=b c 1:2 /etc\n".into(), "".into())
    );
    let defaults = JobOptions {
        image_defaults: true,
        ..JobOptions::default()
    };
    let entry = Exec {
        options: defaults.clone(),
        ..Exec::default()
    };
    assert_eq!(
        texts(client.exec(entry, ANSWER_LIMIT).expect("an answer")),
        (
            0,
            "/opt/own/entry 2 first second word 1234:1235 /srv/app good day /home/app\n".into(),
            "".into()
        )
    );
    let groups = argv(&["id", "-G"], defaults);
    assert_eq!(
        texts(client.exec(groups, ANSWER_LIMIT).expect("an answer")).1,
        "1235 77\n"
    );
}

fn bytes_stay_as_they_are(client: &mut Client) {
    let sent = bytes(3 << 20);
    let tee = argv(&["sh", "-c", "tee /dev/stderr"], JobOptions::default());
    let (ended, stdout, stderr) = stream(client, Command::Exec(tee), &sent);
    assert!(matches!(ended, Ended::Result(result) if result.exit_code == 0));
    assert!(
        stdout == sent,
        "{} bytes of {} came back",
        stdout.len(),
        sent.len()
    );
    assert!(
        stderr == sent,
        "{} bytes of {} came back",
        stderr.len(),
        sent.len()
    );
    // What is no text comes back as text where the result is JSON alone.
    assert_eq!(output(client, "printf 'a\\377b'"), "a\u{fffd}b");
    let long = output(client, "head -c 1048577 /dev/zero | tr '\\0' x");
    assert!(long.ends_with("x\n... [output truncated]") && long.len() < 1_048_700);
}

fn the_machine_is_set_up(client: &mut Client) {
    let mounts = output(client, "cut -d' ' -f2,3 /proc/mounts");
    for mount in [
        "/ overlay",
        "/rom ext4",
        "/proc proc",
        "/sys sysfs",
        "/dev devtmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/run tmpfs",
        "/tmp tmpfs",
        "/sys/fs/cgroup cgroup2",
    ] {
        assert!(
            mounts.lines().any(|line| line == mount),
            "no {mount} in\n{mounts}"
        );
    }
    assert_eq!(
        output(client, "hostname; cat /sys/class/net/lo/flags"),
        "firebrick\n0x9\n"
    );
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock")
        .as_secs();
    let guests: u64 = output(client, "date +%s").trim().parse().expect("a number");
    assert!(
        guests.abs_diff(now) < 120,
        "the guest's clock is at {guests}, ours at {now}"
    );
    // Orphans are init's to reap, and none stays.
    output(client, "(sleep 0.2 &) >/dev/null 2>&1");
    output(client, "sleep 1");
    assert_eq!(
        output(
            client,
            "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || echo none"
        ),
        "none\n"
    );
    // Writes go to memory: what lies below stays as it is.
    output(client, "echo x > /etc/new && rm /etc/os-release");
    assert_eq!(
        output(
            client,
            "ls /rom/etc/new /etc/os-release 2>/dev/null; ls /rom/etc/os-release; true"
        ),
        "/rom/etc/os-release\n"
    );
    assert_eq!(
        exec(client, "echo x > /rom/x", JobOptions::default()).0,
        1,
        "the image is read-only"
    );
}

#[test]
fn busybox_answers() {
    let Some(image) = images::busybox() else { return };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    let client = &mut booted.client;
    let status = client.status(ANSWER_LIMIT).expect("a status");
    assert_eq!(status.warnings, [""; 0]);
    assert_eq!(
        exec(client, "echo out; echo err >&2; exit 3", JobOptions::default()),
        (3, "out\n".into(), "err\n".into())
    );
    // CMD is `sh`: the image's own command, fed through its standard input.
    let own = Exec {
        options: JobOptions {
            image_defaults: true,
            ..JobOptions::default()
        },
        ..Exec::default()
    };
    let (ended, stdout, stderr) = stream(client, Command::Exec(own), b"echo $PATH; echo $0 >&2; exit 9\n");
    assert!(matches!(ended, Ended::Result(result) if result.exit_code == 9));
    let (path, name) = (
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
        "sh\n",
    );
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (path.as_bytes(), name.as_bytes())
    );
    bytes_stay_as_they_are(client);
    the_machine_is_set_up_without_os_release(client);
}

fn the_machine_is_set_up_without_os_release(client: &mut Client) {
    let mounts = output(client, "cut -d' ' -f2,3 /proc/mounts");
    for mount in ["/ overlay", "/rom ext4", "/proc proc", "/tmp tmpfs"] {
        assert!(
            mounts.lines().any(|line| line == mount),
            "no {mount} in\n{mounts}"
        );
    }
}

#[test]
fn debian_answers() {
    let config = json!({ "Env": ["GREETING=hello"], "Cmd": ["python3"] });
    let Some(image) = images::debian(config, &[]) else {
        return;
    };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    let client = &mut booted.client;
    let status = client.status(ANSWER_LIMIT).expect("a status");
    assert!(status.pid1, "the image has systemd, which is not asked for");
    assert_eq!(status.warnings, [""; 0]);
    assert!(output(client, ". /etc/os-release; echo $ID $VERSION_ID").starts_with("debian 12"));
    let greeting = "import os, sys; print(os.environ['GREETING']); print('no', file=sys.stderr); sys.exit(5)";
    assert_eq!(
        code(client, "python", greeting),
        (5, "hello\n".into(), "no\n".into())
    );
    let (status, stdout, _) = code(
        client,
        "bash",
        "set -o pipefail; false | true; echo $? ${BASH_VERSION%%.*}",
    );
    assert_eq!((status, stdout.as_str()), (0, "1 5\n"));
    let sent = bytes(300_000);
    let upside_down = ExecCode {
        lang: "python3".to_owned(),
        code: "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1]); sys.stderr.buffer.write(bytes(range(256)))"
            .to_owned(),
        options: JobOptions::default(),
    };
    let (ended, stdout, stderr) = stream(client, Command::Code(upside_down), &sent);
    assert!(matches!(ended, Ended::Result(result) if result.exit_code == 0));
    assert!(stdout.iter().rev().eq(&sent), "the bytes came back changed");
    assert_eq!(stderr, (0..=255).collect::<Vec<u8>>());
    assert_eq!(
        output(
            client,
            "python3 -c 'import time; print(int(time.time()) > 1700000000)'"
        ),
        "True\n"
    );
}
