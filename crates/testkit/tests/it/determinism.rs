//! Proves that an image's bytes are a function of its diff IDs and options alone: not of threads, processes, archives
//! or compression; and pins the bytes of ten tiny images, so that nobody changes them without knowing.

use std::fmt::Write as _;
use std::path::Path;

use firebrick_digest::Digest;
use firebrick_ext4::{Size, WRITER_VERSION};
use firebrick_testkit::build::{Form, Recipe, build, wrap};
use firebrick_testkit::layers::oci::{Blob, Compression};
use firebrick_testkit::layers::{
    Layer,
    tar::to_tar,
    text::{layers, several_layers},
};
use firebrick_testkit::{child, random};
use proptest::prelude::*;

use crate::pins;

fn recipe(change: impl FnOnce(&mut Recipe)) -> Recipe {
    let mut recipe = Recipe::default();
    change(&mut recipe);
    recipe
}

fn digest_of(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).unwrap())
}

#[test]
fn neither_threads_nor_wrapping_change_a_byte() {
    let set = several_layers();
    let image = |recipe: Recipe| digest_of(build(&set, &recipe).unwrap().image.path());
    let expected = image(recipe(|recipe| recipe.layers_at_once = 1));
    for at_once in [2, 4, 100] {
        let recipe = recipe(|recipe| recipe.layers_at_once = at_once);
        assert_eq!(image(recipe), expected, "{at_once} layers at once");
    }
    for form in [Form::OciArchive, Form::DockerArchive] {
        assert_eq!(image(recipe(|recipe| recipe.form = form)), expected, "{form:?}");
    }
    for compression in [Compression::None, Compression::Zstd] {
        let recipe = recipe(|recipe| recipe.layout.compression = compression);
        assert_eq!(image(recipe), expected, "{compression:?}");
    }
    // What the image says beside its layers is not in its bytes, but the time is: the caller's, not the config's.
    let tag = recipe(|recipe| recipe.layout.tag = "other".to_owned());
    assert_eq!(image(tag), expected);
    // And the comparison can fail.
    let label = recipe(|recipe| recipe.ext4.label = b"x".to_vec());
    assert_ne!(image(label), expected);
}

