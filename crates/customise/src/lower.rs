//! What lies below the firebrick layer: questions to the merged tree, and symlinks followed inside it.

/// What a path of the merged lower layers is, its last component not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LowerKind {
    /// A directory.
    Dir,
    /// A symlink and its target, byte for byte.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
}

/// The merged tree of the lower layers.
///
/// Paths are given without a leading slash, with `/` between components, and every component but the last is a
/// real directory (the asker has followed the symlinks). The empty path is the root.
pub trait Lower {
    /// What the path is; `None` if nothing is there.
    fn kind(&self, path: &[u8]) -> Option<LowerKind>;
}

impl<F: Fn(&[u8]) -> Option<LowerKind>> Lower for F {
    fn kind(&self, path: &[u8]) -> Option<LowerKind> {
        self(path)
    }
}

/// As the kernel has it (`MAXSYMLINKS`).
const MAX_SYMLINKS: u32 = 40;

/// Where a path leads once every symlink on the way is followed inside the image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// It is there: its real path and what it is (never a symlink).
    Found(Vec<u8>, LowerKind),
    /// Nothing is there; the path would be this, and its parents may be missing too.
    Missing(Vec<u8>),
    /// A component on the way is no directory, or the symlinks form a loop: the path of the culprit.
    Blocked(Vec<u8>),
}

/// Follows `path` through the lower layers as the guest's kernel would, with the image's root as `/`.
pub(crate) fn resolve(lower: &dyn Lower, path: &[u8]) -> Resolved {
    let mut pending: Vec<Vec<u8>> = components_reversed(path);
    let mut real: Vec<u8> = Vec::new();
    let mut missing = false;
    let mut symlinks = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            let parent_len = real.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            real.truncate(parent_len);
            continue;
        }
        let candidate = join(&real, &name);
        if missing {
            real = candidate;
            continue;
        }
        match lower.kind(&candidate) {
            None => {
                missing = true;
                real = candidate;
            }
            Some(LowerKind::Dir) => real = candidate,
            Some(LowerKind::Symlink(target)) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Resolved::Blocked(candidate);
                }
                if target.starts_with(b"/") {
                    real.clear();
                }
                pending.extend(components_reversed(&target));
            }
            Some(LowerKind::Other) if pending.is_empty() => {
                return Resolved::Found(candidate, LowerKind::Other);
            }
            Some(LowerKind::Other) => return Resolved::Blocked(candidate),
        }
    }
    if missing {
        Resolved::Missing(real)
    } else {
        Resolved::Found(real, LowerKind::Dir)
    }
}

/// The real path of the file that `path` leads to inside the image; `None` where there is no file.
pub fn real_file(lower: &dyn Lower, path: &[u8]) -> Option<Vec<u8>> {
    match resolve(lower, path) {
        Resolved::Found(path, LowerKind::Other) => Some(path),
        _ => None,
    }
}

fn components_reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A lower tree from lines: `usr/` a directory, `sbin -> usr/sbin` a symlink, `etc/passwd` a file.
    pub(crate) fn lower(lines: &[&str]) -> impl Lower + use<> {
        let mut map = BTreeMap::new();
        for line in lines {
            let (path, kind) = match line.split_once(" -> ") {
                Some((path, target)) => (path, LowerKind::Symlink(target.into())),
                None => match line.strip_suffix('/') {
                    Some(path) => (path, LowerKind::Dir),
                    None => (*line, LowerKind::Other),
                },
            };
            map.insert(path.as_bytes().to_vec(), kind);
        }
        move |path: &[u8]| map.get(path).cloned()
    }

    #[test]
    fn resolve_follows_symlinks_inside_the_image_only() {
        let tree = lower(&[
            "usr/",
            "usr/sbin/",
            "usr/lib/",
            "usr/lib/systemd",
            "sbin -> usr/sbin",
            "usr/sbin/init -> ../../../../usr/lib/systemd",
            "abs -> /usr/lib",
            "loop -> loop",
            "gone -> nowhere/at/all",
        ]);
        let found = |path: &str, kind| Resolved::Found(path.into(), kind);
        for (path, expected) in [
            ("sbin/init", found("usr/lib/systemd", LowerKind::Other)),
            ("abs", found("usr/lib", LowerKind::Dir)),
            ("abs/x/y", Resolved::Missing("usr/lib/x/y".into())),
            ("gone", Resolved::Missing("nowhere/at/all".into())),
            ("loop/x", Resolved::Blocked("loop".into())),
            ("usr/lib/systemd/x", Resolved::Blocked("usr/lib/systemd".into())),
            ("..", found("", LowerKind::Dir)),
            ("usr/./../usr//lib", found("usr/lib", LowerKind::Dir)),
        ] {
            assert_eq!(resolve(&tree, path.as_bytes()), expected, "{path}");
        }
    }
}
