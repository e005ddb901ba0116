//! What goes wrong on the way, and what is said of it.

use std::time::Duration;

use firebrick_vmm::firecracker::ApiError;
use firebrick_vmm::{LaunchError, MachineSpec, Vmm as _, Vsock};

use crate::common::chain;
use crate::fake::{LIMIT, agent, fake};

/// What a machine with two drives and a vsock is asked for, in order.
const PATHS: [&str; 8] = [
    "/logger",
    "/machine-config",
    "/boot-source",
    "/drives/drive0",
    "/drives/drive1",
    "/vsock",
    "/entropy",
    "/actions",
];

/// Launches with and without a jail what must fail; gives the errors. Nothing is left of either.
fn fail(mode: &str, patience: Duration) -> Option<[LaunchError; 2]> {
    let fake = fake(mode)?;
    let spec = MachineSpec {
        vsock: Vsock::Socket(fake.at("vsock")),
        ..fake.spec()
    };
    let [first, second] = [fake.vmm(), fake.jailed()].map(|vmm| {
        let error = vmm.with_patience(patience).launch(&spec).unwrap_err();
        assert!(
            std::fs::symlink_metadata(fake.at("vsock")).is_err(),
            "{mode}: the socket"
        );
        fake.is_clean();
        // The drive that is written is free again.
        assert_eq!(fake.locks_of("data"), [""; 0]);
        error
    });
    Some([first, second])
}

#[test]
fn a_refusal_names_the_request_and_the_reason() {
    for path in PATHS {
        let Some(errors) = fail(&format!("refuse:{path}"), LIMIT) else {
            return;
        };
        for error in errors {
            let words = format!("Firecracker refuses PUT {path}: Refused, as the test wants it.");
            assert!(chain(&error).ends_with(&words), "{}", chain(&error));
        }
        let fake = fake(&format!("refuse:{path}")).unwrap();
        fake.vmm().launch(&fake.spec()).unwrap_err();
        let last = fake.requests().pop().unwrap();
        assert_eq!(
            last,
            format!("PUT {path} 400"),
            "nothing is asked after a refusal"
        );
    }
}

#[test]
fn an_answer_that_breaks_off_is_told_as_such_at_every_step() {
    for path in PATHS {
        for mode in ["close", "half"] {
            let Some(errors) = fail(&format!("{mode}:{path}"), LIMIT) else {
                return;
            };
            for error in errors {
                let broken =
                    matches!(&error, LaunchError::Api(ApiError::Broken { path: at, .. }) if at == path);
                assert!(broken, "{mode} {path}: {}", chain(&error));
            }
        }
    }
}

#[test]
fn an_answer_without_an_end_is_not_waited_for() {
    let begun = std::time::Instant::now();
    for (mode, what) in [("huge", "it is too long"), ("endless", "it does not end")] {
        let Some(errors) = fail(&format!("{mode}:/boot-source"), LIMIT) else {
            return;
        };
        for error in errors {
            let said = chain(&error);
            assert!(
                said.ends_with(&format!("PUT /boot-source is no HTTP: {what}")),
                "{said}"
            );
        }
    }
    assert!(begun.elapsed() < LIMIT);
    // Each byte of it comes in time; the whole does not.
    for error in fail("drip:/vsock", Duration::from_secs(5)).unwrap() {
        assert!(
            matches!(&error, LaunchError::Api(ApiError::TimedOut { .. })),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn what_is_no_fault_message_is_told_on_one_harmless_line() {
    let Some(errors) = fail("odd:/entropy", LIMIT) else {
        return;
    };
    for error in errors {
        let said = chain(&error);
        assert!(
            said.ends_with("Firecracker refuses PUT /entropy: <html> not JSON\u{fffd}[31m </>"),
            "{said:?}"
        );
    }
}

#[test]
fn a_crash_in_the_middle_is_told_with_the_last_words() {
    for path in ["/machine-config", "/drives/drive0", "/actions"] {
        let Some(fake) = fake(&format!("crash:{path}")) else {
            return;
        };
        match fake.vmm().launch(&fake.spec()).unwrap_err() {
            LaunchError::Ended { exit, said, .. } => {
                assert_eq!(exit.signal, Some(6));
                assert!(said.contains("panicked: as the test wants it"), "{said}");
            }
            other => panic!("{}", chain(&other)),
        }
        fake.is_clean();
    }
}

#[test]
fn a_vmm_that_ends_at_once_is_told_with_its_words() {
    let Some(fake) = fake("dead") else { return };
    let error = fake.vmm().launch(&fake.spec()).unwrap_err();
    assert!(
        matches!(&error, LaunchError::Ended { said, .. } if said.contains("/dev/kvm: as the test wants it")),
        "{error}"
    );
    fake.is_clean();
}

#[test]
fn a_slow_socket_is_waited_for_and_a_silent_one_is_not() {
    let Some(slow) = fake("slow") else { return };
    let machine = slow.vmm().launch(&slow.spec()).unwrap();
    agent(&*machine).ping(LIMIT).unwrap();
    let patience = Duration::from_secs(5);
    let silent = fake("hang:/boot-source").unwrap();
    match silent
        .vmm()
        .with_patience(patience)
        .launch(&silent.spec())
        .unwrap_err()
    {
        LaunchError::Api(ApiError::TimedOut { path, limit, .. }) => {
            assert_eq!((path.as_str(), limit), ("/boot-source", patience));
        }
        other => panic!("{}", chain(&other)),
    }
    silent.is_clean();
    let deaf = fake("deaf").unwrap();
    let error = deaf
        .vmm()
        .with_patience(Duration::from_millis(500))
        .launch(&deaf.spec())
        .unwrap_err();
    assert!(error.to_string().contains("API socket"), "{error}");
    deaf.is_clean();
}

#[test]
fn what_is_no_http_is_said_to_be_none() {
    let Some(fake) = fake("garbage") else { return };
    let error = fake.vmm().launch(&fake.spec()).unwrap_err();
    assert!(
        matches!(error, LaunchError::Api(ApiError::Malformed { .. })),
        "{error:?}"
    );
    fake.is_clean();
}

#[test]
fn files_that_are_not_there_are_told_by_us() {
    let Some(fake) = fake("") else { return };
    let mut spec = fake.spec();
    spec.drives[1].path = fake.at("nothing");
    let no_kernel = MachineSpec {
        kernel: fake.at("no-kernel"),
        ..fake.spec()
    };
    // A pipe, whose other end nobody opens, is not waited for.
    let pipe = std::process::Command::new("mkfifo").arg(fake.at("pipe")).status();
    assert!(pipe.unwrap().success());
    let mut piped = fake.spec();
    piped.drives[0].path = fake.at("pipe");
    for (spec, name) in [(spec, "nothing"), (no_kernel, "no-kernel"), (piped, "pipe")] {
        let error = fake.vmm().launch(&spec).unwrap_err();
        assert!(
            matches!(&error, LaunchError::Open { path, .. } if path.ends_with(name)),
            "{error}"
        );
        fake.is_clean();
    }
}

#[test]
fn what_cannot_be_done_to_a_machine_as_it_is_is_refused_by_firecracker() {
    let Some(fake) = fake("") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    let error = machine.snapshot(fake.dir.path()).unwrap_err();
    assert!(
        chain(&error).contains("PUT /snapshot/create: Cannot save"),
        "{}",
        chain(&error)
    );
    machine.pause().unwrap();
    machine.snapshot(fake.dir.path()).unwrap();
    machine.resume().unwrap();
    assert_eq!(fake.requests().last().unwrap(), "PATCH /vm 204");
}
