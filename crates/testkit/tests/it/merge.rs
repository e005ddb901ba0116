//! Proves that `firebrick-layer` and `firebrick-tree` read and merge layers as the OCI text says: the same tree, to
//! the last byte of every file, as the reference (written from that text) for hand-made and random layers, refusing
//! what it refuses; and that the reference itself agrees with `umoci unpack`, which others wrote.

use std::collections::BTreeMap;
use std::io;

use firebrick_digest::Digest;
use firebrick_layer::{RegionSink, ScanSummary, scan};
use firebrick_testkit::layers::{Layer, tar::to_tar, text::layers};
use firebrick_testkit::listing::{Ignore, Kind, Listing, Record, Time, diff};
use firebrick_testkit::{fixtures, oracle, random, reference};
use firebrick_tree as tree;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const CREATED: Time = Time {
    secs: 1_704_164_645,
    nanos: 0,
};

/// Layers that exercise one rule each, all of which `umoci` follows too.
const SETS: &[(&str, &[&str])] = &[
    (
        "whiteout of a file",
        &["d 0755 /a\nf 0644 /a/x \"1\"\nf 0644 /a/y", "d 0755 /a\nw /a/x"],
    ),
    (
        "whiteout of a folder",
        &["d 0755 /a\nd 0755 /a/b\nf 0644 /a/b/x", "w /a"],
    ),
    (
        "whiteout before its sibling",
        &[
            "d 0755 /a\nf 0644 /a/x \"1\"",
            "d 0755 /a\nw /a/x\nf 0644 /a/x \"22\"",
        ],
    ),
    (
        "opaque before the layer's own",
        &["d 0755 /a\nf 0644 /a/x", "d 0755 /a\nopq /a\nf 0644 /a/new"],
    ),
    (
        "opaque after the layer's own",
        &["d 0755 /a\nf 0644 /a/x", "d 0755 /a\nf 0644 /a/new\nopq /a"],
    ),
    ("folder over file", &["f 0644 /a", "d 0700 /a\nf 0644 /a/b"]),
    (
        "file over folder",
        &["d 0755 /a\nf 0644 /a/b", "f 0600 /a \"hi\""],
    ),
    (
        "folder over folder keeps names",
        &["d 0755 /a uid=5\nf 0644 /a/b", "d 0700 /a gid=7 mtime=5"],
    ),
    (
        "hard links in one layer",
        &["f 0644 /a \"hi\" uid=4\nh /b /a\nh /c /b"],
    ),
    ("hard link across layers", &["f 0644 /a \"hi\"", "h /b /a"]),
    ("hard link to a symbolic link", &["l /l -> nowhere\nh /m /l"]),
    (
        "hard link outlives its first name",
        &["f 0644 /a \"hi\"\nh /b /a", "w /a"],
    ),
    ("later entry wins", &["f 0644 /a \"1\"\nf 0600 /a \"22\" uid=3"]),
    (
        "devices and pipes",
        &["c 0600 /c 1 3\nb 0640 /b 259 1048575\np 0622 /p uid=9"],
    ),
    (
        "big owners, odd times",
        &["f 0644 /a uid=70000 gid=4294967294 mtime=1.5\nf 0644 /b mtime=-5.25"],
    ),
    ("not UTF-8", &["f 0644 /\\xff\\xfe \"x\"\nd 0755 /d\\x80"]),
    (
        "set-id and sticky",
        &["f 4755 /s\nf 2711 /g\nd 1777 /tmp\nf 0000 /none"],
    ),
    (
        "xattrs",
        &["f 0755 /a xattr:user.a=1 xattr:trusted.b=\"\\x00\\xff\"\nd 0755 /d xattr:user.dir=x"],
    ),
    ("root entry", &["d 0700 / uid=3 mtime=7\nf 0644 /a mtime=9"]),
];

