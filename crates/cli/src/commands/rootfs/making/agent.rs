//! A guest that the user brings: it must be a program that starts in any image.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use firebrick_source::Platform;

use crate::text;

/// Longest guest, in bytes: it is held in memory.
const LEN_MAX: u64 = 64 << 20;

/// Reads it, and makes sure that it is a static ELF program for the image's processor.
///
/// `what` is what it is called where it cannot be used.
pub(in crate::commands::rootfs) fn read(
    what: &str,
    path: &Path,
    platform: &Platform,
) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("cannot read the {what} {path:?}");
    let file = File::open(path).with_context(reading)?;
    let metadata = file.metadata().with_context(reading)?;
    ensure!(metadata.is_file(), "the {what} {path:?} is not a regular file");
    ensure!(
        metadata.len() <= LEN_MAX,
        "the {what} {path:?} has {}, at most {} are possible",
        text::bytes(metadata.len()),
        text::bytes(LEN_MAX)
    );
    let mut bytes = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut bytes).with_context(reading)?;
    check(&bytes, platform).with_context(|| format!("the {what} {path:?} cannot run in every image"))?;
    Ok(bytes)
}

/// Looks at the ELF header and the program headers (`elf(5)`), 64-bit little-endian.
fn check(bytes: &[u8], platform: &Platform) -> anyhow::Result<()> {
    const PT_INTERP: u32 = 3;
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is not a 64-bit ELF program");
    }
    let expected = match platform.architecture.as_str() {
        "amd64" | "x86_64" => 62,
        "arm64" | "aarch64" => 183,
        "riscv64" => 243,
        other => bail!("firebrick does not know programs for {other}"),
    };
    let machine = u16::from_le_bytes(field(bytes, 18)?);
    ensure!(machine == expected, "it is for another processor than {platform}");
    let table = usize::try_from(u64::from_le_bytes(field(bytes, 32)?))?;
    let (size, count) = (
        usize::from(u16::from_le_bytes(field(bytes, 54)?)),
        usize::from(u16::from_le_bytes(field(bytes, 56)?)),
    );
    for number in 0..count {
        let at = table
            .checked_add(number * size)
            .context("its program headers are out of range")?;
        if u32::from_le_bytes(field(bytes, at)?) == PT_INTERP {
            bail!("it is linked dynamically: an image need not have its libraries");
        }
    }
    Ok(())
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().context("it is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_guest_passes_and_others_say_why_not() {
        let host = Platform::host();
        check(crate::guest::BYTES, &host).unwrap();
        let other = if host.architecture == "arm64" {
            "linux/amd64"
        } else {
            "linux/arm64"
        };
        for (bytes, platform, why) in [
            (&b"#!/bin/sh"[..], &host, "not a 64-bit ELF"),
            (crate::guest::BYTES, &other.parse().unwrap(), "another processor"),
            (&crate::guest::BYTES[..40], &host, "cut short"),
            (
                &std::fs::read(std::env::current_exe().unwrap()).unwrap(),
                &host,
                "dynamically",
            ),
        ] {
            let error = check(bytes, platform).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(read("agent", Path::new("/dev/zero"), &host).is_err());
    }
}
