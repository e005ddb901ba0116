//! What an inode is.

use std::fmt;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileType {
    /// Holds bytes.
    Regular,
    /// Holds names.
    Directory,
    /// Holds another path.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A unix socket's name.
    Socket,
}

impl FileType {
    /// The letter that `ls -l` begins with; `-` for a regular file.
    pub fn letter(self) -> char {
        match self {
            FileType::Regular => '-',
            FileType::Directory => 'd',
            FileType::Symlink => 'l',
            FileType::CharDevice => 'c',
            FileType::BlockDevice => 'b',
            FileType::Fifo => 'p',
            FileType::Socket => 's',
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            FileType::Regular => "regular file",
            FileType::Directory => "directory",
            FileType::Symlink => "symbolic link",
            FileType::CharDevice => "character device",
            FileType::BlockDevice => "block device",
            FileType::Fifo => "FIFO",
            FileType::Socket => "socket",
        })
    }
}

/// Which device a device node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// Type and permissions (`0o7777`) as `ls -l` writes them: `drwxr-xr-x`.
pub fn mode_text(file_type: FileType, mode: u16) -> String {
    let bit = |mask: u16| mode & mask != 0;
    let mut text = String::from(file_type.letter());
    for (shift, special, letter) in [(6_u16, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(if bit(0o4 << shift) { 'r' } else { '-' });
        text.push(if bit(0o2 << shift) { 'w' } else { '-' });
        text.push(match (bit(0o1 << shift), bit(special)) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
