//! What helps where Firecracker refuses, or does not start.

use firebrick_vmm::firecracker::ApiError;

const OTHERWISE: &str = "the same image boots with --vmm qemu";
const KVM: &str = "Firecracker needs KVM: see ls -l /dev/kvm, and let your user open it, sudo usermod -aG kvm $USER; \
                   without KVM the same image boots with --vmm qemu";

/// By the request, since the fault's words differ between versions.
pub(super) fn of_api(error: &ApiError) -> Option<String> {
    let (path, fault) = match error {
        ApiError::Refused { path, fault, .. } => (path.as_str(), fault.as_str()),
        ApiError::Malformed { .. } => {
            return Some(format!(
                "is that Firecracker? see: firecracker --version; {OTHERWISE}"
            ));
        }
        _ => return Some(OTHERWISE.to_owned()),
    };
    let fault = fault.to_lowercase();
    Some(match path {
        _ if fault.contains("kvm") => KVM.to_owned(),
        _ if fault.contains("deserializ") || fault.contains("invalid request method") => {
            format!("this Firecracker may be too old, 1.8 is the first that is known to do: firecracker --version; {OTHERWISE}")
        }
        "/boot-source" if fault.contains("command line") => {
            "it takes no other than ASCII there: see what --append says".to_owned()
        }
        "/boot-source" => "it takes an uncompressed kernel (ELF), as firebrick setup makes it: firebrick setup --force".to_owned(),
        "/machine-config" => "ask for less: --mem SIZE --vcpus N".to_owned(),
        path if path.starts_with("/drives/") => {
            "see that the image is whole and may be read: firebrick rootfs inspect IMAGE".to_owned()
        }
        path if path.starts_with("/snapshot/") => {
            "snapshots are only good for the Firecracker, kernel and processor that made them: start the pool again".to_owned()
        }
        _ => OTHERWISE.to_owned(),
    })
}

/// By its last words.
pub(super) fn of_end(said: &str) -> String {
    let said = said.to_lowercase();
    if said.contains("kvm") {
        KVM.to_owned()
    } else if said.contains("jailer") || said.contains("chroot") || said.contains("mknod") {
        "the jailer needs root: sudo firebrick …; without --jailer firebrick does not".to_owned()
    } else {
        OTHERWISE.to_owned()
    }
}

/// What Firecracker cannot do.
pub(super) fn of_unsupported(what: &str) -> Option<String> {
    let hint = match what {
        "a network under Firecracker" => "QEMU has a network that needs no root: --vmm qemu --net",
        "so many processors" => "give it fewer, --vcpus 32, or take --vmm qemu",
        "writing to this drive in a jail" => {
            "put the file on the filesystem of the jail, owned by the jailed user; FIREBRICK_HOME says where the jail is"
        }
        "so long a kernel command line" => "say less with --append",
        "sharing a drive that a machine writes" => "end the other VM, or attach it to both with :ro",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use firebrick_vmm::firecracker::Method;

    use super::*;

    #[test]
    fn advice_goes_by_what_was_refused() {
        let hint = |path: &str, fault: &str| {
            of_api(&ApiError::Refused {
                method: Method::Put,
                path: path.to_owned(),
                status: 400,
                fault: fault.to_owned(),
            })
            .unwrap()
        };
        assert!(hint("/actions", "Cannot create KVM object").starts_with("Firecracker needs KVM"));
        assert!(hint("/boot-source", "Kernel loader: bad magic").contains("firebrick setup --force"));
        assert!(hint("/boot-source", "The kernel command line is invalid: x").contains("--append"));
        assert!(hint("/drives/drive0", "No such file").contains("rootfs inspect"));
        assert!(hint("/entropy", "Invalid request method and/or path: PUT entropy.").contains("--version"));
        assert_eq!(hint("/vsock", "address in use"), OTHERWISE);
    }
}
