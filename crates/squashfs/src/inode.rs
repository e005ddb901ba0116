//! Inodes as they go to the table: the basic form where it can say everything, else the extended one.

use zerocopy::{Immutable, IntoBytes};

use crate::format::{
    DeviceInode, DirIndex, DirInode, FileInode, InodeHeader, IpcInode, LongDirInode, LongFileInode,
    SQUASHFS_INVALID_FRAG, SQUASHFS_INVALID_XATTR, SymlinkInode, inode_type,
};
use crate::metadata::Position;
use crate::plan::Node;

/// A file's content, as far as its inode says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileContent<'a> {
    pub(crate) size: u64,
    /// Where its blocks start, in bytes from the start of the image.
    pub(crate) start: u64,
    /// Stored lengths of its blocks; 0 for blocks of zeros.
    pub(crate) blocks: &'a [u32],
    /// The fragment that holds the tail, and the offset in it.
    pub(crate) fragment: Option<(u32, u32)>,
    /// How many bytes are in blocks of zeros.
    pub(crate) sparse: u64,
}

/// A directory's listing, as far as its inode says.
#[derive(Clone, Debug)]
pub(crate) struct DirContent<'a> {
    pub(crate) at: Position,
    pub(crate) len: u32,
    /// Offset of each header that the index names, start of the metadata block that holds it, first name.
    pub(crate) index: Vec<(u32, u32, &'a [u8])>,
}

/// Encodes inodes one after the other.
pub(crate) struct Encoded(pub(crate) Vec<u8>);

impl Encoded {
    fn new(node: &Node, number: u32, kind: u16, long: bool) -> Encoded {
        let header = InodeHeader {
            inode_type: (kind + if long { inode_type::LONG } else { 0 }).into(),
            mode: node.mode.into(),
            uid: node.uid.into(),
            guid: node.gid.into(),
            mtime: node.mtime.into(),
            inode_number: number.into(),
        };
        let mut encoded = Encoded(Vec::with_capacity(64));
        encoded.put(&header);
        encoded
    }

    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, fields: &T) {
        self.0.extend_from_slice(fields.as_bytes());
    }

    fn put_xattr(&mut self, node: &Node, long: bool) {
        if long {
            self.0.extend(node.xattr.to_le_bytes());
        }
    }
}

fn has_xattrs(node: &Node) -> bool {
    node.xattr != SQUASHFS_INVALID_XATTR
}

/// A regular file.
pub(crate) fn file(node: &Node, number: u32, content: &FileContent<'_>) -> Vec<u8> {
    let (fragment, offset) = content.fragment.unwrap_or((SQUASHFS_INVALID_FRAG, 0));
    let small = (u32::try_from(content.start), u32::try_from(content.size));
    let mut encoded = match small {
        (Ok(start), Ok(size)) if node.links == 1 && !has_xattrs(node) && content.sparse == 0 => {
            let mut encoded = Encoded::new(node, number, inode_type::REG, false);
            encoded.put(&FileInode {
                start_block: start.into(),
                fragment: fragment.into(),
                offset: offset.into(),
                file_size: size.into(),
            });
            encoded
        }
        _ => {
            let mut encoded = Encoded::new(node, number, inode_type::REG, true);
            encoded.put(&LongFileInode {
                start_block: content.start.into(),
                file_size: content.size.into(),
                sparse: content.sparse.into(),
                nlink: node.links.into(),
                fragment: fragment.into(),
                offset: offset.into(),
                xattr: node.xattr.into(),
            });
            encoded
        }
    };
    encoded
        .0
        .extend(content.blocks.iter().flat_map(|len| len.to_le_bytes()));
    encoded.0
}

/// A directory.
pub(crate) fn directory(node: &Node, number: u32, content: &DirContent<'_>) -> Vec<u8> {
    // As if `.` and `..` took three bytes of it.
    let len = content.len + 3;
    match u16::try_from(len) {
        Ok(len) if content.index.is_empty() && !has_xattrs(node) => {
            let mut encoded = Encoded::new(node, number, inode_type::DIR, false);
            encoded.put(&DirInode {
                start_block: content.at.block.into(),
                nlink: node.links.into(),
                file_size: len.into(),
                offset: content.at.offset.into(),
                parent_inode: node.parent.into(),
            });
            encoded.0
        }
        _ => {
            let mut encoded = Encoded::new(node, number, inode_type::DIR, true);
            let count = u16::try_from(content.index.len()).expect("listings are within LISTING_MAX");
            encoded.put(&LongDirInode {
                nlink: node.links.into(),
                file_size: len.into(),
                start_block: content.at.block.into(),
                parent_inode: node.parent.into(),
                i_count: count.into(),
                offset: content.at.offset.into(),
                xattr: node.xattr.into(),
            });
            for (index, start_block, name) in &content.index {
                encoded.put(&DirIndex {
                    index: (*index).into(),
                    start_block: (*start_block).into(),
                    size: u32::try_from(name.len() - 1)
                        .expect("names have 1 to 255 bytes")
                        .into(),
                });
                encoded.put(*name);
            }
            encoded.0
        }
    }
}

/// A symbolic link.
pub(crate) fn symlink(node: &Node, number: u32, target: &[u8]) -> Vec<u8> {
    let long = has_xattrs(node);
    let mut encoded = Encoded::new(node, number, inode_type::SYMLINK, long);
    encoded.put(&SymlinkInode {
        nlink: node.links.into(),
        symlink_size: u32::try_from(target.len())
            .expect("targets have at most 4095 bytes")
            .into(),
    });
    encoded.put(target);
    encoded.put_xattr(node, long);
    encoded.0
}

/// A device node; its numbers were checked when it was planned.
pub(crate) fn device(node: &Node, number: u32, kind: u16, major: u32, minor: u32) -> Vec<u8> {
    let long = has_xattrs(node);
    let mut encoded = Encoded::new(node, number, kind, long);
    encoded.put(&DeviceInode {
        nlink: node.links.into(),
        // The kernel's `new_encode_dev`.
        rdev: ((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)).into(),
    });
    encoded.put_xattr(node, long);
    encoded.0
}

/// A named pipe or a socket.
pub(crate) fn ipc(node: &Node, number: u32, kind: u16) -> Vec<u8> {
    let long = has_xattrs(node);
    let mut encoded = Encoded::new(node, number, kind, long);
    encoded.put(&IpcInode {
        nlink: node.links.into(),
    });
    encoded.put_xattr(node, long);
    encoded.0
}
