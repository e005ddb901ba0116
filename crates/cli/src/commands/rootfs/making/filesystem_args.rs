//! The flags that describe the filesystem of an image.

use clap::ValueEnum;
use firebrick_build as build;
use firebrick_ext4 as ext4;
use firebrick_squashfs as squashfs;

use crate::error::CliError;
use crate::text;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filesystem")]
pub(crate) struct Filesystem {
    /// Size of the whole image in MiB or with a unit, "auto" for what the content needs plus --free, or "min"
    ///
    /// What upper layers hide and --slim leaves out is free space of an "auto" image, and takes no room on disk. In a "min" image it
    /// is not even that: everything else is moved together, which writes it twice.
    #[arg(short, long, value_name = "SIZE", default_value = "auto", value_parser = parse_total)]
    size: ext4::Size,

    /// Writable space beyond the content, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = text::parse_size)]
    free: u64,

    /// At least so many inodes [default: what the content and the free space need]
    #[arg(long, value_name = "N", hide_short_help = true)]
    inodes: Option<u32>,

    /// The filesystem's label, at most 16 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = parse_label)]
    label: String,

    /// The filesystem's UUID [default: follows from the content]
    #[arg(long, hide_short_help = true, value_parser = parse_uuid)]
    uuid: Option<Uuid>,

    /// Lay a journal (a microVM's disk rarely outlives it, so by default there is none)
    #[arg(long)]
    journal: bool,

    /// Let the filesystem grow while it is mounted, too
    #[arg(long, hide_short_help = true)]
    online_resize: bool,

    /// The filesystem
    #[arg(long, value_enum, default_value_t = Format::Ext4)]
    format: Format,

    /// How a squashfs is compressed [default: zstd]
    #[arg(long, value_enum, value_name = "NAME", hide_short_help = true)]
    compression: Option<CompressionChoice>,

    /// How hard it is compressed: zstd has 1 to 22, gzip 1 to 9, xz 0 to 9 [default: 15, 9, 6]
    #[arg(long, value_name = "N", hide_short_help = true)]
    compression_level: Option<u32>,

    /// What a squashfs compresses at once: 4K to 1M, more is smaller and slower to read [default: 128K]
    #[arg(long, value_name = "SIZE", hide_short_help = true, value_parser = parse_block_size)]
    block_size: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Read-write, for any kernel from 4.14 on
    Ext4,
    /// Compressed and read-only, for many VMs that share it
    Squashfs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionChoice {
    /// Small and quick to read
    Zstd,
    /// For kernels that know nothing else
    Gzip,
    /// The quickest to read, and the largest
    Lz4,
    /// The smallest, and by far the slowest to read
    Xz,
}

impl From<CompressionChoice> for squashfs::Compression {
    fn from(choice: CompressionChoice) -> squashfs::Compression {
        match choice {
            CompressionChoice::Zstd => squashfs::Compression::Zstd,
            CompressionChoice::Gzip => squashfs::Compression::Gzip,
            CompressionChoice::Lz4 => squashfs::Compression::Lz4,
            CompressionChoice::Xz => squashfs::Compression::Xz,
        }
    }
}

impl Filesystem {
    /// The format, which ends the name of an image's file.
    pub(crate) fn format(&self) -> &'static str {
        match self.format {
            Format::Ext4 => "ext4",
            Format::Squashfs => "squashfs",
        }
    }

