//! What the flags of `setup` ask for together, and what `--check` says of it.

use std::fs;

use firebrick_vmm::release::Release;
use serde_json::Value;

use super::{digest, elf, kernel, setup};
use crate::support::Home;

/// A home with kernels, programs and a package, none of which is set up.
fn home() -> Home {
    let home = Home::new();
    let file = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).expect("a file");
    let mut other = kernel();
    other[199_999] = 1;
    file("mine", &kernel());
    file("other", &other);
    file("package.deb", b"some package");
    file("fire", &elf());
    file("fire2", &[&elf()[..], b"x"].concat());
    home
}

/// What `--check` says of the kernel and of Firecracker, and all of it.
fn verdict(home: &Home, args: &[&str]) -> (Option<bool>, Option<bool>, Value) {
    let (text, code) = setup(home, &[&["--check", "--json"], args].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["complete"], code == 0, "{report}");
    let of = |name: &str| {
        let mut things = report["things"].as_array().expect("things").iter();
        let thing = things.find(|thing| thing["name"] == name)?;
        assert!(!thing["found"].as_str().expect("text").is_empty(), "{thing}");
        thing["ok"].as_bool()
    };
    // There is no QEMU, but that is no loss where there is Firecracker.
    let enough = of("kernel") == Some(true) && of("Firecracker") == Some(true) && of("QEMU").is_none();
    assert_eq!(enough, code == 0, "{report}");
    (of("kernel"), of("Firecracker"), report)
}

/// What the flags name is what must be there, not just anything.
#[test]
fn a_check_is_about_the_kernel_that_is_named() {
    let home = home();
    let mine = digest(&kernel());
    assert_eq!(verdict(&home, &[]).0, Some(false));
    setup(&home, &["--kernel", "mine"]);
    for (args, expected) in [
        (&["--kernel", "mine"][..], true),
        (&["--kernel", "other"], false),
        (&["--kernel", "nothing"], false),
        (&["--kernel", "."], false),
        (&["--deb", "package.deb"], false),
        (&["--url", "http://x/y", "--digest", &mine], true),
        (&["--url", "http://x/y", "--digest", &digest(b"other")], false),
        (&["--kernel-version", "5.10"], true),
        (&["--kernel-version", "6.1"], false),
        (&["--platform", "linux/arm64"], cfg!(target_arch = "aarch64")),
    ] {
        let (ok, firecracker, report) = verdict(&home, args);
        assert_eq!((ok, firecracker), (Some(expected), None), "{args:?}: {report}");
    }
}

#[test]
fn a_check_is_about_the_firecracker_that_is_named() {
    let home = home();
    setup(&home, &["--kernel", "mine"]);
    // Programs in files are told apart by their bytes.
    let (home, state) = (&home, home.path().join("fb"));
    Release::install_program(&state, &home.path().join("fire"), "1.99.0").expect("it is one");
    for (args, expected) in [
        (&[][..], true),
        (&["--firecracker", "fire"], true),
        (&["--firecracker", "fire2"], false),
        (&["--firecracker", "nothing"], false),
        (&["--firecracker-version", "1.99.0"], true),
        (&["--firecracker-version", "1.98.0"], false),
        (
            &[
                "--firecracker-version",
                "1.99.0",
                "--firecracker-digest",
                &digest(&elf()),
            ],
            true,
        ),
        (
            &[
                "--firecracker-version",
                "1.99.0",
                "--firecracker-digest",
                &digest(b"x"),
            ],
            false,
        ),
    ] {
        let (_, ok, report) = verdict(home, args);
        assert_eq!(ok, Some(expected), "{args:?}: {report}");
    }
}

/// What would have no effect is no usage.
#[test]
fn flags_that_do_not_go_together_are_refused() {
    let home = Home::new();
    let digest = digest(b"x");
    for args in [
        &["--kernel", "x", "--deb", "y"][..],
        &["--kernel", "x", "--kernel-version", "6.1"],
        &["--kernel", "x", "--url", "http://x", "--digest", &digest],
        &["--kernel", "x", "--platform", "linux/arm64"],
        &["--deb", "x", "--kernel-version", "6.1"],
        &["--deb", "x", "--platform", "linux/arm64"],
        &[
            "--url",
            "http://x",
            "--digest",
            &digest,
            "--platform",
            "linux/arm64",
        ],
        &[
            "--url",
            "http://x",
            "--digest",
            &digest,
            "--kernel-version",
            "6.1",
        ],
        &["--url", "http://x"],
        &["--digest", &digest],
        &["--digest", &digest, "--kernel", "x"],
        &["--digest", &digest, "--kernel-version", "6.1"],
        &["--firecracker-digest", &digest],
        &["--firecracker", "x", "--firecracker-version", "1.15.1"],
        &["--firecracker", "x", "--firecracker-digest", &digest],
        &["--mirror", "http://x"],
        &["--mirror", "http://x", "--kernel", "x"],
        &["--mirror", "http://x", "--kernel-version", "6.1", "--check"],
        &["--check", "--dry-run"],
        &["--check", "--force"],
        &["--json"],
        &["--json", "--dry-run"],
    ] {
        let (text, code) = setup(&home, args);
        assert!(code == 2 && text.starts_with("error: "), "{args:?}: {text}");
    }
}

#[test]
fn flags_that_go_together_are_taken() {
    let home = Home::new();
    let digest = digest(b"x");
    for args in [
        &[
            "--kernel-version",
            "6.1",
            "--firecracker-version",
            "1.15.1",
            "--mirror",
            "http://x",
        ][..],
        &["--kernel-version", "6.1", "--platform", "linux/arm64"],
        &[
            "--force",
            "--firecracker-version",
            "1.99.0",
            "--firecracker-digest",
            &digest,
        ],
    ] {
        let (text, code) = setup(&home, &[&["--dry-run"], args].concat());
        assert_eq!(code, 0, "{args:?}: {text}");
        assert_eq!(
            args.contains(&"--platform"),
            text.contains("6.1 for linux/arm64"),
            "{text}"
        );
    }
}

#[test]
fn a_dry_run_fails_as_the_run_would_where_a_file_is_not_there() {
    let home = Home::new();
    for flag in ["--kernel", "--deb", "--firecracker"] {
        for (path, reason) in [("nothing", "No such file"), (".", "is no file")] {
            let text = home.transcript(&["setup", "--dry-run", flag, path]);
            assert!(text.contains(reason) && text.ends_with("exit code 1\n"), "{text}");
        }
    }
    // A program is the file, not one of that name in PATH.
    let text = home.transcript(&["setup", "--dry-run", "--firecracker", "sh"]);
    assert!(text.contains("cannot read sh"), "{text}");
}
