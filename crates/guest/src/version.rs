//! The version of this guest, for `status` and for whoever looks at the file.

/// What stands in the file, with the version behind it: a host can tell a guest's version without running it.
const MARK: &str = concat!("firebrick-guest version ", env!("CARGO_PKG_VERSION"), "\n");

/// The version alone.
pub fn version() -> &'static str {
    // The whole text must be in the file, and not only the part that is used here.
    let mark = core::hint::black_box(MARK);
    mark.trim_end()
        .strip_prefix(firebrick_protocol::GUEST_VERSION_MARK)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_package_s() {
        assert_eq!(super::version(), env!("CARGO_PKG_VERSION"));
    }
}
