//! Link counts, and whether every folder can be reached from the root.

use std::collections::HashSet;

use super::{Checker, Finding, named};
use crate::format::{EXT4_ROOT_INO, ro_compat};
use crate::read::{FileType, Place, ReadAt};

/// How many names are counted (`EXT4_LINK_MAX`). A folder with more says 1.
const LINK_MAX: u64 = 65000;

impl<R: ReadAt> Checker<'_, R> {
    /// Compares what each inode says of its names with those that there are.
    pub(super) fn links(&mut self) {
        let unreached = self.ways();
        let many = self.filesystem.geometry.features.ro_compat(ro_compat::DIR_NLINK);
        let mut wrong = Vec::new();
        for (&inode, known) in &self.inodes {
            if self.is_orphan_file(inode) || unreached.contains(&inode) {
                continue;
            }
            let (stored, computed) = (known.links, known.names);
            if computed == 0 {
                wrong.push(Finding::Unconnected { inode });
                continue;
            }
            let is_folder = known.kind == Some(FileType::Directory);
            let expected = match computed {
                LINK_MAX.. if is_folder && many && computed > LINK_MAX => 1,
                _ => computed,
            };
            if u64::from(stored) != expected {
                wrong.push(Finding::Links {
                    inode,
                    stored,
                    computed: expected,
                });
            }
        }
        for finding in wrong {
            if let Finding::Links { inode, computed, .. } = finding {
                match u16::try_from(computed) {
                    Ok(links) => self.report.fixes.links(inode, links),
                    Err(_) => self.report.beyond_repair = true,
                }
            }
            self.report.add(finding);
        }
    }

    /// Follows every folder up to the root. Gives those that do not get there.
    fn ways(&mut self) -> HashSet<u32> {
        let mut reached = HashSet::from([EXT4_ROOT_INO]);
        let mut unreached = HashSet::new();
        for &start in self.folders.keys() {
            let mut way = Vec::new();
            let mut here = start;
            // What was on this way already, or has no parent, leads nowhere.
            let mut on_way = HashSet::new();
            while !reached.contains(&here) && !unreached.contains(&here) && on_way.insert(here) {
                way.push(here);
                here = self.folders.get(&here).map_or(0, |folder| folder.parent);
            }
            if reached.contains(&here) {
                reached.extend(way);
            } else {
                unreached.extend(way);
            }
        }
        let mut wrong = Vec::new();
        for (&number, folder) in &self.folders {
            let parent = match number {
                EXT4_ROOT_INO => EXT4_ROOT_INO,
                _ => folder.parent,
            };
            if unreached.contains(&number) {
                self.report.add(Finding::Unconnected { inode: number });
            } else if folder.dotdot != parent {
                wrong.push(number);
            }
        }
        for number in wrong {
            let place = Place::Directory {
                inode: named(number),
                block: None,
            };
            let fault = "its .. is not the folder that it is in";
            self.report.wrong(place, fault);
        }
        unreached
    }
}
