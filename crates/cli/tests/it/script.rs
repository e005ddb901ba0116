//! `from-docker --script` with the command itself: what the image holds then, what is run again and what not, what a failure says
//! and leaves. What a script may do and what not is tested in `crates/sandbox`.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use firebrick_testkit::fixtures;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::Home;
use crate::support::folder::names_in;

/// A home with the script `s`, and Alpine as an image reference; `None` where the fixtures are not.
fn with_script(script: &str) -> Option<(Home, String)> {
    let alpine = fixtures::fixture(fixtures::ALPINE[1])?;
    let home = Home::new();
    fs::write(home.path().join("s"), script).expect("a script");
    Some((home, format!("tar:{}", alpine.display())))
}

fn args<'a>(image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["rootfs", "from-docker", "-n", "app", "-i", image, "--script", "s"];
    [&base, more].concat()
}

/// Exit code, stdout and stderr.
fn say(home: &Home, args: &[&str]) -> (i32, String, String) {
    let output = home.firebrick(args).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn image(home: &Home) -> Vec<u8> {
    fs::read(home.path().join("fb/images/rootfs-app.ext4")).expect("the image")
}

fn cat(home: &Home, path: &str) -> String {
    let (code, stdout, stderr) = say(home, &["rootfs", "cat", "app", path]);
    assert_eq!(code, 0, "{stderr}");
    stdout
}

/// Nothing of a sandbox is left, and no process that was in one.
fn nothing_is_left(home: &Home) {
    let sandbox = home.path().join("fb/cache/sandbox");
    assert!(names_in(&sandbox).is_empty(), "{sandbox:?}");
}

#[test]
fn a_script_runs_once_and_the_image_is_the_same_to_the_byte() {
    let script = "echo \"$SOURCE_DATE_EPOCH $HOME\" > /etc/made; rm /etc/issue; chown 7:8 /srv; echo said\n";
    let Some((home, alpine)) = with_script(script) else {
        return;
    };
    let (code, stdout, stderr) = say(&home, &args(&alpine, &[]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.ends_with("rootfs-app.ext4\n"), "{stdout}");
    assert!(
        stderr.contains("[2/7] Running s\n") && stderr.contains("the script s: done in"),
        "{stderr}"
    );
    assert!(!stderr.contains("said"), "{stderr}");
    assert_eq!(cat(&home, "/etc/made"), "0 /root\n");
    assert_ne!(say(&home, &["rootfs", "cat", "app", "/etc/issue"]).0, 0);
    let first = image(&home);
    nothing_is_left(&home);

    let (_, _, stderr) = say(&home, &args(&alpine, &["-v"]));
    assert!(stderr.contains("the script s: cached"), "{stderr}");
    assert!(image(&home) == first);
    // Run again, it gives the same bytes, and nothing stays.
    let (_, _, stderr) = say(&home, &args(&alpine, &["--no-cache", "-v"]));
    assert!(
        stderr.contains("done in") && stderr.contains("| said\n"),
        "{stderr}"
    );
    assert!(image(&home) == first);
    nothing_is_left(&home);
}

#[test]
fn the_cache_shows_and_deletes_what_scripts_made() {
    let Some((home, alpine)) = with_script("echo > /new\n") else {
        return;
    };
    assert_eq!(say(&home, &args(&alpine, &["--no-cache"])).0, 0);
    assert!(say(&home, &["cache", "list"]).2.contains("is empty"));
    assert_eq!(say(&home, &args(&alpine, &[])).0, 0);
    assert!(say(&home, &["cache", "list"]).1.contains("of a script"));
    assert!(
        say(&home, &["cache", "list", "--json"])
            .1
            .contains("\"script\": true")
    );
    assert!(say(&home, &["cache", "prune"]).2.contains("deleted 1 file"));
    assert!(say(&home, &["cache", "list"]).2.contains("is empty"));
    let (_, _, stderr) = say(&home, &args(&alpine, &[]));
    assert!(stderr.contains("done in"), "{stderr}");
}

#[test]
fn a_script_that_fails_shows_its_last_lines_and_keeps_nothing() {
    let Some((home, alpine)) = with_script("touch /new; seq 100; printf 'no\\033[2Jway\\n' >&2; exit 7\n")
    else {
        return;
    };
    let (code, stdout, stderr) = say(&home, &args(&alpine, &[]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("      | 100\n      | no?[2Jway\n") && !stderr.contains("| 80\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("error: the script s ended with exit code 7\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: see everything that it prints: -v\n"),
        "{stderr}"
    );
    assert!(names_in(&home.path().join("fb/images")).is_empty());
    nothing_is_left(&home);
    assert!(!home.path().join("fb/cache/steps").exists());
}

#[test]
fn failures_say_what_helps() {
    for (script, flags, error, hint) in [
        (
            "sleep 100\n",
            &["--step-timeout", "1"][..],
            "ran longer than 1 seconds",
            "--step-timeout",
        ),
        (
            "#!/bin/perl6\n",
            &[],
            "the script's interpreter \"/bin/perl6\": No such file",
            "firebrick rootfs ls",
        ),
        ("wget http://example.invalid/\n", &[], "exit code 1", "--network"),
    ] {
        let Some((home, alpine)) = with_script(script) else {
            return;
        };
        let (code, _, stderr) = say(&home, &args(&alpine, flags));
        assert_eq!(code, 1, "{stderr}");
        let said = |start: &str, text: &str| {
            stderr
                .lines()
                .any(|line| line.starts_with(start) && line.contains(text))
        };
        assert!(said("error:", error) && said("hint:", hint), "{stderr}");
        nothing_is_left(&home);
    }
    let Some((home, alpine)) = with_script("") else {
        return;
    };
    fs::remove_file(home.path().join("s")).expect("the script is there");
    let (code, _, stderr) = say(&home, &args(&alpine, &[]));
    assert!(
        code == 1 && stderr.contains("cannot read the script \"s\""),
        "{stderr}"
    );
    let said = home.transcript(&["rootfs", "from-docker", "-n", "a", "-i", "oci:x", "--network"]);
    assert!(
        said.contains("--script FILE") && said.ends_with("exit code 1\n"),
        "{said}"
    );
}

#[test]
fn an_interrupted_or_killed_firebrick_leaves_nothing() {
    for signal in [Signal::INT, Signal::KILL] {
        let Some((home, alpine)) = with_script("echo begun; sleep 7654\n") else {
            return;
        };
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("firebrick"));
        command
            .args(args(&alpine, &["-v"]))
            .current_dir(home.path())
            .env("FIREBRICK_HOME", home.path().join("fb"));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("| begun") {
            line.clear();
            let len = std::io::BufRead::read_line(&mut stderr, &mut line).expect("text");
            assert!(len > 0, "it ended");
        }
        let id = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process number");
        kill_process(id, signal).expect("it runs");
        assert!(!child.wait().expect("it ends").success());
        let started = Instant::now();
        let sandbox = home.path().join("fb/cache/sandbox");
        while left(&sandbox) && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!left(&sandbox), "{signal:?}");
    }
}

/// Whether files or processes are. Root's keeper cannot remove the empty folder that it lived in; the next one does.
fn left(sandbox: &Path) -> bool {
    let files = names_in(sandbox)
        .iter()
        .any(|name| !names_in(&sandbox.join(name)).is_empty());
    let processes = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|command| command == b"sleep\x007654\0")
        });
    files || processes
}
