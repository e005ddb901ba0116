//! The agent's methods on files: their parameters and results. `docs/protocol-jsonrpc.md` is the contract.
//!
//! `read_file`, `write_file` and `list_dir` are for text and small things, in one message. `put` and `get` are *transfers*:
//! bytes flow as those of a job do, in `stdin` and `output` notifications under the request's id, so they may be any bytes
//! and any number of them. A *tree* travels as a tar.
//!
//! A *place* is a path, or a path below a *root*: nothing outside of the root is then reached, whatever symlinks are there.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::agent::Data;

/// The largest file that `read_file` gives.
pub const MAX_READ_BYTES: u64 = 10 * 1024 * 1024;

/// The most entries that `list_dir` gives.
pub const MAX_LIST_ENTRIES: usize = 50_000;

/// Parameters of `read_file` and `list_dir`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathParams {
    /// The file or folder.
    pub path: String,
}

/// The result of `read_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The text.
    pub content: String,
}

/// Parameters of `write_file`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// The file; folders above it are made.
    pub path: String,
    /// Its whole text.
    pub content: String,
}

/// The result of `write_file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Always true.
    pub success: bool,
}

/// The result of `list_dir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What is in the folder, by name.
    pub entries: Vec<ListEntry>,
}

/// An entry of a [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder; a symlink is none.
    pub is_dir: bool,
    /// A file's length in bytes, else 0.
    pub size: u64,
}

/// Where something is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The path; below `root`, if there is one.
    pub path: String,
    /// The folder that holds the path: then it has no `..`, and no symlink on the way is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

impl Place {
    /// A place by its path alone.
    pub fn at(path: impl Into<String>) -> Place {
        Place {
            path: path.into(),
            root: None,
        }
    }
}

/// Parameters of `put`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The file, or with `tree` the folder, which is made if it is missing.
    #[serde(flatten)]
    pub place: Place,
    /// What comes is a tar, whose entries go below the folder.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub tree: bool,
    /// The file's permission bits; else those of the file that it replaces, else 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// `user[:group]` who shall own what is put; else for a file the agent, for a tree whom the tar names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Make the folders above that are missing.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub parents: bool,
}

/// Parameters of `get`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The file, or with `tree` a folder or file.
    #[serde(flatten)]
    pub place: Place,
    /// Send a tar of it, with names below `.`; else the file's bytes.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub tree: bool,
    /// Send the bytes as they are, behind lines that say how many.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub raw: bool,
}

/// The result of `put` and `get`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// The bytes of all files' contents.
    pub bytes: u64,
    /// How many files, folders and other things.
    pub entries: u64,
    /// What could not be part of a tar: sockets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Files that became shorter or longer while they were read; they have the length that they had first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Parameters of `stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatParams {
    /// What.
    #[serde(flatten)]
    pub place: Place,
    /// If it is a symlink, tell what it leads to; not below a root.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub follow: bool,
}

/// The result of `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// When it was changed, in microseconds since 1970.
    pub mtime_us: i64,
    /// How many names it has.
    pub links: u64,
    /// Where a symlink leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symlink.
    Symlink,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Parameters of `remove`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// What; a symlink itself, not what it leads to.
    #[serde(flatten)]
    pub place: Place,
    /// A folder with all that is in it; else only an empty one.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub recursive: bool,
}

/// Parameters of `make_dir`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeDir {
    /// The folder.
    #[serde(flatten)]
    pub place: Place,
    /// Its permission bits; else 0755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// `user[:group]` who shall own it; else the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Make the folders above that are missing, and be content if there is such a folder.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub parents: bool,
}

/// Parameters of `clock_sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSync {
    /// The time, in microseconds since 1970.
    pub unix_us: u64,
}

/// Parameters of `reseed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reseed {
    /// Random bytes that nobody else knows, 16 to 64 of them.
    pub data: Data,
}

/// The result of `clock_sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSynced {
    /// By how much the guest's clock was moved, in microseconds.
    pub adjusted_us: i64,
}
