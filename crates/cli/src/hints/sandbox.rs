//! Advice about scripts that run in an image.

use firebrick_sandbox::{Outcome, SandboxError};

const NAMESPACES: &str = "see what holds them back: sysctl user.max_user_namespaces kernel.unprivileged_userns_clone \
                          kernel.apparmor_restrict_unprivileged_userns; in a container, allow them: docker run --security-opt \
                          seccomp=unconfined --security-opt apparmor=unconfined";

const FILE_LIMIT: &str =
    "no file may become larger than all that is written together; give it more: --step-disk SIZE";

/// What programs say that reach nobody.
const NO_NETWORK: [&str; 17] = [
    "Could not resolve host",
    "Could not resolve '",
    "Could not resolve proxy",
    "Failed to fetch",
    "Temporary failure resolving",
    "Temporary failure in name resolution",
    "happened resolving",
    "unable to resolve host",
    "failed to resolve address",
    "Network is unreachable",
    "Name or service not known",
    "bad address",
    "no such host",
    "EAI_AGAIN",
    // apk
    "DNS lookup error",
    "DNS: transient error",
    "temporary error (try again later)",
];

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
    let says = |words: &[&str]| words.iter().any(|word| tail.contains(word));
    let hint = match outcome {
        // Where nothing could be fetched, no name is known either.
        Outcome::Exited(_) if network && says(&NO_NETWORK) => {
            "see that this machine reaches it; a proxy is the one of http_proxy and https_proxy; all that is said: -v"
        }
        Outcome::Exited(_) if says(&NO_NETWORK) => {
            "a script has no network of its own accord; give it this machine's: --network"
        }
        Outcome::Exited(_) if says(&["Unable to locate package", "has no installation candidate"]) => {
            "find its name as the image's release has it: apt-cache search WORD, in such an image or on such a machine"
        }
        Outcome::Exited(_) if says(&["(no such package)"]) => {
            "find its name as the image's release has it: apk search WORD, or https://pkgs.alpinelinux.org"
        }
        // As shells pass on that SIGXFSZ ended a program.
        Outcome::Exited(153) => FILE_LIMIT,
        Outcome::Exited(_) if says(&["File too large", "File size limit exceeded"]) => FILE_LIMIT,
        Outcome::Exited(_) | Outcome::Signal(_) => "see everything that it prints: -v",
        Outcome::TimedOut(_) => "give it longer: --step-timeout SECONDS",
        Outcome::OverLimit { what, .. } if what == "memory" => "give it more: --step-memory SIZE",
        Outcome::OverLimit { what, .. } if what == "processes" => "give it more: --step-processes N",
        Outcome::OverLimit { .. } => "see what is free: df -h; or give it more: --step-disk SIZE",
        Outcome::NotStarted(why) if why.contains("Exec format error") => {
            "the image is for another processor; make it on such a machine, or install qemu-user-static here"
        }
        Outcome::NotStarted(why) if why.contains("in this user namespace") => {
            "run firebrick outside of it (of unshare -r), without root: it makes a namespace of its own"
        }
        Outcome::NotStarted(why) if why.contains("/etc/subuid") => {
            "give this user a range of ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        }
        Outcome::NotStarted(_) => "see what the image has: firebrick rootfs ls NAME:/bin",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_package_manager_decide() {
        let lost = "see that this machine reaches it";
        let apk = "ERROR: unable to select packages:\n  nosuchpkg (no such package):\n    required by: world[nosuchpkg]";
        let dns = "WARNING: fetching https://dl-cdn.alpinelinux.org/alpine/v3.20/main: DNS lookup error";
        let again = dns.replace("DNS lookup error", "temporary error (try again later)");
        for (tail, network, told) in [
            (apk.to_owned(), true, "apk search WORD"),
            (format!("{dns}\n{apk}"), true, lost),
            (format!("{again}\n{apk}"), true, lost),
            (format!("{dns}\n{apk}"), false, "--network"),
            ("E: Unable to locate package nosuchpkg".to_owned(), true, "apt-cache search"),
            (
                "E: Failed to fetch http://mirror.example/x  Could not connect\nE: Unable to locate package jq".to_owned(),
                true,
                lost,
            ),
            ("curl: (6) Could not resolve host: x".to_owned(), true, lost),
            ("npm error ERESOLVE could not resolve".to_owned(), true, "prints: -v"),
            ("OSError: [Errno 27] File too large".to_owned(), true, "--step-disk"),
        ] {
            let hint = of_outcome(&Outcome::Exited(1), &tail, network).expect("a hint");
            assert!(hint.contains(told), "{tail}: {hint}");
        }
        let hint = |outcome| of_outcome(&outcome, "", false).expect("a hint");
        assert!(hint(Outcome::Exited(153)).contains("--step-disk"));
        let alone = "become another user: there is only one id in this user namespace";
        assert!(hint(Outcome::NotStarted(alone.into())).contains("outside of it"));
    }
}
