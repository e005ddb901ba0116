//! RPM: its database is seen, and not read.

use super::Collector;
use crate::{InventoryError, printable};

/// Where databases lie: SQLite, ndb and Berkeley DB, in the older and the newer place.
const DATABASES: [&str; 6] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
];

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    let found = DATABASES
        .into_iter()
        .find_map(|path| collector.find_file(path.as_bytes()));
    if let Some(node) = found {
        let path = printable(&collector.listing.path(node));
        collector.remark(format!(
            "/{path} is an RPM database, which firebrick does not read: its packages are left out"
        ));
    }
    Ok(())
}
