//! What can be wrong with the documents that have no digest: the names, and the list of blobs that are to be removed.

use firebrick_digest::Digest;

use super::{Check, Checked, Fault, Finding};
use crate::error::StoreError;
use crate::index::{is_referrer, look, name_of, version};
use crate::ledger::{LEDGER_KEY, LEDGER_MAX, Ledger};
use crate::objects::{ObjectError, Objects};

/// Something wrong with a document that has no digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which document, or which part of it.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it was put right.
    pub repaired: bool,
}

impl Check<'_> {
    /// Looks at the list; an empty one takes the place of one that cannot be read.
    ///
    /// Nothing is lost with it but for how long blobs have been needless. Its generation is one that no list has had, so that
    /// publishers who saw another look again for what they need.
    pub(super) fn list(&self, objects: &dyn Objects, checked: &mut Checked) -> Result<(), StoreError> {
        let problem = match Ledger::read(objects) {
            Ok(_) => return Ok(()),
            Err(StoreError::Corrupt { problem, .. }) => problem,
            Err(StoreError::Object(ObjectError::TooLarge { limit, .. })) => {
                format!("it has more than {limit} bytes")
            }
            Err(error) => return Err(error),
        };
        if self.options.repair {
            let generation = look(objects)?.0.epoch().wrapping_add(1 << 32);
            let empty = Ledger {
                generation,
                ..Ledger::default()
            };
            // What is too large to be read cannot be swapped.
            match objects.get(LEDGER_KEY, LEDGER_MAX) {
                Ok(Some((_, found))) => _ = empty.write(objects, Some(&found), objects.can_swap()?)?,
                _ => objects.delete(LEDGER_KEY)?,
            }
        }
        checked.flaws.push(Flaw {
            what: LEDGER_KEY.to_owned(),
            problem,
            repaired: self.options.repair && Ledger::read(objects).is_ok(),
        });
        Ok(())
    }

    /// Entries of the names that no command can name, and whose manifests are missing: nobody could remove them, and nothing could be
    /// collected as long as they are there.
    pub(super) fn lost_entries(
        &self,
        objects: &dyn Objects,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let is_lost = |finding: &Finding| {
            finding.fault == Fault::Missing && !finding.repaired && finding.images.is_empty()
        };
        let mut lost = look(objects)?.0.manifests;
        lost.retain(|entry| {
            let mut findings = checked.findings.iter();
            let is_missing = findings.any(|finding| finding.blob == entry.digest && is_lost(finding));
            is_missing && !is_referrer(entry) && version(entry).is_none()
        });
        if lost.is_empty() {
            return Ok(());
        }
        let digests: Vec<Digest> = lost.iter().map(|entry| entry.digest).collect();
        checked
            .findings
            .retain(|finding| !(digests.contains(&finding.blob) && is_lost(finding)));
        if self.options.repair {
            self.store.backend().forget(&digests)?;
        }
        checked.flaws.extend(lost.iter().map(|entry| Flaw {
            what: format!(
                "entry {:?} of index.json",
                name_of(entry).map_or("", String::as_str)
            ),
            problem: format!(
                "no command can name it, and its manifest {} is missing",
                entry.digest
            ),
            repaired: self.options.repair,
        }));
        Ok(())
    }

    /// Names that are said to mean two versions at once.
    pub(super) fn torn_names(&self, checked: &mut Checked) {
        let mut last = None;
        for now in self.versions.iter().filter(|version| version.current) {
            if last == Some(&now.tagged) {
                checked.flaws.push(Flaw {
                    what: format!("{} in index.json", now.tagged),
                    problem: "it has two current versions".to_owned(),
                    repaired: false,
                });
            }
            last = Some(&now.tagged);
        }
    }
}
