//! Runs: a machine for one job, whose end is the run's end.

use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_vmm::{Job, RunOutcome};
use serde_json::json;

use crate::host::{Ran, host, shell};
use crate::images;

const LONG: Duration = Duration::from_secs(60);

fn ran(code: i32, stdout: &[u8], stderr: &[u8]) -> Ran {
    Ran {
        outcome: RunOutcome::Exited { code },
        stdout: stdout.to_vec(),
        stderr: stderr.to_vec(),
    }
}

#[test]
fn exit_codes_output_and_time_limits_come_back_and_the_image_stays() {
    let config = json!({ "Entrypoint": ["/bin/echo", "-n"], "Cmd": ["own"] });
    let Some(image) = images::alpine(config, &[]) else {
        return;
    };
    let Some(host) = host() else { return };
    let digest = |path| Digest::of(&std::fs::read(path).expect("the image"));
    let before = digest(&image.path);
    let run = |job, timeout| host.run(&image.path, job, timeout);
    let written = run(
        shell("printf '\\000\\377'; echo no >&2; echo x > /written; sync; exit 7"),
        LONG,
    );
    assert_eq!(written, ran(7, &[0, 0xff], b"no\n"));
    assert_eq!(
        run(shell("test ! -e /written && kill -9 $$"), LONG),
        ran(137, b"", b"")
    );
    assert_eq!(run(Job::Default, LONG), ran(0, b"own", b""));
    let second = Duration::from_secs(1);
    let slow = run(shell("echo begun; sleep 600"), second);
    assert_eq!(slow.outcome, RunOutcome::TimedOut { limit: second });
    assert_eq!(slow.stdout, b"begun\n");
    let missing = run(Job::Argv(vec!["/no/such".to_owned()]), LONG).outcome;
    assert!(
        matches!(missing, RunOutcome::NotStarted { code: 127, .. }),
        "{missing:?}"
    );
    let refused = run(Job::Argv(vec!["/etc/passwd".to_owned()]), LONG).outcome;
    assert!(
        matches!(refused, RunOutcome::NotStarted { code: 126, .. }),
        "{refused:?}"
    );
    assert_eq!(digest(&image.path), before, "the image has changed");
}