#[test]
fn two_processes_write_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs: Vec<_> = several_layers()
        .iter()
        .map(|layer| Blob::of_tar(&to_tar(layer), Compression::Gzip))
        .collect();
    let source = wrap(&dir.path().join("source"), &blobs, &Recipe::default()).unwrap();
    let images = ["1", "4"].map(|at_once| {
        let output = dir.path().join(format!("{at_once}.ext4"));
        let mut command = child::command(env!("CARGO_BIN_EXE_build-image"), &source.to_string(), &output);
        command.arg(at_once);
        let outcome = child::finish(command).unwrap();
        assert!(outcome.status.success(), "{outcome:?}");
        digest_of(&output)
    });
    assert_eq!(images[0], images[1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_give_the_same_bytes_again(set in random::layer_set()) {
        let digests = [1, 4, 4].map(|at_once| {
            let recipe = recipe(|recipe| recipe.layers_at_once = at_once);
            digest_of(build(&set, &recipe).unwrap().image.path())
        });
        prop_assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
    }
}

/// A layer's region, as far as no upper layer hides something of it, is the same wherever it lies and whatever is above.
#[test]
fn a_layers_region_is_its_own() {
    let files = |prefix: &str, count: u64, seed: u64| -> String {
        let line = |n| format!("f 0644 /{prefix}/{n} @{}:{}\n", n * 7919 % 300_000, n + seed);
        (0..count).map(line).collect()
    };
    let (base, under, top) = (
        files("base", 60, 1),
        files("under", 9, 500),
        files("top", 30, 900),
    );
    let regions: Vec<Vec<u8>> = [vec![&base], vec![&base, &top], vec![&under, &base, &top]]
        .into_iter()
        .map(|texts| {
            let place = texts.iter().position(|&text| *text == base).unwrap();
            let texts: Vec<&str> = texts.into_iter().map(String::as_str).collect();
            let built = build(&layers(&texts), &Recipe::default()).unwrap();
            let layer = &built.report.layers[place];
            let image = std::fs::read(built.image.path()).unwrap();
            let (start, len) = (layer.region_start.unwrap() as usize, layer.region_bytes as usize);
            assert_eq!(start % (1 << 20), 0);
            image[start..start + len].to_vec()
        })
        .collect();
    assert!(regions[0].len() > 5 << 20, "{}", regions[0].len());
    assert!(regions[0] == regions[1] && regions[1] == regions[2]);
}

const PINNED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pinned.txt");

/// The ten images that are pinned.
fn tiny_images() -> Vec<(&'static str, Vec<Layer>, Recipe)> {
    let image = |name, texts: &[&str], recipe| (name, layers(texts), recipe);
    let plain = Recipe::default;
    let many: String = (0..400)
        .map(|n| format!("f 0644 /d/a-name-that-is-long-{n}\n"))
        .collect();
    let holes: String = (0..9).map(|n| format!(" seg={}:@512:{n}", n * 8192)).collect();
    vec![
        image("empty", &[], plain()),
        image(
            "kinds",
            &[
                "f 0644 /f \"x\" uid=70000\nd 1777 /d\nl /l -> f\nh /h /f\nc 0600 /c 1 3\np 0622 /p\ns 0755 /s mtime=-1.5",
            ],
            plain(),
        ),
        image(
            "layers",
            &[
                "f 0644 /a @9000:1\nf 0644 /b \"1\"",
                "w /a\nf 0600 /b \"22\"",
                "f 0644 /c @5000:2",
            ],
            plain(),
        ),
        image(
            "xattrs",
            &[
                "f 0644 /f xattr:user.a=b acl=u::rw-,u:7:r--,g::r--,m::r--,o::---\nf 0644 /g xattr:user.l=\"0123456789\" xattr:user.m=\"0123456789\" xattr:user.n=\"01234567890123456789\" xattr:trusted.x=\"01234567890123456789\"",
            ],
            plain(),
        ),
        image("index", &[&many], plain()),
        image(
            "extents",
            &[&format!("f 0644 /sparse len=80000{holes} sparse=1.0")],
            plain(),
        ),
        image(
            "free",
            &["f 0644 /f \"x\""],
            recipe(|recipe| recipe.ext4.free = 5 << 20),
        ),
        image(
            "size",
            &["f 0644 /f \"x\""],
            recipe(|recipe| {
                recipe.ext4.size = Size::Bytes(140 << 20);
                recipe.ext4.inodes = Some(5000);
            }),
        ),
        image(
            "journal",
            &["f 0644 /f \"x\""],
            recipe(|recipe| recipe.ext4.journal = true),
        ),
        image(
            "online-resize",
            &["f 0644 /f \"x\""],
            recipe(|recipe| {
                recipe.ext4.online_resize = true;
                recipe.ext4.label = b"label".to_vec();
                recipe.ext4.uuid = Some(*b"0123456789abcdef");
            }),
        ),
    ]
}

/// The bytes of ten images are those of `pinned.txt`, which is made by this writer's version.
#[test]
fn the_bytes_of_ten_images_are_pinned() {
    let mut actual = format!("writer-version {WRITER_VERSION}\n");
    for (name, set, recipe) in tiny_images() {
        let built = build(&set, &recipe).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        writeln!(actual, "{name} {}", digest_of(built.image.path())).unwrap();
    }
    pins::check(
        PINNED,
        &actual,
        "If it is meant: raise WRITER_VERSION in crates/ext4/src/lib.rs, so that build keys change with the bytes,\n\
         then run this test with FIREBRICK_PIN=1, and say in CHANGELOG.md that images are made anew.",
    );
}
