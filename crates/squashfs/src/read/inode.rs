//! Inodes: an [`Inode`] is one inode, its [`Stat`] what `stat(2)` would say of it.

use firebrick_reader::{DeviceNumber, FileType};
use firebrick_tree::Timestamp;

use super::Filesystem;
use super::ReadAt;
use super::blocks::Cursor;
use super::error::{ReadError, corrupt};
use crate::format::{
    DeviceInode, DirInode, FileInode, InodeHeader, IpcInode, LongDirInode, LongFileInode,
    SQUASHFS_INVALID_FRAG, SQUASHFS_INVALID_XATTR, SymlinkInode, inode_type,
};

/// Longest target of a symbolic link, in bytes: what one path may have.
const TARGET_MAX: u32 = 4096;

fn type_of_inode(kind: u16) -> Option<FileType> {
    Some(match kind {
        inode_type::DIR => FileType::Directory,
        inode_type::REG => FileType::Regular,
        inode_type::SYMLINK => FileType::Symlink,
        inode_type::BLKDEV => FileType::BlockDevice,
        inode_type::CHRDEV => FileType::CharDevice,
        inode_type::FIFO => FileType::Fifo,
        inode_type::SOCKET => FileType::Socket,
        _ => return None,
    })
}

/// What `stat(2)` says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its inode's number.
    pub inode: u32,
    /// What it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits: `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of the content in bytes; of the target for symbolic links; of the listing for directories.
    pub size: u64,
    /// How many names it has.
    pub links: u32,
    /// Last change of the content; squashfs has whole seconds.
    pub mtime: Timestamp,
    /// Of a device node.
    pub device: Option<DeviceNumber>,
}

/// What an inode says of where its content lies.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Nowhere.
    None,
    Directory {
        block: u32,
        offset: u16,
        len: u32,
    },
    File {
        start: u64,
        fragment: Option<(u32, u32)>,
        /// Where the list of blocks is: block of the table and offset in it in one number, and bytes to skip there.
        list: (u64, u16),
    },
    Target(Vec<u8>),
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Inode {
    pub(super) stat: Stat,
    pub(super) content: Content,
    /// The number of its set of attributes.
    pub(super) xattr: Option<u32>,
    /// Where it lies.
    pub(super) reference: u64,
}

impl Inode {
    /// What `stat(2)` would say of it.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Fails unless it is of this type.
    pub(super) fn expect(&self, expected: FileType) -> Result<(), ReadError> {
        match self.stat.file_type == expected {
            true => Ok(()),
            false => Err(ReadError::WrongType {
                inode: self.stat.inode,
                expected,
                found: self.stat.file_type,
            }),
        }
    }
}

/// What follows the header of an inode.
struct Fields {
    size: u64,
    links: u32,
    xattr: u32,
    device: Option<u32>,
    content: Content,
}

impl Fields {
    fn new(size: u64, links: u32, content: Content) -> Fields {
        Fields {
            size,
            links,
            xattr: SQUASHFS_INVALID_XATTR,
            device: None,
            content,
        }
    }
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads an inode at a place in the table of them.
    pub(super) fn inode(&self, reference: u64) -> Result<Inode, ReadError> {
        let mut cursor = self.inode_cursor(reference)?;
        let header: InodeHeader = cursor.take()?;
        let wrong = |fault| corrupt("an inode", reference, fault);
        let kind = header.inode_type.get();
        let (basic, long) = match kind.checked_sub(inode_type::LONG).filter(|basic| *basic > 0) {
            Some(basic) => (basic, true),
            None => (kind, false),
        };
        let file_type = type_of_inode(basic).ok_or_else(|| wrong("it has no type"))?;
        let fields = fields(&mut cursor, file_type, long, reference)?;
        let owner = |place: u16| {
            let id = self.ids.get(usize::from(place)).copied();
            id.ok_or_else(|| wrong("its owner is not in the table of owners"))
        };
        let number = header.inode_number.get();
        if number == 0 || number > self.geometry.inodes {
            return Err(wrong("its number is none"));
        }
        Ok(Inode {
            stat: Stat {
                inode: number,
                file_type,
                mode: header.mode.get() & 0o7777,
                uid: owner(header.uid.get())?,
                gid: owner(header.guid.get())?,
                size: fields.size,
                links: fields.links,
                mtime: Timestamp {
                    seconds: header.mtime.get().into(),
                    nanoseconds: 0,
                },
                device: fields.device.map(|rdev| DeviceNumber {
                    major: (rdev >> 8) & 0xfff,
                    minor: (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
                }),
            },
            content: fields.content,
            xattr: Some(fields.xattr).filter(|xattr| *xattr != SQUASHFS_INVALID_XATTR),
            reference,
        })
    }

    pub(super) fn inode_cursor(&self, reference: u64) -> Result<Cursor<'_, R>, ReadError> {
        let start = self.geometry.inode_table.saturating_add(reference >> 16);
        let offset = u16::try_from(reference & 0xffff).unwrap_or(u16::MAX);
        self.cursor(start, offset, self.geometry.directory_table, "an inode")
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        inode.expect(FileType::Symlink)?;
        match &inode.content {
            Content::Target(target) => Ok(target.clone()),
            _ => Ok(Vec::new()),
        }
    }
}

