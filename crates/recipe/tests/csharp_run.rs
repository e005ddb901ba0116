//! `csharp-run` of the recipe `dotnet`, with an SDK whose compiler joins the sources and whose runtime is a shell: so a "C#
//! program" here is a shell script.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use firebrick_recipe::{Checks, CopySource, StepKind, shipped};

/// `dotnet exec`: the compiler when it is asked for, which refuses the word "wrong"; else the program.
const DOTNET: &str = r#"#!/bin/sh
[ "$1" = exec ] || exit 90
case $2 in
    */sdk/9.0.100/Roslyn/bincore/csc.dll)
        [ "$3" = -noconfig ] || exit 91
        options=${4#@}
        grep -q '^-r:".*/9.0.1/System.Runtime.dll"$' "$options" || exit 92
        program=$(sed -n 's/^-out:"\(.*\)"$/\1/p' "$options")
        sed -n 's/^"\(.*\)"$/\1/p' "$options" | while read -r source; do
            case $source in
                *usings.cs) grep -qx 'global using System.Linq;' "$source" || exit 93 ;;
                *) cat "$source" ;;
            esac
        done > "$program"
        if grep -q wrong "$program"; then echo "script.cs(1,1): error"; exit 5; fi ;;
    *)
        grep -q '"version":"9.0.1"' "${2%.dll}.runtimeconfig.json" || exit 94
        program=$2
        shift 2
        exec sh "$program" "$@" ;;
esac
"#;

struct Sdk {
    place: tempfile::TempDir,
    script: PathBuf,
}

impl Sdk {
    fn new() -> Sdk {
        let recipe = shipped("dotnet").unwrap().recipe(&Checks::default()).unwrap();
        let text = recipe.steps.iter().find_map(|step| match &step.kind {
            StepKind::Copy {
                source: CopySource::Text(text),
                to,
                mode: Some(0o755),
                ..
            } if to == "usr/local/bin/csharp-run" => Some(text.clone()),
            _ => None,
        });
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        for (path, text) in [
            ("csharp-run", text.expect("the recipe brings it").as_str()),
            ("lib/dotnet", DOTNET),
            ("lib/sdk/8.0.400/Roslyn/bincore/csc.dll", ""),
            ("lib/sdk/9.0.100/Roslyn/bincore/csc.dll", ""),
            ("lib/shared/Microsoft.NETCore.App/9.0.1/System.Runtime.dll", ""),
        ] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(at("bin")).unwrap();
        symlink("../lib/dotnet", at("bin/dotnet")).unwrap();
        fs::create_dir(at("a b")).unwrap();
        let script = at("csharp-run");
        Sdk { place, script }
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("a b")
    }

    fn source(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, program: &Path, words: &[&str]) -> Output {
        let path = format!("{}/bin:/usr/bin:/bin", self.place.path().display());
        let mut child = Command::new("sh")
            .arg(&self.script)
            .arg(program)
            .args(words)
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"you").unwrap();
        child.wait_with_output().unwrap()
    }
}

#[test]
fn programs_are_compiled_and_run() {
    let sdk = Sdk::new();
    sdk.source("lib.cs", "greet() { printf 'hello %s' \"$(cat)\"; }\n");
    let program = sdk.source("script.cs", "greet; echo \" $#:$1\"; echo oh >&2; exit 7\n");
    let ended = sdk.run(&program, &["x y", "z"]);
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello you 2:x y\n");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "oh\n");
    assert_eq!(ended.status.code(), Some(7));
    assert_eq!(
        fs::read_dir(sdk.folder()).unwrap().count(),
        2,
        "it leaves nothing"
    );
}

#[test]
fn errors_of_the_compiler_are_errors() {
    let sdk = Sdk::new();
    let ended = sdk.run(&sdk.source("script.cs", "wrong\n"), &[]);
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "script.cs(1,1): error\n");
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(5), 0));
    assert_eq!(fs::read_dir(sdk.folder()).unwrap().count(), 1);
    let ended = sdk.run(Path::new("/nowhere.cs"), &[]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.starts_with(b"usage: csharp-run"));
}
