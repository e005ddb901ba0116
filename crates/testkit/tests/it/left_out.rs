//! What tests leave out is seen: it is written down, and in CI it is a failure.

use std::process::{Command, Output};

use firebrick_testkit::fixtures::fixture;

#[test]
#[ignore = "the test below runs it in a process of its own"]
fn wants_an_image() {
    let _ = fixture("some/image");
}

/// That test with these variables, and what it has written down.
fn run(ci: &str, fixtures: &str) -> (Output, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let noted = dir.path().join("left-out");
    let output = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", "left_out::wants_an_image", "--ignored", "--nocapture"])
        .env("CI", ci)
        .env("FIREBRICK_FIXTURES", fixtures)
        .env("FIREBRICK_LEFT_OUT", &noted)
        .output()
        .expect("it starts");
    (output, std::fs::read_to_string(&noted).unwrap_or_default())
}

#[test]
fn an_absent_image_is_noted_and_in_ci_a_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().to_str().expect("text");
    let noted = |why: &str| format!("some/image ({why})\tit::left_out::wants_an_image\n");
    let absent = format!("there is no {folder}/some/image");

    let (output, said) = run("", folder);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, noted(&absent));
    let (output, said) = run("true", folder);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(&absent), "{stderr}");
    assert_eq!(said, "");
    let (output, said) = run("true", "none");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, noted("FIREBRICK_FIXTURES=none"));

    std::fs::create_dir(dir.path().join("some")).expect("a folder");
    std::fs::write(dir.path().join("some/image"), "").expect("a file");
    let (output, said) = run("true", folder);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "");
}
