//! What a file that is to be a kernel turns out to be, and the form in which it will be started.

use super::bzimage::BzImage;
use super::elf::Elf;
use super::{Format, KernelError, Origin, arm_image, is_plain_name};
use crate::arch::Arch;

/// A kernel file as it will be started.
pub(super) struct KernelFile {
    pub(super) release: String,
    pub(super) arch: Arch,
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
}

impl KernelFile {
    /// Looks at `bytes` of the file `name`. `packaged` is the release where they come out of a package.
    pub(super) fn of(
        bytes: Vec<u8>,
        name: &str,
        packaged: Option<&str>,
        origin: &Origin,
    ) -> Result<KernelFile, KernelError> {
        let odd = || KernelError::Format {
            name: name.to_owned(),
        };
        let file = if BzImage::is(&bytes) {
            KernelFile::of_bzimage(bytes, name)?
        } else if has_pvh_entry(&bytes) || is_plain_kernel(&bytes) {
            KernelFile {
                release: release_of_file(origin),
                arch: Arch::X86_64,
                format: Format::Elf,
                bytes,
            }
        } else {
            KernelFile {
                release: packaged.map_or_else(|| release_of_file(origin), str::to_owned),
                arch: Arch::Aarch64,
                format: Format::Image,
                bytes: arm_image::plain(bytes).ok_or_else(odd)?,
            }
        };
        if !is_plain_name(&file.release) || file.release.starts_with("default") {
            return Err(odd());
        }
        Ok(file)
    }

    fn of_bzimage(bytes: Vec<u8>, name: &str) -> Result<KernelFile, KernelError> {
        let image = BzImage::parse(&bytes).map_err(|source| KernelError::BzImage {
            name: name.to_owned(),
            source,
        })?;
        let (format, bytes) = match has_pvh_entry(&image.vmlinux) {
            true => (Format::Elf, image.vmlinux),
            false => (Format::BzImage, bytes),
        };
        Ok(KernelFile {
            release: image.release,
            arch: Arch::X86_64,
            format,
            bytes,
        })
    }

    /// The name that it is kept under.
    pub(super) fn format_name(&self) -> &'static str {
        match self.format {
            Format::Elf => "vmlinux",
            Format::BzImage => "bzImage",
            Format::Image => "Image",
        }
    }
}

fn has_pvh_entry(bytes: &[u8]) -> bool {
    Elf::parse(bytes).is_some_and(|elf| elf.has_pvh_entry())
}

/// Whether this is an x86 ELF kernel without a PVH entry. Firecracker starts it all the same, QEMU does not.
fn is_plain_kernel(bytes: &[u8]) -> bool {
    const ET_EXEC: u16 = 2;
    const BANNER: &[u8] = b"Linux version ";
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let is_program = Elf::parse(bytes).is_some()
        && half(16) == Some(ET_EXEC)
        && half(18) == Some(Arch::X86_64.elf_machine());
    is_program && bytes.windows(BANNER.len()).any(|window| window == BANNER)
}

/// Such a kernel tells its release only in its banner, which is text like any other: not trusted as a name.
fn release_of_file(origin: &Origin) -> String {
    let (Origin::File { digest, .. } | Origin::Package { digest, .. }) = origin;
    let short: String = digest.trim_start_matches("sha256:").chars().take(12).collect();
    format!("file-{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_no_kernel_but_one_that_says_so_is() {
        let mut elf = vec![0; 128];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16..20].copy_from_slice(&[2, 0, 62, 0]);
        let origin = Origin::File {
            path: "/x".into(),
            digest: "sha256:0123456789abcdef".to_owned(),
        };
        let of = |bytes: &[u8]| KernelFile::of(bytes.to_vec(), "x", None, &origin);
        assert!(of(&elf).is_err());
        let kernel = [&elf[..], b"Linux version 5.10.223 (me)"].concat();
        let file = of(&kernel).unwrap();
        assert_eq!((file.arch, file.format), (Arch::X86_64, Format::Elf));
        assert_eq!(file.release, "file-0123456789ab");
    }
}
