//! Real boots: an Alpine root made by `mke2fs -d`, run under QEMU with the guest binary of this workspace.

#[expect(dead_code, reason = "another test program uses the rest")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firebrick_vmm::qemu::{Program, probe};
use firebrick_vmm::{BootSpec, Job, RunOutcome, RunSpec, Streams, run};

const ALPINE: &str = "alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz";

fn fixture() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    std::env::var_os("FIREBRICK_FIXTURES")
        .map_or(beside, PathBuf::from)
        .join(ALPINE)
}

fn image(dir: &Path) -> PathBuf {
    let (root, image) = (dir.join("root"), dir.join("image.ext4"));
    std::fs::create_dir(&root).unwrap();
    let done = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    done(Command::new("tar").arg("xzf").arg(fixture()).arg("-C").arg(&root));
    done(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&root)
            .arg(&image)
            .arg("64M"),
    );
    image
}

#[test]
fn exit_codes_output_and_time_limits_come_back_and_the_image_stays() {
    if !fixture().exists() {
        return; // a clone without the shared fixtures
    }
    let Some(kernel) = common::kernel() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let before = std::fs::read(&image).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let guest = firebrick_embed::build_guest_for("x86_64-unknown-linux-gnu", target).unwrap();
    let guest = std::fs::read(guest).unwrap();
    let program =
        Program::find(&std::env::var_os("PATH").unwrap()).expect("QEMU (Debian package qemu-system-x86)");
    let (qemu, _) = probe::best(&program, &kernel, &common::state(), false).unwrap();
    let job = |command: &str, seconds| {
        let mut boot = BootSpec::new(&image, &kernel, &guest);
        boot.answer_limit = Duration::from_secs(120);
        let argv = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let timeout = Some(Duration::from_secs(seconds));
        let patience = Duration::from_secs(2);
        let spec = RunSpec {
            boot,
            job: Job::Argv(argv),
            options: Default::default(),
            timeout,
            patience,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = Streams {
            stdin: None,
            stdout: &mut stdout,
            stderr: &mut stderr,
            interrupts: None,
        };
        let outcome = run(&qemu, &spec, streams).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
        (outcome, stdout, stderr)
    };
    let (outcome, stdout, stderr) = job("printf '\\000\\377'; echo no >&2; touch /written; exit 7", 30);
    assert_eq!(outcome, RunOutcome::Exited { code: 7 });
    assert_eq!((stdout, stderr), (vec![0, 0xff], b"no\n".to_vec()));
    let (outcome, ..) = job("test ! -e /written && kill -9 $$", 30);
    assert_eq!(outcome, RunOutcome::Exited { code: 137 });
    let (outcome, ..) = job("sleep 600", 1);
    assert_eq!(
        outcome,
        RunOutcome::TimedOut {
            limit: Duration::from_secs(1)
        }
    );
    assert!(std::fs::read(&image).unwrap() == before, "the image has changed");
}