fn fields<R: ReadAt>(
    cursor: &mut Cursor<'_, R>,
    file_type: FileType,
    long: bool,
    reference: u64,
) -> Result<Fields, ReadError> {
    let mut fields = match (file_type, long) {
        (FileType::Directory, _) => return directory(cursor, long),
        (FileType::Regular, _) => return file(cursor, long, reference),
        (FileType::Symlink, _) => {
            let link: SymlinkInode = cursor.take()?;
            let size = link.symlink_size.get();
            if size == 0 || size > TARGET_MAX {
                return Err(corrupt(
                    "an inode",
                    reference,
                    "its target has a length that none has",
                ));
            }
            let target = cursor.take_bytes(usize::try_from(size).unwrap_or_default())?;
            Fields::new(size.into(), link.nlink.get(), Content::Target(target))
        }
        (FileType::CharDevice | FileType::BlockDevice, _) => {
            let device: DeviceInode = cursor.take()?;
            Fields {
                device: Some(device.rdev.get()),
                ..Fields::new(0, device.nlink.get(), Content::None)
            }
        }
        (FileType::Fifo | FileType::Socket, _) => {
            let ipc: IpcInode = cursor.take()?;
            Fields::new(0, ipc.nlink.get(), Content::None)
        }
    };
    if long {
        fields.xattr = cursor.take_u32()?;
    }
    Ok(fields)
}

fn directory<R: ReadAt>(cursor: &mut Cursor<'_, R>, long: bool) -> Result<Fields, ReadError> {
    if long {
        let dir: LongDirInode = cursor.take()?;
        let content = Content::Directory {
            block: dir.start_block.get(),
            offset: dir.offset.get(),
            len: dir.file_size.get(),
        };
        let mut fields = Fields::new(dir.file_size.get().into(), dir.nlink.get(), content);
        fields.xattr = dir.xattr.get();
        return Ok(fields);
    }
    let dir: DirInode = cursor.take()?;
    let content = Content::Directory {
        block: dir.start_block.get(),
        offset: dir.offset.get(),
        len: dir.file_size.get().into(),
    };
    Ok(Fields::new(dir.file_size.get().into(), dir.nlink.get(), content))
}

fn file<R: ReadAt>(cursor: &mut Cursor<'_, R>, long: bool, reference: u64) -> Result<Fields, ReadError> {
    let fragment = |number: u32, offset: u32| (number != SQUASHFS_INVALID_FRAG).then_some((number, offset));
    if long {
        let file: LongFileInode = cursor.take()?;
        let content = Content::File {
            start: file.start_block.get(),
            fragment: fragment(file.fragment.get(), file.offset.get()),
            list: (reference, 16 + 40),
        };
        let mut fields = Fields::new(file.file_size.get(), file.nlink.get(), content);
        fields.xattr = file.xattr.get();
        return Ok(fields);
    }
    let file: FileInode = cursor.take()?;
    let content = Content::File {
        start: file.start_block.get().into(),
        fragment: fragment(file.fragment.get(), file.offset.get()),
        list: (reference, 16 + 16),
    };
    Ok(Fields::new(file.file_size.get().into(), 1, content))
}
