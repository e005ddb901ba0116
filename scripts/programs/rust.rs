//! What the recipe `rust` promises: rustc, which has compiled this, and cargo.
use std::collections::HashMap;
use std::process::Command;
use std::{env, fs, thread};

fn said(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn main() {
    let threads: Vec<_> = (0..4u64).map(|n| thread::spawn(move || (n, n * n))).collect();
    let squares: HashMap<u64, u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(squares.values().sum::<u64>(), 14);
    let folder = env::temp_dir().join("answer");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("Cargo.toml"), "[package]\nname = \"answer\"\nversion = \"0.1.0\"\nedition = \"2021\"\n").unwrap();
    fs::write(folder.join("src/main.rs"), "fn main() { println!(\"{}\", 6 * 7) }\n").unwrap();
    let cargo = || Command::new("cargo");
    assert_eq!(said(cargo().args(["run", "--quiet", "--offline"]).current_dir(&folder)), "42");
    let version = |program: &str| said(Command::new(program).arg("--version"));
    let number = |text: String| text.split(' ').nth(1).unwrap_or_default().to_owned();
    println!("ok: rustc {}, cargo {}", number(version("rustc")), number(version("cargo")));
}
