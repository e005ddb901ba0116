//! Directory blocks: one block of names, or leaves ordered by hash below an index (htree).
//!
//! ```text
//! one block:  . │ .. │ names … │ checksum
//! htree:      block 0 (root): . │ .. │ (hash, block)…      leaves: names … │ checksum
//!             or root ─► index blocks ─► leaves
//! list:       . │ .. │ names …      names …      where a filesystem of others has no index
//! ```
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/directory.html>. The same [`Packing`] gives the number of
//! blocks to the plan and the bytes to the writer, so the two cannot disagree.

use zerocopy::IntoBytes;

use crate::checksum::Crc;
use crate::format::{BLOCK_SIZE, DirEntryHeader, file_type};
use crate::hash::{NameHash, Signs, half_md4};

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirName<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: u32,
    pub(crate) file_type: u8,
}

/// Bytes of the pretended entry that ends a leaf and holds its checksum (`struct ext4_dir_entry_tail`).
const TAIL: usize = 12;
/// `.` and `..`, 12 bytes each.
const DOTS: usize = 24;
/// `DX_HASH_HALF_MD4`; the superblock's flag says whether names are signed bytes.
const HASH_VERSION: u8 = 1;

/// `s_hash_seed` of every filesystem that we write: the same names fall into the same blocks in all of them.
pub(crate) const HASH_SEED: [u32; 4] = [
    u32::from_le_bytes(*b"fire"),
    u32::from_le_bytes(*b"bric"),
    u32::from_le_bytes(*b"k's "),
    u32::from_le_bytes(*b"seed"),
];

/// What directory blocks look like in a filesystem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirForm {
    /// Bytes of a block.
    pub(crate) block_len: usize,
    /// Whether blocks end in a checksum (`metadata_csum`).
    pub(crate) checksums: bool,
    /// Whether names say what they name (`filetype`).
    pub(crate) file_types: bool,
    /// How names are hashed; `None` where directories have no index.
    pub(crate) index: Option<(Signs, [u32; 4])>,
}

impl DirForm {
    /// As firebrick writes it.
    pub(crate) fn ours() -> DirForm {
        DirForm {
            block_len: BLOCK_SIZE as usize,
            checksums: true,
            file_types: true,
            index: Some((Signs::Unsigned, HASH_SEED)),
        }
    }

    /// Bytes of a leaf for names.
    fn leaf_space(self) -> usize {
        self.block_len - if self.checksums { TAIL } else { 0 }
    }

    /// Entries of the index's root: behind the dots and 8 bytes of its own, before 8 bytes of checksum.
    fn root_limit(self) -> usize {
        (self.block_len - DOTS - 8) / 8 - usize::from(self.checksums)
    }

    /// Entries of an index block: behind a pretended empty entry, before the checksum.
    fn node_limit(self) -> usize {
        (self.block_len - 8) / 8 - usize::from(self.checksums)
    }
}

/// Bytes that a name takes: header, name, up to a multiple of 4.
fn entry_len(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

/// How a directory's names fall into blocks.
#[derive(Debug)]
pub(crate) struct Packing<'a> {
    form: DirForm,
    names: Vec<DirName<'a>>,
    /// The leaves, as ranges of `names`, and the hash each starts with.
    leaves: Vec<Leaf>,
    /// Whether an index leads to the leaves. Without one the first leaf holds the dots too.
    indexed: bool,
    /// Index blocks between root and leaves: none or, for very large directories, one level.
    nodes: usize,
}

#[derive(Debug)]
struct Leaf {
    end: usize,
    /// Key in the index. Its lowest bit says that names of this hash started in the leaf before.
    key: u32,
}

/// A directory of more names than two levels of index can order.
#[derive(Debug)]
pub(crate) struct TooManyNames;

