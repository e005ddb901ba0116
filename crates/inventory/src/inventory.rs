//! Which packages an image has, and what is whose: the [`Inventory`].

use crate::databases::{Collector, collect};
use crate::{Contents, InventoryError, Listing, NodeId, Package, PackageId, Release};

/// The packages of an image, and which of them owns which node.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    packages: Vec<Package>,
    owners: Vec<Option<PackageId>>,
    release: Option<Release>,
    remarks: Vec<String>,
}

impl Inventory {
    /// Reads every database of packages that the image has.
    ///
    /// # Errors
    /// Where a file of the image cannot be read. What is in the databases is never an error: what cannot be understood is
    /// left out, and told by [`Inventory::remarks`] where that is much.
    pub fn take(listing: &Listing, contents: &dyn Contents) -> Result<Inventory, InventoryError> {
        let mut collector = Collector::new(listing, contents);
        if listing.is_empty() {
            return Ok(Inventory::default());
        }
        let release = ["etc/os-release", "usr/lib/os-release"]
            .into_iter()
            .find_map(|path| collector.find_file(path.as_bytes()))
            .map(|node| collector.read(node))
            .transpose()?
            .flatten()
            .and_then(|bytes| Release::parse(&bytes));
        collect(&mut collector)?;
        let Collector {
            packages,
            owners,
            mut remarks,
            ..
        } = collector;
        remarks.dedup();
        Ok(Inventory {
            packages,
            owners,
            release,
            remarks,
        })
    }

    /// The packages: by ecosystem, and in each in the order of the databases.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Every package with its id.
    pub fn numbered(&self) -> impl Iterator<Item = (PackageId, &Package)> {
        (0..).map(PackageId).zip(&self.packages)
    }

    /// A package. Ids are asked of the inventory that they are of.
    pub fn package(&self, id: PackageId) -> &Package {
        self.packages
            .get(id.index())
            .expect("ids are asked of the inventory that they are of")
    }

    /// Whose a node is. Directories are nobody's.
    pub fn owner(&self, node: NodeId) -> Option<PackageId> {
        self.owners.get(node.index()).copied().flatten()
    }

    /// Whose system it is, where the image says so.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// What was seen and could not be read, in sentences.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}
