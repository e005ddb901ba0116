//! The build key: the digest of everything that decides an image's bytes.

use firebrick_digest::{Digest, Hasher};
use firebrick_ext4::Size;
use firebrick_tree::Timestamp;

use crate::request::Filesystem;

/// A build key, see [`build_key`].
pub type BuildKey = Digest;

/// The key of an image of these layers (diff IDs, lowest first) with these options.
///
/// Same key, same bytes, on any machine; a change of either changes the key. What changes no byte does not count, nor does the
/// identity of an ext4 filesystem: it is made from the key.
pub fn build_key(diff_ids: &[Digest], filesystem: &Filesystem, created: Timestamp) -> BuildKey {
    let mut hasher = Hasher::new();
    // One line a fact, so that no two sets of facts run together to the same bytes.
    let mut fact = |name: &str, value: &str| hasher.update(format!("{name} {value}\n").as_bytes());
    let created = || format!("{}.{:09}", created.seconds, created.nanoseconds);
    match filesystem {
        Filesystem::Ext4(options) => ext4_facts(options, &created(), &mut fact),
        Filesystem::Squashfs(options) => squashfs_facts(options, &created(), &mut fact),
    }
    for diff_id in diff_ids {
        fact("layer", &diff_id.to_string());
    }
    hasher.finish()
}

fn ext4_facts(options: &firebrick_ext4::Options, created: &str, fact: &mut dyn FnMut(&str, &str)) {
    let firebrick_ext4::Options {
        size,
        free,
        inodes,
        label,
        uuid,
        identity: _,
        created: _,
        journal,
        online_resize,
    } = options;
    fact("firebrick-ext4", &firebrick_ext4::WRITER_VERSION.to_string());
    match size {
        Size::Auto => fact("free", &free.to_string()),
        Size::Least => fact("least-and-free", &free.to_string()),
        Size::Bytes(bytes) => fact("size", &bytes.to_string()),
    }
    fact(
        "inodes",
        &inodes.map_or("auto".into(), |inodes| inodes.to_string()),
    );
    fact("label", &label.escape_ascii().to_string());
    fact("uuid", &uuid.map_or("auto".into(), |uuid| format!("{uuid:02x?}")));
    fact("created", created);
    fact("journal", &journal.to_string());
    fact("online-resize", &online_resize.to_string());
}

fn squashfs_facts(options: &firebrick_squashfs::Options, created: &str, fact: &mut dyn FnMut(&str, &str)) {
    let firebrick_squashfs::Options {
        compression,
        level: _,
        block_size,
        created: _,
        threads: _,
    } = options;
    fact(
        "firebrick-squashfs",
        &firebrick_squashfs::WRITER_VERSION.to_string(),
    );
    fact("compression", compression.name());
    fact("level", &options.effective_level().to_string());
    fact("block-size", &block_size.to_string());
    fact("created", created);
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_ext4::Options;

    fn build_key(diff_ids: &[Digest], options: &Options, created: Timestamp) -> BuildKey {
        super::build_key(diff_ids, &Filesystem::Ext4(options.clone()), created)
    }

    #[test]
    fn every_fact_of_squashfs_changes_the_key() {
        use firebrick_squashfs::{Compression, Options};
        let key = |change: &dyn Fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            super::build_key(&[], &Filesystem::Squashfs(options), Timestamp::default())
        };
        let base = key(&|_| ());
        let mut keys = vec![
            base,
            build_key(&[], &super::tests::Options::default(), Timestamp::default()),
            key(&|options| options.compression = Compression::Gzip),
            key(&|options| options.level = Some(3)),
            key(&|options| options.block_size = 4096),
        ];
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 5);
        assert_eq!(key(&|options| options.threads = 7), base);
        assert_eq!(
            key(&|options| options.level = Some(15)),
            base,
            "the default, said"
        );
    }

    #[test]
    fn every_fact_changes_the_key() {
        let base = Options::default();
        let layers = [Digest::of(b"a"), Digest::of(b"b")];
        let time = Timestamp::default();
        let mut keys = vec![
            build_key(&layers, &base, time),
            build_key(&layers[..1], &base, time),
            build_key(&[layers[1], layers[0]], &base, time),
            build_key(
                &layers,
                &base,
                Timestamp {
                    seconds: 1,
                    nanoseconds: 0,
                },
            ),
        ];
        for options in [
            Options {
                size: Size::Bytes(1),
                ..base.clone()
            },
            Options {
                free: 1,
                ..base.clone()
            },
            Options {
                inodes: Some(1),
                ..base.clone()
            },
            Options {
                label: b"x".to_vec(),
                ..base.clone()
            },
            Options {
                uuid: Some([0; 16]),
                ..base.clone()
            },
            Options {
                journal: true,
                ..base.clone()
            },
            Options {
                online_resize: true,
                ..base.clone()
            },
        ] {
            keys.push(build_key(&layers, &options, time));
        }
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        let identity = Options {
            identity: [1; 32],
            ..base.clone()
        };
        assert_eq!(
            build_key(&layers, &identity, time),
            build_key(&layers, &base, time)
        );
    }
}
