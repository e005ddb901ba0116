//! Proves that a squashfs shows, through the kernel, `unsquashfs` and our own reader, exactly the tree that the reference makes
//! of the layers, as far as squashfs can say it; what becomes of what it cannot say; that threads change no byte; and
//! that our reader reads what `mksquashfs` makes.

use std::fmt::Write as _;

use firebrick_digest::Digest;
use firebrick_squashfs::{Compression, Options, WRITER_VERSION};
use firebrick_testkit::build::{CREATED, Recipe};
use firebrick_testkit::layers::{
    Content, Entry, EntryKind, Layer,
    text::{layers, several_layers},
};
use firebrick_testkit::listing::{Ignore, diff};
use firebrick_testkit::own::squashfs_listing as listing;
use firebrick_testkit::squashfs::{build, check, compare, recipe, sayable};
use firebrick_testkit::{mount, oracle, random, reference, walk};
use proptest::prelude::*;

use crate::pins;

fn options(change: impl FnOnce(&mut Options)) -> Recipe {
    let mut options = Options {
        threads: 2,
        ..Options::default()
    };
    change(&mut options);
    recipe(options)
}

/// Quick to compress, where the test is of something else.
fn quick() -> Recipe {
    options(|options| options.level = Some(1))
}

fn check_texts(name: &str, texts: &[&str], recipe: &Recipe) {
    if let Err(error) = check(&layers(texts), recipe) {
        panic!("{name}: {error:#}");
    }
}

const KINDS: &str = r#"
    d 0755 / mtime=5
    f 0644 /file "hello" uid=1 gid=2
    f 0000 /empty
    d 1777 /dir uid=70000 gid=4000000000
    l /link -> ../anywhere
    h /hard /file
    h /hardlink-to-symlink /link
    c 0600 /char 1 3
    c 0666 /char-big 4095 1048575
    b 0640 /block 259 300
    p 0622 /fifo uid=9
    s 0755 /socket
    f 4755 /setuid
    f 2711 /setgid
    f 0755 /capability xattr:security.capability="\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    f 0644 /small xattr:user.a=b xattr:user.empty=""
    f 0644 /same xattr:user.a=b xattr:user.empty=""
    d 0755 /xattrs xattr:user.dir=x xattr:trusted.overlay.opaque=y
    l /xlink -> x xattr:security.x=y
    p 0600 /xfifo xattr:trusted.x=y
    c 0600 /xchar 5 1 xattr:trusted.x=y
    f 0644 /long xattr:user.l=LONG
    f 0644 /long-2 xattr:user.l=2LONG
    f 0644 /long-3 xattr:user.l=3LONG
    f 0644 /block @131072:1
    f 0644 /block-and-tail @131073:2
    f 0644 /many-blocks @1000000:3
    f 0644 /same-blocks @1000000:3
    f 0644 /same-length @1000000:4
    f 0644 /sparse len=5000000 seg=512000:@70000:1 seg=4194304:@5:2 sparse=1.0
    f 0644 /hole len=300000 sparse=1.0
    f 0644 /zeros @4096:0
"#;

#[test]
fn every_kind_with_every_compression_and_some_block_sizes() {
    let text = KINDS
        .replace("LONG", &"L".repeat(3000))
        .replace("f 0644 /block @131072:1", "f 0644 /whole @131072:1");
    for compression in Compression::ALL {
        for block_size in [4096, 131_072, 1 << 20] {
            let recipe =
                options(|options| (options.compression, options.block_size) = (compression, block_size));
            check_texts(&format!("{compression} {block_size}"), &[&text], &recipe);
        }
    }
    for (compression, level) in [
        (Compression::Zstd, 3),
        (Compression::Gzip, 1),
        (Compression::Xz, 1),
    ] {
        let recipe = options(|options| (options.compression, options.level) = (compression, Some(level)));
        check_texts(&format!("{compression} level {level}"), &[&text], &recipe);
    }
}

