//! What helps when a package set cannot be had.

use firebrick_bootstrap::{Base, BootstrapError, Cause};

const PROCESSOR: &str = "let this host run such programs: apt-get install qemu-user-static binfmt-support";

pub(super) fn of(error: &BootstrapError) -> Option<String> {
    let hint = match error {
        BootstrapError::Word { what: "package", .. } => {
            "name packages as the distribution does, with commas between them: -p python3,curl".to_owned()
        }
        BootstrapError::Word { .. } | BootstrapError::NoSnapshots => {
            "see what there is: firebrick rootfs create --help".to_owned()
        }
        BootstrapError::Trusting { .. } => {
            "give its key with --keys FILE; if you trust the mirror and the way to it: --insecure-mirror".to_owned()
        }
        BootstrapError::NoMirror { base, .. } => {
            let suite = base.default_suite();
            format!("name a release that there is, such as --suite {suite}, or where it is: --mirror http://HOST/{base}")
        }
        BootstrapError::Platform { .. } => {
            "choose another: --platform linux/amd64, --platform linux/arm64".to_owned()
        }
        BootstrapError::NoMinirootfs { .. } => {
            "name another release: --suite v3.22; or give the file: --minirootfs FILE".to_owned()
        }
        BootstrapError::Minirootfs { .. } | BootstrapError::MinirootfsTar { .. } => {
            "give one as Alpine makes it: --minirootfs alpine-minirootfs-3.22.0-x86_64.tar.gz".to_owned()
        }
        BootstrapError::NotInstalled { package, .. } => {
            format!("install it: apt-get install {package}")
        }
        BootstrapError::NoRange { user, .. } => format!(
            "have root set some aside: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}; \
             newuidmap must be there, too: apt-get install uidmap"
        ),
        BootstrapError::FewIds { .. } => {
            "run firebrick outside of it, without root: rootfs create makes a namespace of its own".to_owned()
        }
        BootstrapError::Fetch { .. } => {
            "name a mirror that this host reaches: --mirror https://HOST/alpine; or give the base system: --minirootfs FILE"
                .to_owned()
        }
        BootstrapError::Foreign { platform, .. } => format!(
            "{PROCESSOR}; or make the image on a machine for {platform}"
        ),
        BootstrapError::Failed {
            cause,
            program,
            task,
            ..
        } => return of_cause(*cause, program, task.contains(Base::Ubuntu.name())),
        _ => return None,
    };
    Some(hint)
}

fn of_cause(cause: Cause, program: &str, is_ubuntu: bool) -> Option<String> {
    let is_apk = program == "apk";
    let hint = match cause {
        Cause::Package if is_apk => {
            "find its name: https://pkgs.alpinelinux.org; another release is chosen with --suite"
        }
        Cause::Package => "find its name: apt-cache search WORD; another release is chosen with --suite",
        Cause::Signature if is_apk => {
            "give the keys that sign it: --keys FOLDER, in which they are named as the mirror names them"
        }
        Cause::Signature if is_ubuntu => {
            "give Ubuntu's keys, which its package ubuntu-keyring has, as has that of Debian 13 or later: --keys FILE"
        }
        Cause::Signature => {
            "get the keys: apt-get install debian-archive-keyring; or give a keyring: --keys FILE"
        }
        Cause::Expired => {
            "see that this host's clock is right: date; an old archive is taken with --snapshot TIME"
        }
        Cause::Mirror if is_apk => {
            "name a mirror that this host reaches: --mirror https://HOST/alpine, and a release that it has: --suite"
        }
        Cause::Mirror if is_ubuntu => {
            "name a mirror that this host reaches: --mirror http://HOST/ubuntu, and a release that it has: --suite"
        }
        Cause::Mirror => {
            "name a mirror that this host reaches: --mirror http://HOST/debian, and a release that it has: --suite"
        }
        Cause::DiskFull => {
            "the packages are put together in TMPDIR; see what is full: df -h; choose another: TMPDIR=/var/tmp"
        }
        Cause::Processor => PROCESSOR,
        Cause::Namespace => {
            "user namespaces are switched off or lack a program: apt-get install uidmap; sysctl kernel.unprivileged_userns_clone"
        }
        _ => "see all that it says: firebrick rootfs create -v …",
    };
    Some(hint.to_owned())
}
