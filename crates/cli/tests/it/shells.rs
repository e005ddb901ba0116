//! Completions and man pages, read by the programs that they are for.

use std::path::Path;
use std::process::Command;

use firebrick_testkit::oracle;

fn firebrick(args: &[&str]) -> Vec<u8> {
    let output = assert_cmd::Command::cargo_bin("firebrick")
        .expect("cargo built the binary")
        .args(args)
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{args:?}");
    output.stdout
}

/// A shell's completion script in a folder; `None` where the person who runs the tests does without that shell.
fn script(shell: &str, folder: &Path) -> Option<String> {
    if !oracle::have(shell).expect("what the tests need") {
        return None;
    }
    let path = folder.join(format!("firebrick.{shell}"));
    std::fs::write(&path, firebrick(&["completions", shell])).expect("a file");
    Some(path.to_str().expect("text").to_owned())
}

/// What a program prints, which must succeed in silence.
#[track_caller]
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .expect("it is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{program} {args:?}: {stderr}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn shells_parse_their_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        if let Some(script) = script(shell, folder.path()) {
            said(shell, &["-n", &script]);
        }
    }
}

#[test]
fn bash_and_fish_complete_a_command() {
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(script) = script("bash", folder.path()) {
        let ask = format!(
            "source '{script}'; COMP_WORDS=(firebrick rootfs fr); COMP_CWORD=2; \
             _firebrick firebrick fr rootfs; echo \"${{COMPREPLY[@]}}\""
        );
        assert_eq!(said("bash", &["--norc", "-c", &ask]), "from-docker\n");
    }
    if let Some(script) = script("fish", folder.path()) {
        let ask = format!("source '{script}'; complete -C 'firebrick rootfs fr'");
        let home = folder.path().to_str().expect("text");
        let answer = said(
            "env",
            &[&format!("HOME={home}"), "fish", "--no-config", "-c", &ask],
        );
        assert!(answer.starts_with("from-docker\t"), "{answer}");
    }
}

#[test]
fn man_pages_are_set_without_a_warning() {
    if !oracle::have("groff").expect("what the tests need") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    firebrick(&["-q", "man", folder.path().to_str().expect("text")]);
    let mut pages = 0;
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let page = said(
            "groff",
            &["-Kutf8", "-man", "-ww", "-Tutf8", path.to_str().expect("text")],
        );
        assert!(
            page.contains("SYNOPSIS") || page.contains("S\u{8}SY\u{8}Y"),
            "{page}"
        );
        pages += 1;
    }
    assert!(pages > 10, "{pages} pages");
}
