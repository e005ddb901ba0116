//! Files and accounts that are put into an image before something runs in it: one layer, kept in the cache of steps.

use firebrick_build::{Flatten, made_over};
use firebrick_customise::{Content, Image, Settings, lay, to_tar};
use firebrick_digest::{Digest, Hasher};
use firebrick_sandbox::MadeLayer;
use firebrick_source::OciImage;

use crate::home::Home;
use crate::steps::{self, Running};

/// Part of the key of every layer of files: with another number none is taken from the cache.
const FILES_VERSION: u32 = 1;

/// A layer of files and accounts of the settings, which is added to the image. It can be read as long as what is given lives.
pub(crate) fn put_in(
    settings: &Settings,
    running: &Running<'_>,
    image: &mut OciImage,
    home: &Home,
) -> anyhow::Result<MadeLayer> {
    let (created, beside) = (running.created, steps::contents(home));
    steps::made(running, image, home, digest(settings), &|image| {
        let request = Flatten {
            image,
            beside: &beside,
            limits: running.layer_limits,
            created,
            layers_at_once: running.layers_at_once,
        };
        let tar = made_over(
            &request,
            Box::new(|merged| {
                let below = Image {
                    tree: merged.tree,
                    read: &|data| merged.read(data),
                };
                Ok(to_tar(&lay(settings, &below)?, created.seconds))
            }),
        )?;
        Ok(tar)
    })
}

/// Of everything that the layer is made of, but for what lies below.
fn digest(settings: &Settings) -> Digest {
    let mut hasher = Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(bytes);
    };
    add(format!("files {FILES_VERSION} {:?} {:?}", settings.groups, settings.users).as_bytes());
    for file in &settings.files {
        add(format!("{:?}", (&file.path, file.mode, &file.owner)).as_bytes());
        match &file.content {
            Content::File(bytes) => {
                add(b"file");
                add(bytes);
            }
            Content::Dir => add(b"folder"),
            Content::Link(target) => {
                add(b"link");
                add(target.as_bytes());
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use firebrick_customise::NewFile;

    use super::*;

    fn file(path: &str, content: Content) -> NewFile {
        NewFile {
            path: path.to_owned(),
            content,
            mode: None,
            owner: None,
        }
    }

    #[test]
    fn a_digest_is_of_everything() {
        let of = |files: Vec<NewFile>| {
            digest(&Settings {
                files,
                ..Settings::default()
            })
        };
        let text = |text: &str| Content::File(text.into());
        let mut with_mode = file("a", text("x"));
        with_mode.mode = Some(0o600);
        let all = [
            of(vec![]),
            of(vec![file("a", text("x"))]),
            of(vec![with_mode]),
            of(vec![file("a", text("y"))]),
            of(vec![file("b", text("x"))]),
            of(vec![file("a", Content::Dir)]),
            of(vec![file("a", Content::Link("x".to_owned()))]),
            of(vec![file("a", text("x")), file("b", text("x"))]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(of(vec![file("a", text("x"))]), all[1]);
    }
}
