//! What an image rarely needs to run: rules, and how much each would save.

use crate::{Bytes, Listing, NodeId};

/// A kind of files.
pub(super) struct Rule {
    /// What they are.
    pub(super) name: &'static str,
    /// Where they lie, for people.
    pub(super) place: &'static str,
    /// Whether a path is one of them.
    is: fn(&[u8]) -> bool,
}

pub(super) const RULES: [Rule; 7] = [
    Rule {
        name: "Documentation",
        place: "/usr/share/doc without licences, /usr/share/info",
        is: |path| {
            (path.starts_with(b"usr/share/doc/") && !path.ends_with(b"/copyright"))
                || path.starts_with(b"usr/share/info/")
        },
    },
    Rule {
        name: "Manual pages",
        place: "/usr/share/man",
        is: |path| path.starts_with(b"usr/share/man/"),
    },
    Rule {
        name: "Translations",
        place: "/usr/share/locale",
        is: |path| path.starts_with(b"usr/share/locale/"),
    },
    Rule {
        name: "Caches and package lists",
        place: "/var/cache, /var/lib/apt/lists, /root/.cache, /root/.npm",
        is: |path| {
            let places: [&[u8]; 4] = [
                b"var/cache/",
                b"var/lib/apt/lists/",
                b"root/.cache/",
                b"root/.npm/",
            ];
            places.iter().any(|place| path.starts_with(place))
        },
    },
    Rule {
        name: "Logs and temporary files",
        place: "/var/log, /tmp, /var/tmp",
        is: |path| {
            let places: [&[u8]; 3] = [b"var/log/", b"tmp/", b"var/tmp/"];
            places.iter().any(|place| path.starts_with(place))
        },
    },
    Rule {
        name: "Compiled Python",
        place: "__pycache__, made again when wanted",
        is: |path| path.ends_with(b".pyc") || path.ends_with(b".pyo"),
    },
    Rule {
        name: "To build with: headers and static libraries",
        place: "/usr/include, lib*.a",
        is: |path| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            path.starts_with(b"usr/include/") || (name.starts_with(b"lib") && name.ends_with(b".a"))
        },
    },
];

/// What each rule would save, in their order. A file counts for the first rule that it is of.
pub(super) fn sums(listing: &Listing, own: impl Fn(NodeId) -> Bytes) -> [Bytes; RULES.len()] {
    let mut sums = [Bytes::default(); RULES.len()];
    for id in listing.ids() {
        let bytes = own(id);
        if bytes.files == 0 {
            continue;
        }
        let path = listing.path(id);
        let rule = RULES.iter().position(|rule| (rule.is)(&path));
        if let Some(sum) = rule.and_then(|rule| sums.get_mut(rule)) {
            sum.add(bytes);
        }
    }
    sums
}