/// Rules where `umoci` does something else, or nothing: the reference judges alone.
const MORE_SETS: &[(&str, &[&str])] = &[
    ("missing parents", &["f 0644 /a/b/c \"hi\"", "f 0644 /a/b2/c"]),
    (
        "parents that are symbolic links",
        &["d 0755 /d\nl /l -> /d\nf 0644 /l/x", "f 0644 /l/y\nw /l/x"],
    ),
    (
        "symbolic links out of the root",
        &["l /l -> ../../../up\nf 0644 /l/x"],
    ),
    (
        "dangling link among the parents",
        &["l /l -> x/../y\nf 0644 /l/z"],
    ),
    (
        "folder over a symbolic link",
        &["d 0755 /d\nl /l -> d", "d 0700 /l\nf 0644 /l/x"],
    ),
    (
        "opaque below a symbolic link",
        &["d 0755 /d\nf 0644 /d/x\nl /l -> d", "opq /l"],
    ),
    (
        "whiteout of nothing",
        &["f 0644 /a", "w /b\nw /c/d\nw /a/x\nopq /nothing\nopq /a"],
    ),
    ("opaque root", &["f 0644 /a", "f 0644 /b\nopq /"]),
    (
        "whiteouts in any order",
        &["d 0755 /d\nf 0644 /d/x\nf 0644 /d/y\nl /l -> d", "w /l\nw /l/x"],
    ),
    (
        "absolute names",
        &["f 0644 //etc/x\nf 0644 ./y\nd 0755 ./\nh /z //etc/x"],
    ),
    ("hard link to itself", &["f 0644 /a \"hi\"\nh /a /a"]),
    (
        "hard link's own metadata",
        &["f 0644 /a \"hi\" uid=1", "h /b /a uid=9 mtime=3"],
    ),
    (
        "target through symbolic links",
        &["f 0644 /d/x\nl /l -> d\nh /y /l/x"],
    ),
    ("sockets", &["s 0755 /run/s uid=5"]),
    (
        "hard link over a folder",
        &["d 0755 /d\nf 0644 /d/x", "h /d /d/x"],
    ),
    (
        "link survives its target's replacement",
        &["f 0644 /a \"1\"\nh /b /a\nf 0644 /a \"22\""],
    ),
];

/// What neither may accept.
const REFUSED: &[(&str, &[&str])] = &[
    ("the root as a sparse file", &["f 0644 / len=1 sparse=0.1"]),
    (
        "the root as a sparse file with its map in front",
        &["f 0644 / len=1 sparse=1.0"],
    ),
    ("link to nothing", &["h /a /b"]),
    ("link to what a whiteout hides", &["f 0644 /b", "h /a /b\nw /b"]),
    ("link to itself alone", &["h /a /a"]),
    ("link to a folder", &["d 0755 /d\nh /a /d"]),
    ("link to the root", &["h /a /"]),
    ("links in a circle", &["h /a /b\nh /b /a"]),
    ("below a file", &["f 0644 /a\nf 0644 /a/b"]),
    ("below a device", &["c 0600 /a 1 3\nd 0755 /a/b"]),
    ("parents in a circle", &["l /a -> b\nl /b -> a\nf 0644 /a/x"]),
    ("file over the root", &["f 0644 /"]),
    ("whiteout of the root", &["w /"]),
    ("link over the root", &["f 0644 /a\nh / /a"]),
];

/// A region in memory.
#[derive(Default)]
struct Region(Vec<u8>);

impl RegionSink for Region {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend(bytes);
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        self.0.resize(self.0.len() + len, 0);
        Ok(())
    }
}

/// The digest of a file whose segments lie in these regions.
fn digest(data: &tree::FileData, regions: &[Region]) -> Digest {
    let mut bytes = vec![0; usize::try_from(data.size).expect("small files")];
    let at = |offset: u64| usize::try_from(offset).expect("small files");
    for segment in &data.segments {
        let region = &regions[segment.region.0 as usize].0;
        let from = at(segment.region_offset);
        assert!(
            segment.region_offset % 4096 == 0 && segment.file_offset % 4096 == 0,
            "{segment:?}"
        );
        bytes[at(segment.file_offset)..at(segment.file_offset + segment.len)]
            .copy_from_slice(&region[from..from + at(segment.len)]);
    }
    Digest::of(&bytes)
}