#[test]
fn empty_and_hidden() {
    check_texts("no entries", &[""], &quick());
    check_texts("everything hidden", &["f 0644 /a/b @100000:1", "opq /"], &quick());
    // Content that does not compress would stand in the image as it is.
    let texts = ["f 0644 /secret @200000:77\nf 0644 /shown @200000:78", "w /secret"];
    let image = |texts: &[&str]| {
        let built = check(&layers(texts), &quick()).unwrap();
        std::fs::read(&built.path).unwrap()
    };
    let needle = |seed| {
        let mut bytes = Vec::new();
        let content = Content::Generated { len: 200_000, seed };
        content.write(&mut bytes).unwrap();
        bytes[..32].to_vec()
    };
    let holds = |image: &[u8], needle: &[u8]| image.windows(needle.len()).any(|window| window == needle);
    assert!(holds(&image(&texts[..1]), &needle(77)), "it can be found at all");
    let hidden = image(&texts);
    assert!(!holds(&hidden, &needle(77)) && holds(&hidden, &needle(78)));
}

#[test]
fn names_targets_and_depth() {
    let long = "n".repeat(255);
    let bytes: String = (1..=255_u8)
        .filter(|byte| *byte != b'/')
        .map(|byte| format!("f 0644 /bytes/x\\x{byte:02x}\n"))
        .collect();
    let targets: String = [1, 255, 256, 4094, 4095]
        .iter()
        .map(|len| format!("l /l{len} -> {}\n", "t".repeat(*len)))
        .collect();
    let deep = "/d".repeat(2000);
    let text = format!(
        "f 0644 /{long} \"1\"\nd 0755 /d/{long}\nf 0644 /\\xff\\xfe\\x80\nf 0644 /\\n\nf 0644 {deep} \"x\"\n{targets}{bytes}"
    );
    check_texts("names", &[&text], &quick());
}

/// More than the index of a folder, and more than one block of each table.
#[test]
fn a_folder_of_43_000_files_and_4_000_folders() {
    let files = (0..43_000_u32).map(|n| {
        let content = if n % 9 == 0 {
            format!("{n}").into_bytes()
        } else {
            Vec::new()
        };
        let name = format!("folder/{n}-{}", "x".repeat(n as usize % 40));
        Entry::new(name.as_bytes(), EntryKind::File(Content::Bytes(content)), 0o644)
    });
    let folders = (0..4000_u32).map(|n| Entry::dir(&format!("folders/{n:0>200}")));
    let entries = files.chain(folders).collect();
    check(&[Layer { entries }], &quick()).unwrap();
}

/// The file's inode, its list of blocks, and a block's place need more than 32 bits.
#[test]
fn a_file_of_more_than_4_gib() {
    let len = (5_u64 << 30) + 7;
    let text = format!(
        "f 0644 /large len={len} seg=4096:@512:1 seg={}:@300000:2 seg={}:\"end\" sparse=1.0",
        1_u64 << 32,
        len - 519
    );
    check_texts(
        "large",
        &[&text.replace(
            &format!("seg={}", len - 519),
            &format!("seg={}", (len - 519) / 512 * 512),
        )],
        &quick(),
    );
}

#[test]
fn what_squashfs_cannot_say_is_said() {
    let text = r#"
        f 0644 /before mtime=-1.5
        f 0644 /last mtime=4294967295.75
        f 0644 /after mtime=4294967296
        f 0660 /acl "x" acl=u::rw-,u:7:rw-,g::r--,m::rw-,o::---
        d 2755 /journal acl=u::rwx,g::r-x,g:4:r-x,m::r-x,o::r-x dacl=u::rwx,g::r-x,g:4:r-x,m::r-x,o::r-x
        f 0644 /denied acl=u::rw-,u:7:---,g::r--,m::r--,o::r--
        f 0644 /kept xattr:user.a=b
    "#;
    let set = layers(&[text]);
    let built = build(&set, &quick()).unwrap();
    assert_eq!(built.report.clamped_times, 2);
    let left_out: Vec<_> = built.report.left_out_xattrs.iter().map(String::as_str).collect();
    assert_eq!(
        left_out,
        [
            "/acl: system.posix_acl_access",
            "/denied: system.posix_acl_access",
            "/journal: system.posix_acl_access",
            "/journal: system.posix_acl_default",
        ]
    );
    let mut expected = sayable(reference::apply(&set, CREATED).unwrap());
    // Nobody gets what the list kept from him: not the owning group, nor those who had an entry.
    expected.get_mut(b"/acl".as_slice()).unwrap().mode = 0o640;
    expected.get_mut(b"/denied".as_slice()).unwrap().mode = 0o600;
    compare(&built.path, &expected).unwrap();
}

