//! What `setup` may download without being given a digest: addresses, each with the digest that it is pinned to.
//!
//! Firecracker publishes `….tgz.sha256.txt` beside each release; the digests here are those. For the kernels of its CI it
//! publishes none: theirs are the ones that several projects, independently of each other, recorded when they downloaded
//! them. A file that is another is refused, so the worst that a wrong pin can do is to be of no use.

use firebrick_digest::Digest;
use firebrick_vmm::Arch;

/// Where Firecracker's releases are.
pub(super) const RELEASES: &str = "https://github.com/firecracker-microvm/firecracker/releases/download";
/// Where the kernels of its CI are.
pub(super) const KERNELS: &str = "https://s3.amazonaws.com/spec.ccfc.min/firecracker-ci";

/// What is taken of them where nobody names a version.
pub(super) const USUAL_KERNEL: &str = "6.1";

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) url: String,
    pub(super) digest: Digest,
}

/// Version, processor, SHA-256 of the release's archive. None before 1.8: those do not tell Debian's kernel of their devices.
#[rustfmt::skip]
const FIRECRACKER: &[(&str, Arch, &str)] = &[
    ("1.15.1", Arch::X86_64, "d4a32ab2322d887ca1bc4a4e7afa9cc35393e6362dfc2b3becb389d362e4275a"),
    ("1.15.1", Arch::Aarch64, "00654ac1e702a22744121ea9f10a4f792ebd7c3a744cba587dfac9fcb79b41a5"),
];

/// The CI's series, kernel version, processor, SHA-256.
#[rustfmt::skip]
const KERNEL: &[(&str, &str, Arch, &str)] = &[
    ("v1.15", "6.1.155", Arch::X86_64, "e20e46d0c36c55c0d1014eb20576171b3f3d922260d9f792017aeff53af3d4f2"),
    ("v1.13", "6.1.141", Arch::X86_64, "b36a4a1b10f33b9cfdcde3d1a787d9c090556a3edb211cd06d1f3f9a6c7e8724"),
    ("v1.13", "6.1.141", Arch::Aarch64, "69aa3308219ec1a070bc9a8e7f80c3b34056fed8ae05efb44e55f73b31adde44"),
    ("v1.15", "5.10.245", Arch::X86_64, "c453f36520d2f2792ab8e4532a814e4a647a4a41a4c94d4e9083a502800159b1"),
    ("v1.10", "5.10.223", Arch::X86_64, "22847375721aceea63d934c28f2dfce4670b6f52ec904fae19f5145a970c1e65"),
    ("v1.10", "5.10.223", Arch::Aarch64, "eb5d95ac8a67f7a86acf0cb35625633713ad5170b56de8617808d0e18bb832ec"),
];

/// The address of Firecracker's release archive.
pub(super) fn firecracker_url(mirror: Option<&str>, version: &str, arch: Arch) -> String {
    let base = mirror.unwrap_or(RELEASES);
    format!("{base}/v{version}/firecracker-v{version}-{arch}.tgz")
}

/// Its digest, where it is known here.
pub(super) fn firecracker(version: &str, arch: Arch) -> Option<Digest> {
    let mut pins = FIRECRACKER.iter();
    let (_, _, digest) = pins.find(|(of, on, _)| *of == version && *on == arch)?;
    Some(parse(digest))
}

/// The newest pinned kernel whose version begins so.
pub(super) fn kernel(mirror: Option<&str>, version: &str, arch: Arch) -> Option<Pin> {
    let base = mirror.unwrap_or(KERNELS);
    let begins = |of: &str| {
        of.strip_prefix(version)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let (series, of, _, digest) = KERNEL.iter().find(|(_, of, on, _)| begins(of) && *on == arch)?;
    Some(Pin {
        url: format!("{base}/{series}/{arch}/vmlinux-{of}"),
        digest: parse(digest),
    })
}

/// The versions of Firecracker that are pinned.
pub(super) fn firecracker_versions() -> Vec<&'static str> {
    let versions = FIRECRACKER.iter().filter(|(_, arch, _)| *arch == Arch::HOST);
    versions.map(|(version, ..)| *version).collect()
}

fn parse(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().expect("a pin is a digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_a_digest_and_can_be_found() {
        for (version, arch, hex) in FIRECRACKER {
            assert_eq!(firecracker(version, *arch).unwrap().hex(), *hex);
        }
        for (_, version, arch, hex) in KERNEL {
            assert_eq!(kernel(None, version, *arch).unwrap().digest.hex(), *hex);
        }
        assert_eq!(firecracker("0.0.1", Arch::X86_64), None);
    }

    #[test]
    fn a_beginning_finds_the_newest_and_no_other_number() {
        let pin = kernel(None, "5.10", Arch::X86_64).unwrap();
        assert!(pin.url.ends_with("/v1.15/x86_64/vmlinux-5.10.245"), "{}", pin.url);
        assert_eq!(kernel(None, "5.1", Arch::X86_64), None);
        for arch in Arch::ALL {
            assert!(kernel(None, USUAL_KERNEL, arch).is_some(), "{arch}");
        }
        let mirrored = kernel(Some("http://m"), "6.1", Arch::Aarch64).unwrap();
        assert_eq!(mirrored.url, "http://m/v1.13/aarch64/vmlinux-6.1.141");
    }
}