/// The merge of `firebrick-tree`, as a listing.
fn merge(layers: &[Layer]) -> anyhow::Result<Listing> {
    let mut regions = Vec::new();
    let mut indices = Vec::new();
    for (number, layer) in (0..).zip(layers) {
        let mut region = Region::default();
        let tar = to_tar(layer);
        let limits = firebrick_layer::Limits::default();
        let (index, summary) = scan(
            &tar[..],
            tree::RegionIndex(number),
            &mut region,
            &limits,
            ScanSummary::default(),
        )?;
        assert_eq!(
            (summary.tar_bytes, index.region_len),
            (tar.len() as u64, region.0.len() as u64)
        );
        regions.push(region);
        indices.push(index);
    }
    let created = tree::Timestamp {
        seconds: CREATED.secs,
        nanoseconds: CREATED.nanos,
    };
    let merged = tree::Tree::merge(indices, &tree::MergeOptions::at(created))?;
    let mut listing = Listing::new();
    let mut first: BTreeMap<tree::InodeId, (Vec<u8>, u64)> = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for (path, id) in merged.walk() {
        let path = [b"/", path.as_bytes()].concat();
        let (first_path, count) = first.entry(id).or_insert_with(|| (path.clone(), 0));
        if path < *first_path {
            first_path.clone_from(&path);
        }
        *count += 1;
        ids.insert(path.clone(), id);
        listing.insert(path, record(&merged, id, &regions));
    }
    for (path, record) in &mut listing {
        let (first_path, count) = &first[&ids[path]];
        record.same_as.clone_from(first_path);
        if record.kind != Kind::Dir {
            record.nlink = *count;
        }
    }
    Ok(listing)
}

fn record(merged: &tree::Tree, id: tree::InodeId, regions: &[Region]) -> Record {
    let inode = merged.inode(id);
    let is_dir = |id: &&tree::InodeId| merged.directory(**id).is_some();
    let mut nlink = 0;
    let kind = match &inode.kind {
        tree::Kind::Directory(names) => {
            nlink = 2 + names.values().filter(is_dir).count() as u64;
            Kind::Dir
        }
        tree::Kind::File(data) => Kind::File {
            len: data.size,
            digest: digest(data, regions),
        },
        tree::Kind::Symlink(target) => Kind::Symlink(target.to_vec()),
        tree::Kind::Device {
            kind: tree::DeviceKind::Char,
            major,
            minor,
        } => Kind::Char(*major, *minor),
        tree::Kind::Device {
            kind: tree::DeviceKind::Block,
            major,
            minor,
        } => Kind::Block(*major, *minor),
        tree::Kind::Fifo => Kind::Fifo,
        tree::Kind::Socket => Kind::Socket,
    };
    let tree::Metadata {
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    } = &inode.meta;
    Record {
        kind,
        mode: *mode,
        uid: *uid,
        gid: *gid,
        mtime: Time {
            secs: mtime.seconds,
            nanos: mtime.nanoseconds,
        },
        nlink,
        same_as: Vec::new(),
        xattrs: xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    }
}

fn check(name: &str, layers: &[Layer]) {
    let expected =
        reference::apply(layers, CREATED).unwrap_or_else(|error| panic!("{name}: reference: {error}"));
    let actual = merge(layers).unwrap_or_else(|error| panic!("{name}: merge: {error}"));
    if let Err(error) = diff(&expected, &actual, &Ignore::NOTHING) {
        panic!("{name}: {error}");
    }
}

