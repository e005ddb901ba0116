//! What every command says of itself, kept in `tests/snapshots/`. Renew with `UPDATE_EXPECT=1 cargo test -p firebrick`.

use assert_cmd::Command;
use expect_test::expect_file;

fn firebrick(args: &[&str]) -> String {
    let output = Command::cargo_bin("firebrick")
        .expect("cargo built the binary")
        .args(args)
        .env_clear()
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stderr.is_empty(), "help is data and goes to stdout");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The names below `Commands:` in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn commands() -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut at = 0;
    while let Some(command) = commands.get(at).cloned() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("-h");
        for name in subcommands(&firebrick(&args)) {
            commands.push(command.iter().cloned().chain([name]).collect());
        }
        at += 1;
    }
    commands
}

#[test]
fn help_of_every_command() {
    let mut text = String::new();
    for command in commands() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("--help");
        text.push_str(&format!("$ firebrick {}\n{}\n", args.join(" "), firebrick(&args)));
    }
    expect_file!["snapshots/help.txt"].assert_eq(&text);
}

/// Short help must fit one screen.
#[test]
fn short_help_fits_a_screen() {
    for command in commands() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("-h");
        let lines = firebrick(&args).lines().count();
        assert!(lines <= 50, "firebrick {} has {lines} lines", args.join(" "));
    }
}

/// `docs/cli.md` speaks of every command and every long flag.
#[test]
fn docs_name_every_command_and_flag() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let docs = std::fs::read_to_string(docs).expect("docs/cli.md exists");
    for command in commands() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        let words = args.join(" ");
        assert!(
            docs.contains(&format!("firebrick {words}")),
            "docs/cli.md lacks `firebrick {words}`"
        );
        args.push("--help");
        let help = firebrick(&args);
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in flags {
            let flag = flag.trim_end_matches(|end: char| !end.is_ascii_alphanumeric());
            assert!(
                docs.contains(flag),
                "docs/cli.md lacks {flag} of `firebrick {words}`"
            );
        }
    }
}

#[test]
fn man_pages_and_completions_know_every_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("man");
    Command::cargo_bin("firebrick")
        .expect("cargo built the binary")
        .arg("man")
        .arg(&path)
        .assert()
        .success();
    for command in commands() {
        let page = ["firebrick".to_owned()]
            .into_iter()
            .chain(command)
            .collect::<Vec<_>>()
            .join("-");
        assert!(path.join(format!("{page}.1")).is_file(), "{page}.1");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = firebrick(&["completions", shell]);
        assert!(script.contains("from-docker"), "{shell}");
    }
}
