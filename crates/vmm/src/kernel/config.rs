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
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_what_is_set_has_a_value() {
        let config = Config::parse("# CONFIG_PVH is not set\nCONFIG_HZ=250\nCONFIG_A=m\nx\n");
        assert_eq!(config.get("CONFIG_HZ"), Some("250"));
        assert_eq!(config.get("CONFIG_A"), Some("m"));
        assert_eq!(config.get("CONFIG_PVH"), None);
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
