//! The same tests as other callers.

use std::process::Command;

use firebrick_testkit::oracle::leave_out;

use crate::support;

/// Runs every test of `inside` in a process that `wrap` makes another caller of.
fn again(wrap: &[&str], single: bool) {
    let Some(alpine) = support::alpine() else { return };
    // Another user may not be able to look into the folders that these are in.
    let shared = tempfile::tempdir().unwrap();
    let (tests, keeper, fixture) = (
        shared.path().join("tests"),
        shared.path().join("keeper"),
        shared.path().join("alpine"),
    );
    std::fs::create_dir(&fixture).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    std::fs::copy(support::KEEPER, &keeper).unwrap();
    std::fs::copy(&alpine, fixture.join(alpine.file_name().unwrap())).unwrap();
    let chmod = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(shared.path())
        .status()
        .unwrap();
    assert!(chmod.success());
    // The fork bomb by itself: where nothing limits its user, the others would find no place for theirs.
    for words in [
        ["--test-threads=2", "--skip=bomb", "inside::"],
        [
            "--exact",
            "inside::hostile::a_fork_bomb_is_bounded",
            "--nocapture",
        ],
    ] {
        let mut command = Command::new(wrap[0]);
        command.args(&wrap[1..]).arg(&tests).args(words).current_dir("/");
        command
            .env("FIREBRICK_FIXTURES", shared.path())
            .env("SANDBOX_KEEPER", &keeper);
        if single {
            command.env("SANDBOX_SINGLE", "1");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{wrap:?}\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            said.contains("test result: ok") && !said.contains(" 0 passed"),
            "{said}"
        );
    }
}

/// A user of this machine who has ranges in `/etc/subuid` and `/etc/subgid`.
fn user_with_ranges() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid, passwd) = (read("/etc/subuid"), read("/etc/subgid"), read("/etc/passwd"));
    subuid
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, _)| {
            let has_gid = subgid.lines().any(|line| line.starts_with(&format!("{name}:")));
            let line = passwd
                .lines()
                .find(|line| line.starts_with(&format!("{name}:")))?;
            has_gid.then(|| line.split(':').nth(2).map(str::to_owned))?
        })
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        leave_out("other callers than this user (only root can become others)");
    }
    root
}

#[test]
fn a_user_with_ranges_of_ids() {
    if !is_root() {
        return;
    }
    let Some(uid) = user_with_ranges() else {
        leave_out("a user with ranges of ids (none has any in /etc/subuid and /etc/subgid)");
        return;
    };
    again(
        &[
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "--",
        ],
        false,
    );
}

#[test]
fn a_user_without() {
    if is_root() {
        again(
            &[
                "setpriv",
                "--reuid",
                "54321",
                "--regid",
                "54321",
                "--clear-groups",
                "--",
            ],
            false,
        );
    }
}

#[test]
fn root_with_one_id() {
    again(&["env"], true);
}

#[test]
fn root_of_unshare() {
    again(&["unshare", "-r", "--"], false);
}
