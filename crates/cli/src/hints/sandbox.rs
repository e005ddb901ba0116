//! Advice about scripts that run in an image.

use firebrick_sandbox::{Outcome, SandboxError};

const NAMESPACES: &str = "see what holds them back: sysctl user.max_user_namespaces kernel.unprivileged_userns_clone \
                          kernel.apparmor_restrict_unprivileged_userns; in a container, allow them: docker run --security-opt \
                          seccomp=unconfined --security-opt apparmor=unconfined";

pub(super) fn of(error: &SandboxError) -> Option<String> {
    let hint = match error {
        SandboxError::NoNamespaces { why } if why.starts_with("new") => {
            "see what this user was granted: grep \"$USER\" /etc/subuid /etc/subgid; ls -l /usr/bin/newuidmap"
                .to_owned()
        }
        SandboxError::NoNamespaces { .. } => NAMESPACES.to_owned(),
        SandboxError::Step {
            outcome,
            tail,
            network,
            ..
        } => of_outcome(outcome, tail, *network)?,
        SandboxError::Inside { .. } => "see docs/sandbox.md for what an image must be like".to_owned(),
        SandboxError::Ended { .. } => "see whether memory ran out: dmesg | tail".to_owned(),
        _ => return None,
    };
    Some(hint)
}

fn of_outcome(outcome: &Outcome, tail: &str, network: bool) -> Option<String> {
    let no_network = [
        "resolve",
        "resolving",
        "Network is unreachable",
        "Name or service not known",
        "bad address",
        "DNS",
    ];
    let no_package = ["Unable to locate package", "no such package"];
    let hint = match outcome {
        Outcome::Exited(_) if no_package.iter().any(|word| tail.contains(word)) => {
            "find its name as the image's release has it: apt-cache search WORD, or https://pkgs.alpinelinux.org"
        }
        Outcome::Exited(_) if network && no_network.iter().any(|word| tail.contains(word)) => {
            "see that this machine reaches it; a proxy is the one of http_proxy and https_proxy; all that is said: -v"
        }
        Outcome::Exited(_) if no_network.iter().any(|word| tail.contains(word)) => {
            "a script has no network of its own accord; give it this machine's: --network"
        }
        Outcome::Exited(_) | Outcome::Signal(_) => "see everything that it prints: -v",
        Outcome::TimedOut(_) => "give it longer: --step-timeout SECONDS",
        Outcome::OverLimit { what, .. } if what == "memory" => "give it more: --step-memory SIZE",
        Outcome::OverLimit { what, .. } if what == "processes" => "give it more: --step-processes N",
        Outcome::OverLimit { .. } => "see what is free: df -h; or give it more: --step-disk SIZE",
        Outcome::NotStarted(why) if why.contains("Exec format error") => {
            "the image is for another processor; make it on such a machine, or install qemu-user-static here"
        }
        Outcome::NotStarted(why) if why.contains("/etc/subuid") => {
            "give this user a range of ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        }
        Outcome::NotStarted(_) => "see what the image has: firebrick rootfs ls NAME:/bin",
        _ => return None,
    };
    Some(hint.to_owned())
}