impl<'a> Packing<'a> {
    /// Packs names, which come in byte order.
    pub(crate) fn new(names: Vec<DirName<'a>>, form: DirForm) -> Result<Packing<'a>, TooManyNames> {
        let total: usize = names.iter().map(|entry| entry_len(entry.name)).sum();
        match form.index {
            Some((signs, seed)) if DOTS + total > form.leaf_space() => {
                Packing::indexed(names, form, signs, seed)
            }
            _ => Ok(Packing::list(names, form)),
        }
    }

    /// One leaf after the other, as many as it takes.
    fn list(names: Vec<DirName<'a>>, form: DirForm) -> Packing<'a> {
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut used = DOTS;
        for (place, entry) in names.iter().enumerate() {
            let len = entry_len(entry.name);
            if used + len > form.leaf_space() {
                leaves.push(Leaf { end: place, key: 0 });
                used = 0;
            }
            used += len;
        }
        let end = names.len();
        leaves.push(Leaf { end, key: 0 });
        Packing {
            form,
            names,
            leaves,
            indexed: false,
            nodes: 0,
        }
    }

    fn indexed(
        mut names: Vec<DirName<'a>>,
        form: DirForm,
        signs: Signs,
        seed: [u32; 4],
    ) -> Result<Packing<'a>, TooManyNames> {
        let mut hashed: Vec<(NameHash, DirName<'a>)> = names
            .drain(..)
            .map(|entry| (half_md4(entry.name, seed, signs), entry))
            .collect();
        // Stable, so names of equal hashes stay in byte order.
        hashed.sort_by_key(|(hash, _)| *hash);
        let mut leaves: Vec<Leaf> = Vec::new();
        let (mut used, mut key) = (0, 0);
        for (place, (hash, entry)) in hashed.iter().enumerate() {
            let len = entry_len(entry.name);
            if used + len > form.leaf_space() {
                leaves.push(Leaf { end: place, key });
                let continued = place > 0 && hashed[place - 1].0.major == hash.major;
                key = hash.major | u32::from(continued);
                used = 0;
            }
            used += len;
        }
        leaves.push(Leaf {
            end: hashed.len(),
            key,
        });
        names.extend(hashed.into_iter().map(|(_, entry)| entry));
        let nodes = if leaves.len() <= form.root_limit() {
            0
        } else {
            leaves.len().div_ceil(form.node_limit())
        };
        if nodes > form.root_limit() {
            return Err(TooManyNames);
        }
        Ok(Packing {
            form,
            names,
            leaves,
            indexed: true,
            nodes,
        })
    }

    /// Whether there is an index (`EXT4_INDEX_FL`).
    pub(crate) fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// How many blocks the directory has.
    pub(crate) fn block_count(&self) -> u64 {
        let index = if self.indexed { 1 + self.nodes } else { 0 };
        (index + self.leaves.len()) as u64
    }

    /// All blocks one after the other. `crc` is the directory inode's seed.
    pub(crate) fn bytes(&self, inode: u32, parent: u32, crc: Crc) -> Vec<u8> {
        let form = self.form;
        let mut out = Vec::with_capacity(self.block_count() as usize * form.block_len);
        let dots = [(&b"."[..], inode), (&b".."[..], parent)].map(|(name, inode)| DirName {
            name,
            inode,
            file_type: if form.file_types { file_type::DIR } else { 0 },
        });
        let mut dots_of_list = (!self.indexed).then_some(&dots).into_iter().flatten();
        if self.indexed {
            // Blocks: the root, index blocks if any, the leaves.
            let first_leaf = 1 + self.nodes;
            let leaf_entries: Vec<(u32, u32)> = self
                .leaves
                .iter()
                .zip(first_leaf..)
                .map(|(leaf, block)| (leaf.key, block as u32))
                .collect();
            if self.nodes == 0 {
                out.extend(root(form, &dots, 0, &leaf_entries, crc));
            } else {
                let chunks: Vec<&[(u32, u32)]> = leaf_entries.chunks(form.node_limit()).collect();
                let upper: Vec<(u32, u32)> = chunks
                    .iter()
                    .zip(1..)
                    .map(|(chunk, block)| (chunk[0].0, block))
                    .collect();
                out.extend(root(form, &dots, 1, &upper, crc));
                for chunk in chunks {
                    out.extend(node(form, chunk, crc));
                }
            }
        }
        let mut start = 0;
        for packed in &self.leaves {
            let names = self.names[start..packed.end].iter();
            out.extend(leaf(form, dots_of_list.by_ref().chain(names), crc));
            start = packed.end;
        }
        out
    }
}

fn put_entry(block: &mut [u8], offset: usize, rec_len: usize, entry: &DirName<'_>) {
    let header = DirEntryHeader {
        inode: entry.inode.into(),
        rec_len: u16::try_from(rec_len)
            .expect("blocks have at most 4096 bytes")
            .into(),
        name_len: u8::try_from(entry.name.len()).expect("names have at most 255 bytes"),
        file_type: entry.file_type,
    };
    block[offset..offset + 8].copy_from_slice(header.as_bytes());
    block[offset + 8..offset + 8 + entry.name.len()].copy_from_slice(entry.name);
}

/// A block of names; the last one's record reaches to the checksum.
fn leaf<'a>(form: DirForm, names: impl Iterator<Item = &'a DirName<'a>>, crc: Crc) -> Vec<u8> {
    let mut block = vec![0; form.block_len];
    let space = form.leaf_space();
    let mut names = names.peekable();
    let mut offset = 0;
    while let Some(entry) = names.next() {
        let len = if names.peek().is_some() {
            entry_len(entry.name)
        } else {
            space - offset
        };
        put_entry(&mut block, offset, len, entry);
        offset += len;
    }
    if !form.checksums {
        return block;
    }
    let tail = DirEntryHeader {
        inode: 0.into(),
        rec_len: (TAIL as u16).into(),
        name_len: 0,
        file_type: file_type::CHECKSUM,
    };
    block[space..space + 8].copy_from_slice(tail.as_bytes());
    let checksum = crc.update(&block[..space]).value();
    block[space + 8..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// The index's first block (`struct dx_root`).
fn root(form: DirForm, dots: &[DirName<'_>; 2], levels: u8, entries: &[(u32, u32)], crc: Crc) -> Vec<u8> {
    let mut block = vec![0; form.block_len];
    put_entry(&mut block, 0, 12, &dots[0]);
    // To readers without an index, everything behind `..` is its unused space.
    put_entry(&mut block, 12, form.block_len - 12, &dots[1]);
    block[DOTS + 4..DOTS + 8].copy_from_slice(&[HASH_VERSION, 8, levels, 0]);
    put_index(form, &mut block, DOTS + 8, form.root_limit(), entries, crc);
    block
}

/// An index block below the root (`struct dx_node`).
fn node(form: DirForm, entries: &[(u32, u32)], crc: Crc) -> Vec<u8> {
    let mut block = vec![0; form.block_len];
    // To readers without an index, one unused entry as long as the block.
    let unused = DirName {
        name: b"",
        inode: 0,
        file_type: 0,
    };
    put_entry(&mut block, 0, form.block_len, &unused);
    put_index(form, &mut block, 8, form.node_limit(), entries, crc);
    block
}

/// The entries of an index block: limit and count in place of the first key, then block and key pairs, then a
/// checksum over all that is used (`ext4_dx_csum`).
fn put_index(form: DirForm, block: &mut [u8], offset: usize, limit: usize, entries: &[(u32, u32)], crc: Crc) {
    let to_u16 = |value: usize| {
        u16::try_from(value)
            .expect("an index block has at most 511 entries")
            .to_le_bytes()
    };
    for (place, (key, child)) in entries.iter().enumerate() {
        let at = offset + place * 8;
        block[at..at + 4].copy_from_slice(&key.to_le_bytes());
        block[at + 4..at + 8].copy_from_slice(&child.to_le_bytes());
    }
    block[offset..offset + 2].copy_from_slice(&to_u16(limit));
    block[offset + 2..offset + 4].copy_from_slice(&to_u16(entries.len()));
    if !form.checksums {
        return;
    }
    let used = offset + entries.len() * 8;
    // The tail's first word is reserved and the second, the checksum itself, counts as zero.
    let checksum = crc.update(&block[..used]).update(&[0; 8]).value();
    let tail = offset + limit * 8;
    block[tail + 4..tail + 8].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT_LIMIT: usize = 507;

    fn packing(count: usize, name_len: usize) -> u64 {
        let names: Vec<String> = (0..count).map(|n| format!("{n:0name_len$}")).collect();
        let names = names
            .iter()
            .map(|name| DirName {
                name: name.as_bytes(),
                inode: 12,
                file_type: 1,
            })
            .collect();
        let packing = Packing::new(names, DirForm::ours()).unwrap();
        let bytes = packing.bytes(11, 2, Crc::new());
        assert_eq!(bytes.len() as u64, packing.block_count() * BLOCK_SIZE);
        packing.block_count()
    }

    #[test]
    fn index_starts_with_the_second_block() {
        // 4084 bytes less 24 for the dots hold 203 names of 12 bytes (20 each).
        assert_eq!(packing(203, 12), 1);
        // 204 of them would just fit a leaf without dots.
        assert_eq!(packing(204, 12), 1 + 1);
        assert_eq!(packing(205, 12), 1 + 2);
        assert_eq!(packing(0, 1), 1);
    }

    #[test]
    fn limits_are_the_kernels() {
        assert_eq!(DirForm::ours().root_limit(), ROOT_LIMIT);
        assert_eq!(DirForm::ours().node_limit(), 510);
    }

    #[test]
    fn a_second_level_starts_past_the_roots_limit() {
        // 15 names of 255 bytes (264 each) fit a leaf.
        assert_eq!(packing(15 * ROOT_LIMIT, 255), 1 + ROOT_LIMIT as u64);
        assert_eq!(packing(15 * ROOT_LIMIT + 1, 255), 1 + 1 + ROOT_LIMIT as u64 + 1);
    }
}
