//! Builds one image in a process of its own, for tests that kill it, starve it, or compare it with another.
//!
//! `build-image REFERENCE OUTPUT [LAYERS_AT_ONCE [SIZE_BYTES|squashfs]]` prints `ok` and the build key, or `error:` and why not
//! (status 1); then `peak_kib`, the most memory that it held.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a program talks to who started it")]

use std::path::Path;
use std::process::ExitCode;

use firebrick_testkit::build::{Recipe, run};

fn main() -> ExitCode {
    let outcome = build();
    match &outcome {
        Ok(key) => println!("ok {key}"),
        Err(error) => println!("error: {error:#}"),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|line| line.split_ascii_whitespace().next())
        .unwrap_or("unknown");
    println!("peak_kib {peak}");
    ExitCode::from(u8::from(outcome.is_err()))
}

fn build() -> anyhow::Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut recipe = Recipe::default();
    let [reference, output, options @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: build-image REFERENCE OUTPUT [LAYERS_AT_ONCE [SIZE_BYTES|squashfs]]");
    };
    if let Some(count) = options.first() {
        recipe.layers_at_once = count.parse()?;
    }
    if options.get(1).is_some_and(|format| format == "squashfs") {
        recipe.squashfs = Some(firebrick_squashfs::Options {
            threads: recipe.layers_at_once,
            ..firebrick_squashfs::Options::default()
        });
    } else if let Some(bytes) = options.get(1) {
        recipe.ext4.size = firebrick_ext4::Size::Bytes(bytes.parse()?);
    }
    let report = run(&reference.parse()?, Path::new(output), &recipe)?;
    Ok(report.build_key.to_string())
}
