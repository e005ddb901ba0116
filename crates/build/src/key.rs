//! The build key: the digest of everything that decides an image's bytes.

use firebrick_digest::{Digest, Hasher};
use firebrick_ext4::{Options, Size, WRITER_VERSION};
use firebrick_tree::Timestamp;

/// A build key, see [`build_key`].
pub type BuildKey = Digest;

/// The key of an image of these layers (diff IDs, lowest first) with these options.
///
/// Same key, same bytes, on any machine; a change of either changes the key. `options.identity` does not count: it
/// is made from the key.
pub fn build_key(diff_ids: &[Digest], options: &Options, created: Timestamp) -> BuildKey {
    let mut hasher = Hasher::new();
    // One line a fact, so that no two sets of facts run together to the same bytes.
    let mut fact = |name: &str, value: &str| hasher.update(format!("{name} {value}\n").as_bytes());
    let Options {
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
    fact("firebrick-ext4", &WRITER_VERSION.to_string());
    match size {
        Size::Auto => fact("free", &free.to_string()),
        Size::Bytes(bytes) => fact("size", &bytes.to_string()),
    }
    fact(
        "inodes",
        &inodes.map_or("auto".into(), |inodes| inodes.to_string()),
    );
    fact("label", &label.escape_ascii().to_string());
    fact("uuid", &uuid.map_or("auto".into(), |uuid| format!("{uuid:02x?}")));
    fact(
        "created",
        &format!("{}.{:09}", created.seconds, created.nanoseconds),
    );
    fact("journal", &journal.to_string());
    fact("online-resize", &online_resize.to_string());
    for diff_id in diff_ids {
        fact("layer", &diff_id.to_string());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

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