#[test]
fn merge_agrees_with_the_reference_on_each_rule() {
    for (name, texts) in SETS.iter().chain(MORE_SETS) {
        check(name, &layers(texts));
    }
}

#[test]
fn merge_refuses_what_the_reference_refuses() {
    for (name, texts) in REFUSED {
        let layers = layers(texts);
        assert!(
            reference::apply(&layers, CREATED).is_err(),
            "{name}: the reference accepts it"
        );
        assert!(merge(&layers).is_err(), "{name}: the merge accepts it");
    }
}

#[test]
fn reference_agrees_with_umoci() {
    for (name, texts) in SETS {
        let layers = layers(texts);
        let Some(unpacked) = oracle::umoci(&layers).unwrap_or_else(|error| panic!("{name}: {error:#}"))
        else {
            return;
        };
        let expected = reference::apply(&layers, CREATED).unwrap();
        // umoci makes the root itself where no layer has it; link counts of folders are the host filesystem's.
        let mut ignore = Ignore {
            dir_links: true,
            ..Ignore::NOTHING
        };
        ignore.dir_mtimes = !texts[0].contains("d 0700 / ");
        if let Err(error) = diff(&expected, &unpacked, &ignore) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn real_images_merge_as_the_reference_and_umoci_say() {
    let alpine = fixtures::ALPINE
        .iter()
        .filter_map(|name| fixtures::fixture(name))
        .take(1)
        .map(|path| vec![path]);
    let busybox = fixtures::BUSYBOX
        .iter()
        .filter_map(|name| fixtures::fixture(name));
    let busybox = busybox.map(|path| firebrick_testkit::layers::oci::layer_blobs(&path).unwrap());
    for blobs in alpine.chain(busybox) {
        let read = |path: &std::path::PathBuf| {
            firebrick_testkit::layers::read::read(&std::fs::read(path).unwrap()).unwrap()
        };
        let layers: Vec<_> = blobs.iter().map(read).collect();
        check("real image", &layers);
        let expected = reference::apply(&layers, CREATED).unwrap();
        assert!(
            expected.len() > 400,
            "a real image has more than {} paths",
            expected.len()
        );
        if let Some(unpacked) = oracle::umoci(&layers).unwrap() {
            let ignore = Ignore {
                dir_links: true,
                dir_mtimes: true,
                ..Ignore::NOTHING
            };
            diff(&expected, &unpacked, &ignore).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_merge_as_the_reference_says(layers in random::layer_set()) {
        let expected = reference::apply(&layers, CREATED).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let actual = merge(&layers).map_err(|error| TestCaseError::fail(error.to_string()))?;
        diff(&expected, &actual, &Ignore::NOTHING).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }

    #[test]
    fn random_layers_are_refused_where_the_reference_refuses(layers in random::any_layer_set()) {
        let expected = reference::apply(&layers, CREATED);
        let actual = merge(&layers);
        prop_assert_eq!(expected.is_ok(), actual.is_ok(), "reference {:?}, merge {:?}", expected.err(), actual.err());
    }
}

proptest! {
    // The same sets each time: what umoci does otherwise than the text is not ours to find out by chance.
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: RngSeed::Fixed(1), failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    /// Random layers, as far as `umoci` goes with the OCI text.
    #[test]
    fn random_layers_unpack_with_umoci_as_the_reference_says(layers in random::layer_set_for_umoci()) {
        let fail = |error: anyhow::Error| TestCaseError::fail(format!("{error:#}"));
        let expected = reference::apply(&layers, CREATED).map_err(|error| TestCaseError::fail(error.to_string()))?;
        if let Some(unpacked) = oracle::umoci(&layers).map_err(fail)? {
            // Implied folders get the time of unpacking; link counts of folders are the host filesystem's.
            let ignore = Ignore { dir_links: true, dir_mtimes: true, ..Ignore::NOTHING };
            diff(&expected, &unpacked, &ignore).map_err(fail)?;
        }
    }
}