#[test]
fn what_squashfs_cannot_hold_is_refused() {
    let entries: Vec<Entry> = (0..65_536_u32)
        .map(|n| {
            let mut entry = Entry::file(&format!("d{}/{n}", n % 300), b"");
            (entry.uid, entry.gid) = (n, n);
            entry
        })
        .collect();
    let refused = |entries: Vec<Entry>, recipe: &Recipe| match build(&[Layer { entries }], recipe) {
        Ok(_) => panic!("it was built"),
        Err(error) => format!("{error:#}"),
    };
    let error = refused(entries.clone(), &quick());
    assert!(error.contains("more than 65535 different owners"), "{error}");
    build(
        &[Layer {
            entries: entries[..65_535].to_vec(),
        }],
        &quick(),
    )
    .unwrap();
    let error = refused(Vec::new(), &options(|options| options.block_size = 5000));
    assert!(error.contains("the block size is 5000 bytes"), "{error}");
    for (compression, level) in [
        (Compression::Zstd, 23),
        (Compression::Zstd, 0),
        (Compression::Lz4, 1),
    ] {
        let error = refused(
            Vec::new(),
            &options(|options| (options.compression, options.level) = (compression, Some(level))),
        );
        assert!(
            error.contains(&format!("{compression} has no compression level {level}")),
            "{error}"
        );
    }
    let huge = layers(&[&format!("f 0644 /huge len={} sparse=1.0", 1_u64 << 43)]);
    let error = refused(huge[0].entries.clone(), &quick());
    assert!(error.contains("/huge is 8796093022208 bytes long"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_show_what_the_reference_says(set in random::layer_set(), size in 12_u32..=20, number in 0_usize..4) {
        let recipe = options(|options| {
            (options.block_size, options.compression) = (1 << size, Compression::ALL[number]);
            options.level = options.compression.levels().map(|_| 1);
        });
        check(&set, &recipe).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}

/// Files that are alike are stored once, wherever they lie; those that are alike only at their start are not.
#[test]
fn duplicates_are_stored_once() {
    let one = build(&layers(&["f 0644 /a @700000:1"]), &quick()).unwrap().report;
    let set = layers(&[
        "f 0644 /a @700000:1\nf 0600 /b @700000:1 uid=9",
        "f 0644 /c/d @700000:1\nf 0644 /e @700001:1",
    ]);
    let built = check(&set, &quick()).unwrap();
    assert_eq!((one.duplicates, built.report.duplicates), (0, 2));
    let twice = build(&layers(&["f 0644 /a @700000:1\nf 0644 /e @700001:1"]), &quick())
        .unwrap()
        .report;
    assert_eq!(built.report.size_bytes, twice.size_bytes);
    assert!(twice.size_bytes > one.size_bytes + 600_000);
}

fn digest_of(set: &[Layer], recipe: &Recipe) -> Digest {
    Digest::of(&std::fs::read(&build(set, recipe).unwrap().path).unwrap())
}

#[test]
fn threads_change_no_byte() {
    let set = several_layers();
    check(&set, &quick()).unwrap();
    for compression in Compression::ALL {
        let with = |threads, layers_at_once| {
            let mut recipe = options(|options| {
                (options.threads, options.compression, options.block_size) = (threads, compression, 16_384);
            });
            recipe.layers_at_once = layers_at_once;
            digest_of(&set, &recipe)
        };
        let expected = with(1, 1);
        for threads in [2, 4, 4, 9] {
            assert_eq!(with(threads, 4), expected, "{compression}, {threads} threads");
        }
    }
    let other = options(|options| options.level = Some(2));
    assert_ne!(
        digest_of(&set, &other),
        digest_of(&set, &quick()),
        "and the comparison can fail"
    );
}

/// What `mksquashfs` makes of a folder is what the kernel shows of it.
#[test]
fn our_reader_reads_what_mksquashfs_makes() {
    if !oracle::have_mount().unwrap() || !oracle::have("mksquashfs").unwrap() {
        return;
    }
    let text = KINDS
        .replace("LONG", &"L".repeat(3000))
        .replace("f 0644 /block @131072:1", "f 0644 /whole @131072:1");
    let many: String = (0..3000)
        .map(|n| format!("f 0644 /many/a-long-name-{n} @{}:{n}\n", n % 300))
        .collect();
    let built = check(&layers(&[&text, &many]), &quick()).unwrap();
    let ours = mount::Mount::of(&built.path, "squashfs", "ro").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (number, extra) in [
        "-comp gzip",
        "-comp xz -b 1M",
        "-comp lz4 -Xhc -b 4096",
        "-comp zstd -Xcompression-level 3 -always-use-fragments",
        "-comp zstd -no-fragments -no-duplicates",
        "-comp gzip -noI -noD -noF -noX -no-exports",
        "-comp gzip -no-xattrs",
    ]
    .iter()
    .enumerate()
    {
        let image = dir.path().join(format!("{number}.squashfs"));
        let (from, to) = (ours.path().to_str().unwrap(), image.to_str().unwrap());
        let args = [from, to, "-quiet", "-no-progress", "-all-time", "7"]
            .into_iter()
            .chain(extra.split(' '));
        oracle::run_ok("mksquashfs", args).unwrap();
        let mounted = mount::Mount::of(&image, "squashfs", "ro").unwrap();
        diff(
            &walk::walk(mounted.path()).unwrap(),
            &listing(&image).unwrap(),
            &Ignore::NOTHING,
        )
        .unwrap_or_else(|error| panic!("{extra}: {error:#}"));
        mounted.unmount().unwrap();
    }
    ours.unmount().unwrap();
}

#[test]
fn superblock_as_unsquashfs_sees_it() {
    if !oracle::have("unsquashfs").unwrap() {
        return;
    }
    for (compression, level, word) in [
        (Compression::Zstd, None, "Compression zstd"),
        (Compression::Zstd, Some(4), "compression-level 4"),
        (Compression::Gzip, Some(3), "compression-level 3"),
        (Compression::Lz4, None, "Compression lz4"),
        (Compression::Xz, None, "Compression xz"),
    ] {
        let recipe = options(|options| (options.compression, options.level) = (compression, level));
        let built = build(&layers(&["f 0644 /a \"x\" xattr:user.a=b"]), &recipe).unwrap();
        let path = built.path.to_str().unwrap();
        let said = oracle::run_ok("unsquashfs", ["-stat", path]).unwrap();
        for word in [
            word,
            "Filesystem is exportable via NFS",
            "Duplicates are removed",
            "Number of xattr ids 1",
            "Number of inodes 2",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let made = oracle::run_ok("unsquashfs", ["-mkfs-time", path]).unwrap();
        assert_eq!(made.trim(), CREATED.secs.to_string());
        let listed = oracle::run_ok("unsquashfs", ["-lls", path]).unwrap();
        assert!(listed.contains("squashfs-root/a"), "{listed}");
    }
}

const PINNED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pinned-squashfs.txt");

/// The bytes of some images are those of `pinned-squashfs.txt`, which is made by this writer's version.
#[test]
fn the_bytes_of_some_images_are_pinned() {
    let mut actual = format!("writer-version {WRITER_VERSION}\n");
    let text = KINDS
        .replace("LONG", "L")
        .replace("f 0644 /block @131072:1", "f 0644 /whole @131072:1");
    let many: String = (0..400)
        .map(|n| format!("f 0644 /d/a-name-that-is-long-{n} \"{n}\"\n"))
        .collect();
    for (name, texts) in [
        ("empty", &[""][..]),
        ("kinds", &[&text]),
        ("layers", &[&text, &many, "w /many-blocks"]),
    ] {
        for compression in Compression::ALL {
            let digest = digest_of(
                &layers(texts),
                &options(|options| options.compression = compression),
            );
            writeln!(actual, "{name} {compression} {digest}").unwrap();
        }
    }
    pins::check(
        PINNED,
        &actual,
        "A new version of a compressor can be the reason, too. If it is meant: raise WRITER_VERSION in\n\
         crates/squashfs/src/lib.rs, then run this test with FIREBRICK_PIN=1, and say so in CHANGELOG.md.",
    );
}
