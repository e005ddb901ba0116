//! Extent trees: which blocks of the image hold a file's blocks.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/ifork.html#extent-tree>. Up to four extents fit the inode;
//! more go to blocks of 340, below as many levels of index blocks as it takes.

use zerocopy::IntoBytes;

use crate::checksum::Crc;
use crate::format::{BLOCK_SIZE, EXT4_EXT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf};
use crate::geometry::{BlockNumber, Run};

/// Most blocks of one initialised extent.
const EXTENT_BLOCKS_MAX: u64 = 32768;
/// Entries that fit `i_block`.
const ROOT_ENTRIES: usize = 4;

/// What the nodes of extent trees look like in a filesystem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeForm {
    /// Bytes of a block.
    pub(crate) block_len: usize,
    /// Whether nodes end in a checksum (`metadata_csum`).
    pub(crate) checksums: bool,
}

impl NodeForm {
    /// As firebrick writes it.
    pub(crate) const OURS: NodeForm = NodeForm {
        block_len: BLOCK_SIZE as usize,
        checksums: true,
    };

    /// Entries that fit a block; what they leave over has always room for a checksum.
    fn entries(self) -> usize {
        (self.block_len - 12) / 12
    }
}

/// A run of a file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block within the file.
    pub file_block: u32,
    /// Where it lies in the image.
    pub start: BlockNumber,
    /// How many blocks, 1 to 32768.
    pub count: u16,
}

/// Appends the extents of a run that holds the file's blocks from `file_block` on, joining the last one if it can.
pub(crate) fn push_run(extents: &mut Vec<Extent>, file_block: u32, run: Run) {
    let mut done = 0;
    if let Some(last) = extents.last_mut()
        && last.start.0 + u64::from(last.count) == run.start.0
        && u64::from(last.file_block) + u64::from(last.count) == u64::from(file_block)
    {
        done = run.count.min(EXTENT_BLOCKS_MAX - u64::from(last.count));
        last.count += u16::try_from(done).expect("bounded by 32768 less what is there");
    }
    while done < run.count {
        let count = (run.count - done).min(EXTENT_BLOCKS_MAX);
        extents.push(Extent {
            file_block: file_block + u32::try_from(done).expect("files have at most 2^32 blocks"),
            start: BlockNumber(run.start.0 + done),
            count: u16::try_from(count).expect("bounded by 32768"),
        });
        done += count;
    }
}

/// How many blocks the tree of so many extents takes beside the inode.
pub(crate) fn tree_block_count(extents: usize, form: NodeForm) -> u64 {
    let (mut level, mut blocks) = (extents, 0);
    while level > ROOT_ENTRIES {
        level = level.div_ceil(form.entries());
        blocks += level as u64;
    }
    blocks
}

/// One entry of a tree node: 12 bytes, and the file block it starts with.
type Entry = (u32, [u8; 12]);

fn header(entries: usize, max: usize, depth: u16) -> ExtentHeader {
    let to_u16 = |value: usize| {
        u16::try_from(value)
            .expect("a node has at most 340 entries")
            .into()
    };
    ExtentHeader {
        eh_magic: EXT4_EXT_MAGIC.into(),
        eh_entries: to_u16(entries),
        eh_max: to_u16(max),
        eh_depth: depth.into(),
        eh_generation: 0.into(),
    }
}

fn leaf_entry(extent: &Extent) -> Entry {
    let leaf = ExtentLeaf {
        ee_block: extent.file_block.into(),
        ee_len: extent.count.into(),
        ee_start_hi: u16::try_from(extent.start.0 >> 32)
            .expect("blocks are numbered with 48 bits")
            .into(),
        ee_start_lo: (extent.start.0 as u32).into(),
    };
    (extent.file_block, leaf.as_bytes().try_into().expect("12 bytes"))
}

fn index_entry(file_block: u32, child: BlockNumber) -> Entry {
    let index = ExtentIndex {
        ei_block: file_block.into(),
        ei_leaf_lo: (child.0 as u32).into(),
        ei_leaf_hi: u16::try_from(child.0 >> 32)
            .expect("blocks are numbered with 48 bits")
            .into(),
        ei_unused: 0.into(),
    };
    (file_block, index.as_bytes().try_into().expect("12 bytes"))
}

