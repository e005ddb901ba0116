//! Debian itself, from the mirror that this host has.

use std::path::Path;

use firebrick_bootstrap::{Base, PackageSet};

use firebrick_testkit::oracle::leave_out;

use crate::{Place, digest, list};

/// Both releases, each twice, and once more with what Java trusts, which its packages' scripts make: a minute each, and the mirror may
/// be slow. `bench/create` asks for it.
#[test]
#[ignore = "takes many minutes, and a mirror"]
fn debian_is_installed_twice_the_same() {
    if !Path::new("/etc/debian_version").exists() {
        leave_out("Debian itself: this is none");
        return;
    }
    let place = Place::new();
    for (suite, packages) in [
        ("bookworm", &[][..]),
        ("trixie", &[]),
        ("bookworm", &["default-jre-headless"]),
    ] {
        let set = PackageSet {
            suite: suite.to_owned(),
            packages: packages.iter().map(ToString::to_string).collect(),
            ..PackageSet::new(Base::Debian)
        };
        let tar = place.install(&set).unwrap();
        assert!(list(&tar).contains("./var/lib/dpkg/status"), "{suite}");
        assert_eq!(digest(&place.install(&set).unwrap()), digest(&tar), "{suite}");
    }
}