    /// What is to be built; `threads` may compress.
    ///
    /// # Errors
    /// For flags that are not the format's.
    pub(crate) fn to_build(&self, threads: usize) -> Result<build::Filesystem, CliError> {
        let given = match self.format {
            Format::Ext4 => vec![
                ("--compression", self.compression.is_some()),
                ("--compression-level", self.compression_level.is_some()),
                ("--block-size", self.block_size.is_some()),
            ],
            Format::Squashfs => vec![
                ("--size", self.size != ext4::Size::Auto),
                ("--free", self.free != 0),
                ("--inodes", self.inodes.is_some()),
                ("--label", !self.label.is_empty()),
                ("--uuid", self.uuid.is_some()),
                ("--journal", self.journal),
                ("--online-resize", self.online_resize),
            ],
        };
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            let format = self.format();
            return Err(CliError::NotOfFormat { flag, format });
        }
        match self.format {
            Format::Ext4 => Ok(build::Filesystem::Ext4(self.to_ext4())),
            Format::Squashfs => Ok(build::Filesystem::Squashfs(self.to_squashfs(threads)?)),
        }
    }

    fn to_squashfs(&self, threads: usize) -> Result<squashfs::Options, CliError> {
        let compression: squashfs::Compression = self.compression.map(Into::into).unwrap_or_default();
        if let Some(level) = self.compression_level
            && !compression.levels().is_some_and(|levels| levels.contains(&level))
        {
            return Err(CliError::CompressionLevel { compression, level });
        }
        Ok(squashfs::Options {
            compression,
            level: self.compression_level,
            block_size: self.block_size.unwrap_or(squashfs::BLOCK_SIZE_DEFAULT),
            threads,
            ..squashfs::Options::default()
        })
    }

    fn to_ext4(&self) -> ext4::Options {
        ext4::Options {
            size: self.size,
            free: self.free,
            inodes: self.inodes,
            label: self.label.clone().into_bytes(),
            uuid: self.uuid.map(|uuid| uuid.0),
            journal: self.journal,
            online_resize: self.online_resize,
            ..ext4::Options::default()
        }
    }
}

pub(crate) fn parse_total(text: &str) -> Result<ext4::Size, String> {
    match text {
        "auto" => Ok(ext4::Size::Auto),
        "min" => Ok(ext4::Size::Least),
        size => text::parse_size(size)
            .map(ext4::Size::Bytes)
            .map_err(|error| format!("{error}; \"auto\" is what fits, \"min\" the least")),
    }
}

fn parse_label(text: &str) -> Result<String, String> {
    match text.len() <= ext4::LABEL_LEN_MAX && !text.contains('\0') {
        true => Ok(text.to_owned()),
        false => Err(format!("a label has at most {} bytes", ext4::LABEL_LEN_MAX)),
    }
}

/// A UUID in the order of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Uuid([u8; 16]);

fn parse_uuid(text: &str) -> Result<Uuid, String> {
    let well_formed = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let hex = text.replace('-', "");
    match u128::from_str_radix(&hex, 16) {
        Ok(number) if well_formed => Ok(Uuid(number.to_be_bytes())),
        _ => Err("a UUID looks like 123e4567-e89b-12d3-a456-426614174000".to_owned()),
    }
}

/// In bytes, unlike other sizes: nobody means 128 MiB.
fn parse_block_size(text: &str) -> Result<u32, String> {
    let kib = text
        .strip_suffix(['k', 'K'])
        .and_then(|number| number.parse::<u32>().ok());
    let bytes = match (kib, text) {
        (Some(kib), _) => kib.checked_mul(1 << 10),
        (None, "1M" | "1m") => Some(1 << 20),
        (None, bytes) => bytes.parse().ok(),
    };
    bytes
        .filter(|bytes| squashfs::BLOCK_SIZES.contains(bytes) && bytes.is_power_of_two())
        .ok_or_else(|| "expected a power of two from 4K to 1M, in bytes or with a unit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_has_exactly_one_form() {
        let bytes = parse_uuid("00010203-0405-0607-0809-0a0B0c0d0e0f").unwrap().0;
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        for bad in [
            "",
            "000102030405060708090a0b0c0d0e0f",
            "00010203-0405-0607-0809-0a0b0c0d0e0",
            "+0010203-0405-0607-0809-0a0b0c0d0e0f",
            "0001020-30405-0607-0809-0a0b0c0d0e0f",
        ] {
            assert!(parse_uuid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn block_sizes_are_powers_of_two() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4K", 4096),
            ("128k", 131_072),
            ("1M", 1 << 20),
            ("1024K", 1 << 20),
        ] {
            assert_eq!(parse_block_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "128", "5000", "2K", "2M", "3K", "K", "99999999K"] {
            assert!(parse_block_size(bad).is_err(), "{bad}");
        }
    }
}
