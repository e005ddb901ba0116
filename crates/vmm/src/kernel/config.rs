//! A kernel's configuration: read from its package, or from the copy that some kernels carry inside.
//!
//! Embedded form (`CONFIG_IKCONFIG`): the text, gzipped, between the markers `IKCFG_ST` and `IKCFG_ED`.

use std::collections::BTreeMap;

use super::decompress::{Compression, decompress};

/// A configuration text longer than this is none.
const CONFIG_LIMIT_BYTES: usize = 4 << 20;

/// Options set in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

/// Something that booting an image needs and a configuration lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The option, such as `CONFIG_OVERLAY_FS`.
    pub option: &'static str,
    /// What will not work.
    pub consequence: &'static str,
}

/// Options and what is lost without them. A module counts as well, for [`super::modules`] brings it along.
const NEEDS: &[Lack] = &[
    Lack {
        option: "CONFIG_ACPI",
        consequence: "the guest finds no device",
    },
    Lack {
        option: "CONFIG_BLK_DEV_INITRD",
        consequence: "no initramfs, so no modules and no writable layer",
    },
    Lack {
        option: "CONFIG_DEVTMPFS",
        consequence: "the guest finds no disk",
    },
    Lack {
        option: "CONFIG_EXT4_FS",
        consequence: "ext4 images do not mount",
    },
    Lack {
        option: "CONFIG_OVERLAY_FS",
        consequence: "no writable layer over the read-only image",
    },
    Lack {
        option: "CONFIG_PVH",
        consequence: "the ELF kernel cannot be started directly",
    },
    Lack {
        option: "CONFIG_SERIAL_8250_CONSOLE",
        consequence: "no console, so no reasons when a boot fails",
    },
    Lack {
        option: "CONFIG_TMPFS",
        consequence: "no writable layer in memory",
    },
    Lack {
        option: "CONFIG_VIRTIO_BLK",
        consequence: "the guest finds no disk",
    },
    Lack {
        option: "CONFIG_VIRTIO_CONSOLE",
        consequence: "no channel to the agent where there is no vsock",
    },
    Lack {
        option: "CONFIG_VIRTIO_MMIO",
        consequence: "the guest finds no virtio device",
    },
];

impl Config {
    /// Reads `CONFIG_X=y` lines; others are passed over.
    pub fn parse(text: &str) -> Config {
        let set = |line: &str| {
            let (option, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((format!("CONFIG_{option}"), value.to_owned()))
        };
        Config(text.lines().filter_map(set).collect())
    }

    /// The configuration text inside a kernel, if it carries one.
    pub fn embedded(vmlinux: &[u8]) -> Option<String> {
        let start = find(vmlinux, b"IKCFG_ST")?.checked_add(8)?;
        let rest = vmlinux.get(start..)?;
        let body = rest.get(..find(rest, b"IKCFG_ED")?)?;
        let text = decompress(Compression::detect(body)?, body, CONFIG_LIMIT_BYTES).ok()?;
        String::from_utf8(text).ok()
    }

    /// The value of an option: `y`, `m`, a number or a quoted text; `None` when it is not set.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    /// What booting an image needs that this kernel has neither built in nor as a module.
    pub fn lacks(&self) -> Vec<Lack> {
        NEEDS
            .iter()
            .filter(|need| !matches!(self.get(need.option), Some("y" | "m")))
            .copied()
            .collect()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn options_that_are_not_set_are_lacking() {
        let all: String = NEEDS.iter().map(|need| format!("{}=m\n", need.option)).collect();
        assert_eq!(Config::parse(&all).lacks(), []);
        let text = all.replace("CONFIG_PVH=m", "# CONFIG_PVH is not set\nCONFIG_HZ=250");
        let config = Config::parse(&text);
        assert_eq!(
            config.lacks().iter().map(|lack| lack.option).collect::<Vec<_>>(),
            ["CONFIG_PVH"]
        );
        assert_eq!(config.get("CONFIG_HZ"), Some("250"));
    }

    #[test]
    fn the_embedded_text_comes_out() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"CONFIG_A=y\n").unwrap();
        let packed = gzip.finish().unwrap();
        let kernel = [b"\x7fELF..IKCFG_ST", &packed[..], b"IKCFG_ED.."].concat();
        assert_eq!(Config::embedded(&kernel).as_deref(), Some("CONFIG_A=y\n"));
        assert_eq!(Config::embedded(&kernel[..kernel.len() - 4]), None);
        assert_eq!(Config::embedded(b"IKCFG_STxxIKCFG_ED"), None);
    }
}
