//! Names and paths as layers carry them: bytes, checked once, never the host's `Path`.

use std::borrow::Borrow;
use std::fmt;

/// Longest name of one directory entry, in bytes (`NAME_MAX`, and ext4's `EXT4_NAME_LEN`).
const NAME_MAX: usize = 255;

/// Longest path, in bytes, without the end (`PATH_MAX` is 4096 with it).
const PATH_MAX: usize = 4095;

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// A path below a layer's root: names joined by `/`, without a leading one. The root itself is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LayerPath(Box<[u8]>);

/// Why bytes are not a path that a layer may name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A `..` component: it could lead out of the root.
    #[error("path {path:?} contains \"..\"")]
    ParentComponent {
        /// The path, lossily decoded and cut.
        path: String,
    },
    /// A NUL byte, which no Linux path can hold.
    #[error("path {path:?} contains a NUL byte")]
    Nul {
        /// The path, lossily decoded and cut.
        path: String,
    },
    /// A component that no Linux filesystem can hold.
    #[error("path {path:?} has a name of {len} bytes, at most 255 are possible")]
    NameTooLong {
        /// The path, lossily decoded and cut.
        path: String,
        /// Length of the name in bytes.
        len: usize,
    },
    /// A path that no system call could take.
    #[error("path {path:?}… has {len} bytes, at most 4095 are possible")]
    PathTooLong {
        /// The path, lossily decoded and cut.
        path: String,
        /// Length of the path in bytes.
        len: usize,
    },
}

/// A path for an error message: lossily decoded, cut to a readable length.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

impl Name {
    /// Takes one component as it is; `None` if it could not be a directory entry.
    pub fn new(bytes: &[u8]) -> Option<Name> {
        let plain = !bytes.is_empty()
            && bytes.len() <= NAME_MAX
            && bytes != b"."
            && bytes != b".."
            && !bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        plain.then(|| Name(bytes.into()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl LayerPath {
    /// The root of the layer.
    pub fn root() -> LayerPath {
        LayerPath::default()
    }

    /// Normalises a path from a tar header: empty and `.` components go, a leading `/` means the root.
    ///
    /// # Errors
    /// [`PathError`] for `..`, NUL bytes, and names or paths that Linux cannot hold.
    pub fn parse(bytes: &[u8]) -> Result<LayerPath, PathError> {
        if bytes.contains(&0) {
            return Err(PathError::Nul { path: shown(bytes) });
        }
        let mut joined = Vec::with_capacity(bytes.len());
        for component in bytes.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::ParentComponent { path: shown(bytes) }),
                name if name.len() > NAME_MAX => {
                    return Err(PathError::NameTooLong {
                        path: shown(bytes),
                        len: name.len(),
                    });
                }
                name => {
                    if !joined.is_empty() {
                        joined.push(b'/');
                    }
                    joined.extend_from_slice(name);
                }
            }
        }
        if joined.len() > PATH_MAX {
            return Err(PathError::PathTooLong {
                path: shown(bytes),
                len: joined.len(),
            });
        }
        Ok(LayerPath(joined.into()))
    }

    /// The path's bytes, without a leading `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first. None for the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// The containing directory's path and the last name; `None` for the root.
    pub fn split_last(&self) -> Option<(LayerPath, Name)> {
        let name = self.names().next_back()?;
        let parent_len = self.0.len().saturating_sub(name.len()).saturating_sub(1);
        Some((LayerPath(self.0.get(..parent_len)?.into()), Name(name.into())))
    }

    /// This path with one more name below it.
    pub fn join(&self, name: &Name) -> LayerPath {
        if self.is_root() {
            return LayerPath(name.0.clone());
        }
        LayerPath([&*self.0, b"/", &*name.0].concat().into())
    }
}

/// As a container would write it: `/` and the bytes, those that are not printable ASCII escaped.
impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_normalises_and_refuses() {
        let parsed = |text: &[u8]| LayerPath::parse(text).map(|path| path.to_string());
        assert_eq!(parsed(b"./etc//passwd").unwrap(), "/etc/passwd");
        assert_eq!(parsed(b"/etc/./passwd/").unwrap(), "/etc/passwd");
        assert_eq!(parsed(b"./").unwrap(), "/");
        assert_eq!(parsed(b"caf\xe9").unwrap(), "/caf\\xe9");
        assert!(matches!(
            parsed(b"a/../b"),
            Err(PathError::ParentComponent { .. })
        ));
        assert!(matches!(parsed(b"a\0b"), Err(PathError::Nul { .. })));
        assert!(parsed(&[b'x'; 255]).is_ok());
        assert!(matches!(
            parsed(&[b'x'; 256]),
            Err(PathError::NameTooLong { len: 256, .. })
        ));
        assert!(matches!(
            parsed(&b"x/".repeat(3000)),
            Err(PathError::PathTooLong { len: 5999, .. })
        ));
    }

    #[test]
    fn split_last_and_join_are_inverse() {
        for text in ["a", "a/b", "a/b/c"] {
            let path = LayerPath::parse(text.as_bytes()).unwrap();
            let (parent, name) = path.split_last().unwrap();
            assert_eq!(parent.join(&name), path);
        }
        assert!(LayerPath::root().split_last().is_none());
    }

    #[test]
    fn name_refuses_what_no_directory_can_hold() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(Name::new(bad).is_none(), "{bad:?}");
        }
        assert!(Name::new(&[0xff; 255]).is_some());
    }
}
