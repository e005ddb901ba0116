//! An image that is being changed: a copy beside it, which takes its name when all went well.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_build::ImageCopy;
use firebrick_ext4::edit::{Changes, Editor};
use firebrick_ext4::read::{FileType, LastSymlink};
use firebrick_tree::Timestamp;

use crate::home::Home;
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::trust;
use crate::volume::Volume;

mod refusal;
mod turn;

pub(crate) use refusal::Refusal;
pub(crate) use turn::Turn;

/// Longest file that is read to be changed, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// An image's copy, opened for changes.
pub(crate) struct Edited {
    pub(crate) editor: Editor<ImageCopy>,
    /// What is copied.
    pub(crate) image: PathBuf,
    pub(crate) output: PathBuf,
    /// Where the copy takes the image's place.
    turn: Option<Turn>,
    home: Home,
}

impl Edited {
    /// Copies an image; `output` is where it goes, by default in the image's place, which waits for other changes of it.
    pub(crate) fn open(
        home: &Home,
        image: &Path,
        output: Option<&Path>,
        talk: &Talk,
    ) -> anyhow::Result<Edited> {
        let output = output.unwrap_or(image).to_owned();
        let turn = match output == image {
            true => Some(Turn::wait(image, talk)?),
            false => None,
        };
        trust::ensure_usable(home, image)?;
        // Says what it is, where it cannot be changed, before anything is copied.
        let opened = ImageFile::open_file(image.to_owned())?;
        if let Volume::Squashfs(_) = opened.filesystem {
            return Err(Refusal::ReadOnlyFormat {
                image: image.to_owned(),
            }
            .into());
        }
        let file = File::open(image).with_context(|| format!("cannot open {image:?}"))?;
        ensure_unused(&file, image)?;
        let copy = ImageCopy::of(&file, &output)
            .with_context(|| format!("cannot copy {image:?} to change it, for {output:?}"))?;
        let editor = Editor::open(copy).with_context(|| format!("cannot change {image:?}"))?;
        Ok(Edited {
            editor,
            image: image.to_owned(),
            output,
            turn,
            home: home.clone(),
        })
    }

    /// Makes changes; what they fail with names the image.
    pub(crate) fn change<R>(
        &mut self,
        what: impl FnOnce() -> String,
        change: impl FnOnce(&mut Editor<ImageCopy>) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let image = &self.image;
        change(&mut self.editor)
            .with_context(|| format!("cannot {} in {image:?}; it stays as it was", what()))
    }

    /// Writes all, and gives the copy its name.
    pub(crate) fn finish(self) -> anyhow::Result<Changes> {
        let Edited {
            editor,
            image,
            output,
            turn,
            home,
        } = self;
        let (copy, changes) = editor
            .finish()
            .with_context(|| format!("cannot change {image:?}; it stays as it was"))?;
        if let Some(turn) = &turn {
            turn.ensure_current()?;
        }
        copy.commit()
            .with_context(|| format!("cannot write {output:?}"))?;
        trust::forget(&home, &output)?;
        Ok(changes)
    }

    /// The time of what firebrick itself makes: `SOURCE_DATE_EPOCH`, or when the filesystem was made.
    pub(crate) fn time(&self) -> anyhow::Result<Timestamp> {
        let created = self.editor.filesystem().summary().created.unwrap_or_default();
        match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => Ok(Timestamp {
                seconds: epoch.trim().parse().with_context(|| {
                    format!("SOURCE_DATE_EPOCH is {epoch:?}, expected seconds since 1970")
                })?,
                nanoseconds: 0,
            }),
            Err(_) => Ok(created),
        }
    }

    /// A small file of the image as it is now; `None` where there is none.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.editor.find(path.as_bytes(), LastSymlink::Follow)?;
        let Some(inode) = found.filter(|inode| inode.stat().file_type == FileType::Regular) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let file = self.editor.filesystem().open_file(&inode)?;
        file.take(TEXT_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Makes sure that no virtual machine writes to an image: what was read of it would fit together by luck only.
pub(crate) fn ensure_unused(file: &File, image: &Path) -> anyhow::Result<()> {
    match firebrick_vmm::firecracker::drive_is_written(file) {
        true => Err(Refusal::InUse {
            image: image.to_owned(),
        }
        .into()),
        false => Ok(()),
    }
}

/// A path in an image, as bytes with a leading slash.
pub(crate) fn inside(path: &OsStr) -> Vec<u8> {
    let bytes = path.as_bytes();
    match bytes.first() {
        Some(b'/') => bytes.to_vec(),
        _ => [b"/", bytes].concat(),
    }
}

/// The path of a name in a folder of an image.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    [folder, b"/", name].concat()
}

/// Owner and group, as `--chown` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    user: String,
    group: Option<String>,
}

impl Owner {
    /// `USER[:GROUP]`, each a name or a number.
    pub(crate) fn parse(text: &str) -> Result<Owner, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err("expected USER or USER:GROUP, each a name of the image or a number".to_owned());
        }
        Ok(Owner {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        })
    }

    /// The numbers, by the image's own `/etc/passwd` and `/etc/group`. Without a group, it is the user's.
    pub(crate) fn numbers(&self, image: &Edited) -> anyhow::Result<(u32, u32)> {
        let passwd = image.text("/etc/passwd")?.unwrap_or_default();
        let (uid, own) = match self.user.parse() {
            Ok(uid) => (uid, field_of(&passwd, &self.user, 2, 3)),
            Err(_) => {
                let known = |field| field_of(&passwd, &self.user, 0, field);
                let uid = known(2).ok_or_else(|| self.unknown(&self.user, "/etc/passwd", image))?;
                (uid, known(3))
            }
        };
        let gid = match &self.group {
            None => own.unwrap_or(uid),
            Some(group) => match group.parse() {
                Ok(gid) => gid,
                Err(_) => {
                    let groups = image.text("/etc/group")?.unwrap_or_default();
                    field_of(&groups, group, 0, 2).ok_or_else(|| self.unknown(group, "/etc/group", image))?
                }
            },
        };
        Ok((uid, gid))
    }

    fn unknown(&self, name: &str, file: &'static str, image: &Edited) -> Refusal {
        Refusal::NoSuchOwner {
            name: name.to_owned(),
            file,
            image: image.image.clone(),
        }
    }
}

/// A number of the first line of a file like `/etc/passwd` whose field `key` is `value`.
fn field_of(text: &[u8], value: &str, key: usize, field: usize) -> Option<u32> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.split(|byte| *byte == b':').nth(key) == Some(value.as_bytes()))?;
    let field = line.split(|byte| *byte == b':').nth(field)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Permission bits in octal.
pub(crate) fn parse_mode(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "expected permissions in octal, from 0 to 7777".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_modes() {
        assert!(Owner::parse("nex").is_ok() && Owner::parse("0:0").is_ok());
        for bad in ["", ":", "a:", ":b"] {
            assert!(Owner::parse(bad).is_err(), "{bad}");
        }
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nnex:x:1000:1001::/:/bin/sh\n";
        assert_eq!(field_of(passwd, "nex", 0, 3), Some(1001));
        assert_eq!(field_of(passwd, "1000", 2, 3), Some(1001));
        assert_eq!(field_of(passwd, "x", 0, 2), None);
        assert_eq!(parse_mode("4755"), Ok(0o4755));
        assert!(parse_mode("8").is_err() && parse_mode("17777").is_err());
    }
}
