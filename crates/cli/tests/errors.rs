//! What firebrick says when something is wrong, in an empty home. Renew with `UPDATE_EXPECT=1`.

mod support;

use expect_test::{Expect, expect};
use support::Home;

fn check(args: &[&str], expected: Expect) {
    expected.assert_eq(&Home::new().transcript(args));
}

#[test]
fn no_command_shows_help_and_is_bad_usage() {
    let home = Home::new();
    let text = home.transcript(&[]);
    assert!(
        text.contains("Usage: firebrick") && text.ends_with("exit code 2\n"),
        "{text}"
    );
}

#[test]
fn list_of_nothing() {
    check(&["rootfs", "list"], expect![[""]]);
    check(&["rootfs", "list", "--json"], expect![[""]]);
    check(&["cache", "list"], expect![[""]]);
}

#[test]
fn rm_of_what_is_not_there() {
    check(&["rootfs", "rm", "python"], expect![[""]]);
    check(&["rootfs", "rm", "../etc"], expect![[""]]);
}

#[test]
fn names_that_are_no_images() {
    check(&["rootfs", "inspect", "python"], expect![[""]]);
    check(&["rootfs", "cat", "./nope.ext4", "/etc/passwd"], expect![[""]]);
    check(&["run", "-l", "alpine", "--", "true"], expect![[""]]);
    check(&["run", "-l", "alpine", "-c", "true"], expect![[""]]);
}

#[test]
fn references_that_lead_nowhere() {
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "oci:missing"],
        expect![[""]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "tar:missing.tar"],
        expect![[""]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "docker-daemon:alpine:3"],
        expect![[""]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "UPPER CASE"],
        expect![[""]],
    );
    check(
        &["rootfs", "from-docker", "-n", "a/b", "-i", "alpine"],
        expect![[""]],
    );
}

#[test]
fn usage_errors() {
    check(&["rootfs", "from-docker"], expect![[""]]);
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "alpine", "-s", "big"],
        expect![[""]],
    );
    check(&["run", "-c", "1", "-f", "x.py"], expect![[""]]);
}

#[test]
fn a_home_is_needed() {
    let home = Home::new();
    let mut command = home.firebrick(&["rootfs", "list"]);
    command.env_remove("HOME").env_remove("FIREBRICK_HOME");
    let output = command.output().expect("the binary starts");
    // Root has a fixed place.
    if !rustix::process::geteuid().is_root() {
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("FIREBRICK_HOME"));
    }
}
