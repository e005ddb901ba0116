//! Random layers, for property tests: small trees over few names, so that layers meet each other often.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::layers::content::SparseForm;
use crate::layers::{Content, Entry, EntryKind, Format, Layer};
use crate::listing::Time;
use crate::reference;

/// One to four layers of up to 24 entries each; every entry can be applied.
pub fn layer_set() -> impl Strategy<Value = Vec<Layer>> {
    any_layer_set().prop_map(|layers| reference::keep_valid(&layers))
}

/// As [`layer_set`], but some entries may not be applicable.
pub fn any_layer_set() -> impl Strategy<Value = Vec<Layer>> {
    let layer = vec(entry(), 0..24).prop_map(|entries| Layer { entries });
    vec(layer, 1..=4)
}

/// As [`layer_set`], of what `umoci` 0.4 unpacks as the OCI text has it.
///
/// It does not know sockets, GNU's sparse files, libarchive's xattrs, links over themselves or above themselves, symbolic links among the parents, or times after
/// 2262, and drops empty xattrs and overlayfs's own.
pub fn layer_set_for_umoci() -> impl Strategy<Value = Vec<Layer>> {
    any_layer_set().prop_map(|mut layers| {
        for layer in &mut layers {
            layer.entries.retain(|entry| match &entry.kind {
                EntryKind::Socket | EntryKind::Symlink(_) => false,
                EntryKind::Hardlink(target) => !target.starts_with(&entry.path),
                EntryKind::File(Content::Sparse { form, .. }) => *form != SparseForm::Gnu,
                _ => true,
            });
            // It acts on whiteouts where they stand, so what replaces a hidden file by a folder must stand behind.
            let is_whiteout = |entry: &Entry| matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque);
            layer.entries.sort_by_key(|entry| !is_whiteout(entry));
            for entry in &mut layer.entries {
                entry.mtime.secs = entry.mtime.secs.clamp(1 - (1 << 31), 9_000_000_000);
                entry.libarchive = false;
                if entry.kind == EntryKind::Dir {
                    // The host hands it on to implied folders.
                    entry.mode &= !0o2000;
                }
                let kept =
                    |name: &[u8], value: &[u8]| !name.starts_with(b"trusted.overlay.") && !value.is_empty();
                entry.xattrs.retain(|(name, value)| kept(name, value));
            }
        }
        reference::keep_valid(&layers)
    })
}

/// A path of one to three names out of five; the root, seldom.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = select(vec!["a", "b", "c", "a-b", "\u{e9}"]);
    let path = vec(name, 1..=3).prop_map(|names| names.join("/").into_bytes());
    prop_oneof![40 => path, 1 => Just(Vec::new())]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let target = prop_oneof![
        path(),
        path().prop_map(|path| [b"/", path.as_slice()].concat()),
        path().prop_map(|path| [b"../", path.as_slice()].concat()),
        (58_usize..=62).prop_map(|len| vec![b'x'; len]),
    ]
    .prop_filter("a link's target is not empty", |target| !target.is_empty());
    prop_oneof![
        8 => content().prop_map(EntryKind::File),
        8 => Just(EntryKind::Dir),
        4 => target.prop_map(EntryKind::Symlink),
        4 => path().prop_map(EntryKind::Hardlink),
        1 => (0_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| EntryKind::Char(major, minor)),
        1 => (0_u32..300, 0_u32..300).prop_map(|(major, minor)| EntryKind::Block(major, minor)),
        1 => Just(EntryKind::Fifo),
        1 => Just(EntryKind::Socket),
        3 => Just(EntryKind::Whiteout),
        2 => Just(EntryKind::Opaque),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let sizes = select(vec![1, 511, 512, 513, 4095, 4096, 4097, 8192, 65_536, 100_001]);
    let form = select(vec![
        SparseForm::Gnu,
        SparseForm::Pax00,
        SparseForm::Pax01,
        SparseForm::Pax10,
    ]);
    // Stretches are whole blocks of the tar, but for the last: GNU tar and others differ on anything else.
    let parts = (form, vec((0_u64..10, 1_u64..10), 0..6), 0_u64..9000, 0_u64..512);
    let sparse = parts.prop_map(|(form, gaps, tail, short)| {
        let mut len = 0;
        let mut segments = Vec::new();
        let last = gaps.len().saturating_sub(1);
        for (index, (gap, blocks)) in gaps.into_iter().enumerate() {
            let gap = gap * 512;
            let data_len = blocks * 512 - if index == last { short } else { 0 };
            segments.push((
                len + gap,
                Content::Generated {
                    len: data_len,
                    seed: data_len,
                },
            ));
            len += gap + data_len;
        }
        Content::Sparse {
            len: len + tail,
            form,
            segments,
        }
    });
    prop_oneof![
        2 => Just(Content::Bytes(Vec::new())),
        4 => vec(any::<u8>(), 1..20).prop_map(Content::Bytes),
        4 => (sizes, 0_u64..100).prop_map(|(len, seed)| Content::Generated { len, seed }),
        1 => sparse,
    ]
}

/// Times that ext4 can hold: from the end of 1901 to 2446.
fn mtime() -> impl Strategy<Value = Time> {
    let secs = prop_oneof![
        Just(1_700_000_000_i64),
        -(1_i64 << 31)..(1 << 34) - (1 << 31),
        select(vec![
            -(1_i64 << 31),
            -1,
            0,
            (1 << 31) - 1,
            1 << 31,
            (1 << 34) - (1 << 31) - 1
        ]),
    ];
    (secs, prop_oneof![Just(0), 0_u32..1_000_000_000]).prop_map(|(secs, nanos)| Time { secs, nanos })
}

/// Attributes that root may set on anything.
fn xattrs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = select(vec![
        "trusted.a",
        "trusted.overlay.opaque",
        "security.bb",
        "trusted.a-long-name-indeed",
    ]);
    let value = prop_oneof![4 => vec(any::<u8>(), 0..12), 1 => vec(any::<u8>(), 200..400)];
    let some = proptest::collection::btree_map(name.prop_map(|name| name.as_bytes().to_vec()), value, 0..4);
    prop_oneof![3 => Just(Vec::new()), 1 => some.prop_map(|map| map.into_iter().collect())]
}

fn entry() -> impl Strategy<Value = Entry> {
    let id = prop_oneof![3 => Just(0), 1 => 1_u32..3_000_000, 1 => Just(u32::MAX - 1)];
    let modes = select(vec![0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o000, 0o7777]);
    let gnu = prop_oneof![3 => Just(Format::Pax), 1 => Just(Format::Gnu)];
    (
        path(),
        kind(),
        modes,
        id.clone(),
        id,
        mtime(),
        xattrs(),
        gnu,
        any::<bool>(),
    )
        .prop_map(
            |(path, kind, mode, uid, gid, mtime, xattrs, format, libarchive)| {
                let mut entry = Entry::new(&path, kind, mode);
                (entry.uid, entry.gid, entry.mtime, entry.format) = (uid, gid, mtime, format);
                if !matches!(
                    entry.kind,
                    EntryKind::Hardlink(_) | EntryKind::Whiteout | EntryKind::Opaque
                ) {
                    entry.libarchive = libarchive && !xattrs.is_empty();
                    entry.xattrs = xattrs;
                }
                entry
            },
        )
}

/// Bytes that do not compress and are the same every time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64* (Vigna 2014).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