/// A tree as bytes: what goes into `i_block`, and its other nodes in the given blocks.
pub(crate) struct Encoded {
    pub(crate) i_block: [u8; 60],
    pub(crate) nodes: Vec<(BlockNumber, Vec<u8>)>,
}

/// Encodes a tree into as many blocks as [`tree_block_count`] said. `crc` is the inode's seed.
pub(crate) fn encode(extents: &[Extent], tree_blocks: &[BlockNumber], form: NodeForm, crc: Crc) -> Encoded {
    let mut free_blocks = tree_blocks.iter().copied();
    let mut nodes = Vec::new();
    let mut entries: Vec<Entry> = extents.iter().map(leaf_entry).collect();
    let mut depth = 0;
    while entries.len() > ROOT_ENTRIES {
        let mut upper = Vec::with_capacity(entries.len().div_ceil(form.entries()));
        for chunk in entries.chunks(form.entries()) {
            let block = free_blocks
                .next()
                .expect("the plan counted the tree's blocks the same way");
            nodes.push((block, node(chunk, depth, form, crc)));
            upper.push(index_entry(chunk[0].0, block));
        }
        entries = upper;
        depth += 1;
    }
    let mut i_block = [0; 60];
    i_block[..12].copy_from_slice(header(entries.len(), ROOT_ENTRIES, depth).as_bytes());
    for (place, (_, bytes)) in entries.iter().enumerate() {
        let at = 12 + place * 12;
        i_block[at..at + 12].copy_from_slice(bytes);
    }
    Encoded { i_block, nodes }
}

fn node(entries: &[Entry], depth: u16, form: NodeForm, crc: Crc) -> Vec<u8> {
    let mut block = Vec::with_capacity(form.block_len);
    block.extend_from_slice(header(entries.len(), form.entries(), depth).as_bytes());
    for (_, bytes) in entries {
        block.extend_from_slice(bytes);
    }
    block.resize(12 + form.entries() * 12, 0);
    if form.checksums {
        let checksum = crc.update(&block).value();
        block.extend_from_slice(&checksum.to_le_bytes());
    }
    block.resize(form.block_len, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_cut_and_neighbours_joined() {
        let mut extents = Vec::new();
        push_run(
            &mut extents,
            0,
            Run {
                start: BlockNumber(1000),
                count: 32760,
            },
        );
        push_run(
            &mut extents,
            32760,
            Run {
                start: BlockNumber(33760),
                count: 20,
            },
        );
        push_run(
            &mut extents,
            40000,
            Run {
                start: BlockNumber(33780),
                count: 1,
            },
        );
        let shown: Vec<_> = extents
            .iter()
            .map(|e| (e.file_block, e.start.0, e.count))
            .collect();
        assert_eq!(shown, [(0, 1000, 32768), (32768, 33768, 12), (40000, 33780, 1)]);
    }

    #[test]
    fn tree_blocks_are_counted_as_they_are_used() {
        for (extents, blocks) in [
            (0, 0),
            (4, 0),
            (5, 1),
            (340, 1),
            (341, 2),
            (1360, 4),
            (1361, 5 + 1),
            (500_000, 1471 + 5 + 2 - 1),
        ] {
            let list: Vec<Extent> = (0..extents)
                .map(|n| Extent {
                    file_block: n * 2,
                    start: BlockNumber(n.into()),
                    count: 1,
                })
                .collect();
            let count = tree_block_count(list.len(), NodeForm::OURS);
            let tree_blocks: Vec<BlockNumber> = (0..count).map(BlockNumber).collect();
            assert_eq!(
                encode(&list, &tree_blocks, NodeForm::OURS, Crc::new())
                    .nodes
                    .len() as u64,
                count,
                "{extents}"
            );
            assert_eq!(count, blocks, "{extents}");
        }
    }
}
