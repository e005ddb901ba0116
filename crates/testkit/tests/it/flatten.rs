//! Proves that the tar that `flatten` makes of several layers shows what the layers show: read by the `tar` crate and applied by
//! the reference, unpacked by `umoci` and by GNU tar, each written by others. Same layers, same bytes.

use std::path::Path;
use std::process::Command;

use firebrick_build::{Flatten, Flattened, flatten};
use firebrick_digest::Digest;
use firebrick_layer::Limits;
use firebrick_source::{Options, Reference};
use firebrick_testkit::layers::{Layer, oci, read, tar::to_tar, text};
use firebrick_testkit::listing::{Ignore, Listing, diff};
use firebrick_testkit::{build::CREATED, oracle, random, reference, walk};
use firebrick_tree::Timestamp;
use proptest::prelude::*;

/// Layers out of which the merged tree is not the sum.
const SETS: &[&[&str]] = &[
    &[
        "d 0755 /a\nf 0644 /a/x \"1\"\nf 0644 /a/y \"2\"",
        "w /a/x\nf 0600 /a/z \"3\" uid=7",
    ],
    &["f 0644 /a \"hi\" uid=4\nh /b /a\nh /c /b", "w /a\nh /d/e /c"],
    &[
        "d 0700 /d uid=70000 mtime=5\nf 4755 /d/s \"x\" xattr:user.a=1",
        "f 0644 /\\xff \"x\"\np 0622 /p\nl /l -> d/s",
    ],
    &[
        "c 0600 /c 1 3\nb 0640 /b 259 1048575",
        "h /e /c\nf 0000 /none mtime=-5.25",
    ],
    &[
        "d 0755 /a\nf 0644 /a/b \"1\"",
        "d 0755 /a\nopq /a\nf 0644 /a/new \"2\"",
    ],
];

fn flat(layers: &[Layer], threads: usize) -> anyhow::Result<(Vec<u8>, Flattened)> {
    let dir = tempfile::tempdir()?;
    let layout = dir.path().join("layout");
    oci::write_layout(&layout, layers, &oci::Options::default())?;
    let image = open(&layout)?;
    let mut tar = Vec::new();
    let request = Flatten {
        image: &image,
        beside: &dir.path().join("flat"),
        limits: Limits::default(),
        created: Timestamp {
            seconds: CREATED.secs,
            nanoseconds: CREATED.nanos,
        },
        layers_at_once: threads,
    };
    let flattened = flatten(&request, &mut tar, &|_| {})?;
    let left: Vec<_> = std::fs::read_dir(dir.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    anyhow::ensure!(left == ["layout"], "left behind: {left:?}");
    Ok((tar, flattened))
}

fn open(layout: &Path) -> anyhow::Result<firebrick_source::OciImage> {
    let reference = Reference::OciLayout {
        path: layout.to_owned(),
        selector: None,
    };
    Ok(firebrick_source::open(&reference, &Options::default())?)
}

/// What GNU tar unpacks.
fn gnu_tar(tar: &[u8]) -> anyhow::Result<Listing> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("flat.tar");
    std::fs::write(&file, tar)?;
    let to = dir.path().join("to");
    std::fs::create_dir(&to)?;
    let mut command = Command::new("tar");
    command
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&file)
        .arg("-C")
        .arg(&to);
    let output = command.output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    walk::walk(&to)
}

/// `on_disk`: this disk can hold all that the layers say.
fn check(layers: &[Layer], on_disk: bool) -> anyhow::Result<()> {
    let expected = reference::apply(layers, CREATED)?;
    let (tar, flattened) = flat(layers, 2)?;
    // To others, our sockets are pipes.
    let has_socket = tar.windows(14).any(|bytes| bytes == b"FIREBRICK.type");
    if on_disk && rustix::process::geteuid().is_root() && !has_socket {
        diff(&expected, &gnu_tar(&tar)?, &Ignore::NOTHING)?;
    }
    // The `tar` crate knows neither this form of sparse files nor newlines in records.
    let is_sparse = tar.windows(16).any(|bytes| bytes == b"GNU.sparse.major");
    if let Ok(layer) = read::read(&tar)
        && !is_sparse
    {
        let applied = reference::apply(std::slice::from_ref(&layer), CREATED)?;
        diff(&expected, &applied, &Ignore::NOTHING)?;
        anyhow::ensure!(flattened.entries == layer.entries.len() as u64, "{flattened:?}");
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(&to_tar(layer))).collect();
    anyhow::ensure!(flattened.diff_ids == diff_ids, "{flattened:?}");
    anyhow::ensure!(flat(layers, 1)?.0 == tar, "not the same bytes again");
    Ok(())
}

#[test]
fn the_tar_shows_what_the_layers_show() {
    for set in SETS
        .iter()
        .map(|set| text::layers(set))
        .chain([text::several_layers()])
    {
        check(&set, true).unwrap_or_else(|error| panic!("{error:?}\nof {set:?}"));
    }
}

#[test]
fn umoci_unpacks_it_to_what_the_layers_show() {
    for set in &SETS[..4] {
        let layers = text::layers(set);
        let layer = read::read(&flat(&layers, 2).unwrap().0).unwrap();
        let Some(unpacked) = oracle::umoci(&[layer]).unwrap() else {
            return;
        };
        let expected = reference::apply(&layers, CREATED).unwrap();
        diff(&expected, &unpacked, &Ignore::NOTHING)
            .unwrap_or_else(|error| panic!("{error:?}\nof {layers:?}"));
    }
}

#[test]
fn gnu_tar_unpacks_it_with_its_holes() {
    if !rustix::process::geteuid().is_root() {
        oracle::say("GNU tar is left out: only root may give files to others");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("from");
    std::fs::create_dir(&folder).unwrap();
    for (name, len, writes) in [
        ("mid", 40 << 20, vec![(20 << 20, b"x".as_slice())]),
        ("end", 9 << 20, vec![(0, b"y")]),
        ("none", 5 << 20, vec![]),
    ] {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_len(len).unwrap();
        for (offset, bytes) in writes {
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
        }
    }
    let image =
        firebrick_source::open(&Reference::Dir { path: folder.clone() }, &Options::default()).unwrap();
    let request = Flatten {
        image: &image,
        beside: &dir.path().join("flat"),
        limits: Limits::default(),
        created: Timestamp::default(),
        layers_at_once: 1,
    };
    let tar = dir.path().join("flat.tar");
    flatten(&request, &mut std::fs::File::create(&tar).unwrap(), &|_| {}).unwrap();
    assert!(std::fs::metadata(&tar).unwrap().len() < 1 << 20);
    let unpacked = gnu_tar(&std::fs::read(&tar).unwrap()).unwrap();
    diff(&walk::walk(&folder).unwrap(), &unpacked, &Ignore::NOTHING).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_too(layers in random::layer_set()) {
        check(&layers, false).map_err(|error| TestCaseError::fail(format!("{error:?}\nof {layers:?}")))?;
    }

    #[test]
    fn random_layers_unpack_too(layers in random::layer_set_for_umoci()) {
        check(&layers, true).map_err(|error| TestCaseError::fail(format!("{error:?}\nof {layers:?}")))?;
    }
}
