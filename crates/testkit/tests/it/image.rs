//! Proves that an image shows, through the kernel and through `ext4-view`, exactly the tree that the reference makes of
//! the layers: for each kind of inode and each bound of ext4 by hand, for random layers, and for real images.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use firebrick_testkit::build::{Built, CREATED, Recipe, build, build_blobs, build_found, check, views};
use firebrick_testkit::layers::{EntryKind, oci, read, text::layers};
use firebrick_testkit::listing::{Ignore, diff};
use firebrick_testkit::{fixtures, mount, oracle, own, random, reference, walk};
use proptest::prelude::*;

/// Builds and compares; the recipe is the default one.
fn check_texts(name: &str, texts: &[&str]) {
    if let Err(error) = check(&layers(texts), &Recipe::default()) {
        panic!("{name}: {error:#}");
    }
}

#[test]
fn every_kind_of_inode() {
    check_texts(
        "kinds",
        &[r#"
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
        "#],
    );
}

#[test]
fn an_empty_image() {
    check_texts("no entries", &[""]);
    check_texts("everything hidden", &["f 0644 /a/b @100000:1", "opq /"]);
}

#[test]
fn names_that_are_long_or_no_text() {
    let (long, bytes) = ("n".repeat(255), (1..=255_u8).filter(|byte| *byte != b'/'));
    let all: String = bytes
        .map(|byte| format!("f 0644 /bytes/x\\x{byte:02x}\n"))
        .collect();
    let text = format!(
        "f 0644 /{long} \"1\"\nd 0755 /d/{long}\nl /{long}.d/{long} -> {long}\nf 0644 /\\xff\\xfe\\x80\nf 0644 /\\n\n{all}"
    )
    .replace(&format!("/{long}.d/"), "/l/");
    check_texts("names", &[&text]);
}

#[test]
fn times_from_1901_to_2446() {
    let secs = [
        -(1_i64 << 31),
        -1,
        0,
        1,
        (1 << 31) - 1,
        1 << 31,
        1 << 32,
        (1 << 34) - (1 << 31) - 1,
    ];
    let text: String = secs
        .iter()
        .enumerate()
        .flat_map(|(index, secs)| {
            [
                format!("f 0644 /{index} mtime={secs}\n"),
                format!("d 0755 /d{index} mtime={secs}.999999999\n"),
            ]
        })
        // The decimals of a negative number count away from 0.
        .map(|line| line.replace("mtime=-2147483648.999999999", "mtime=-2147483647.000000001"))
        .collect();
    check_texts("times", &[&text]);
}

#[test]
fn symlinks_in_the_inode_and_in_a_block() {
    let text: String = [1, 59, 60, 61, 4094, 4095]
        .iter()
        .map(|len| format!("l /l{len} -> {}\n", "t".repeat(*len)))
        .collect();
    check_texts("symbolic links", &[&text]);
}

#[test]
fn xattrs_in_the_inode_and_in_a_block() {
    let many: String = (0..60)
        .map(|n| format!(" xattr:user.attribute-{n}=value-{n}-{}", "v".repeat(20)))
        .collect();
    let text = format!(
        r#"
        f 0755 /capability xattr:security.capability="\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        f 0644 /small xattr:user.a=b xattr:user.empty=""
        f 0644 /binary xattr:user.a="\x00\x01\xff\n"
        f 0644 /large xattr:user.large={}
        f 0644 /many{many}
        f 0644 /same-as-many{many}
        d 0755 /dir xattr:user.dir=x xattr:trusted.overlay.opaque=y
        l /link -> x xattr:security.x=y
        f 0640 /acl acl=u::rw-,u:1000:rw-,g::r--,g:70000:r-x,m::rwx,o::---
        d 0750 /acl-dir acl=u::rwx,u:7:r-x,g::r-x,m::r-x,o::--- dacl=u::rwx,u:7:rwx,g::r-x,m::rwx,o::---
        f 0644 /libarchive libarchive xattr:user.k="a=b c"
        "#,
        "L".repeat(3500)
    );
    check_texts("xattrs", &[&text]);
}

/// The kernel understands the ACLs, not just their bytes.
#[test]
fn acls_mean_the_same_to_getfacl() {
    if !oracle::have_mount().unwrap() || !oracle::have("getfacl").unwrap() {
        return;
    }
    let text = "f 0640 /f acl=u::rw-,u:1000:rw-,g::r--,g:70000:r-x,m::rwx,o::---\n\
                d 0750 /d dacl=u::rwx,u:7:rwx,g::r-x,m::rwx,o::---";
    let built = build(&layers(&[text]), &Recipe::default()).unwrap();
    let mounted = mount::Mount::new(built.image.path(), "ro").unwrap();
    let facl = |name: &str| {
        let path = mounted.path().join(name);
        let arguments = ["-n", "-c", "-E", "-p"].map(std::ffi::OsStr::new);
        oracle::run_ok("getfacl", arguments.into_iter().chain([path.as_os_str()])).unwrap()
    };
    assert_eq!(
        facl("f").trim(),
        "user::rw-\nuser:1000:rw-\ngroup::r--\ngroup:70000:r-x\nmask::rwx\nother::---"
    );
    let expected = "user::rwx\ngroup::r-x\nother::---\n\
                    default:user::rwx\ndefault:user:7:rwx\ndefault:group::r-x\ndefault:mask::rwx\ndefault:other::---";
    assert_eq!(facl("d").trim(), expected);
    mounted.unmount().unwrap();
}

#[test]
fn files_at_the_edges_of_blocks() {
    let text: String = [1_u64, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1]
        .iter()
        .map(|len| format!("f 0644 /f{len} @{len}:{len}\n"))
        .collect();
    check_texts("lengths", &[&text]);
}

#[test]
fn sparse_files_in_every_form() {
    let mut text = String::new();
    for form in ["gnu", "0.0", "0.1", "1.0"] {
        text += &format!("f 0644 /{form}/none len=0 sparse={form}\n");
        text += &format!("f 0644 /{form}/hole len=1000000 sparse={form}\n");
        text += &format!("f 0644 /{form}/one len=1000000 seg=512:@1024:1 sparse={form}\n");
        text += &format!("f 0644 /{form}/end len=1000000 seg=0:@512:1 seg=995328:@4672:2 sparse={form}\n");
        // Stretches on both sides of a block's border, and two in one block.
        text += &format!(
            "f 0644 /{form}/mixed len=30000 seg=512:@512:1 seg=2048:@512:2 seg=3584:@1024:3 sparse={form}\n"
        );
        let many: String = (0..100).map(|n| format!(" seg={}:@512:{n}", n * 8192)).collect();
        text += &format!("f 0644 /{form}/many len=900000{many} sparse={form}\n");
        // Across block groups, which hold 128 MiB.
        let far = (128_u64 << 20) - 512;
        text += &format!("f 0644 /{form}/far len=300000000 seg={far}:@1024:1 sparse={form}\n");
    }
    check_texts("sparse files", &[&text]);
}

/// More holes than the four extents of an inode, more than one leaf, and an index above leaves.
#[test]
fn files_of_many_extents() {
    let many = |count: u64| -> String {
        (0..count)
            .map(|n| format!(" seg={}:@512:{n}", n * 8192))
            .collect()
    };
    let text: String = [4_u64, 5, 340, 341, 1400]
        .iter()
        .map(|&count| {
            format!(
                "f 0644 /e{count} len={}{} sparse=1.0\n",
                count * 8192 + 7,
                many(count)
            )
        })
        .collect();
    check_texts("extents", &[&text]);
}

#[test]
fn hard_links_across_layers() {
    check_texts(
        "hard links",
        &[
            "f 0644 /a \"one\"\nl /l -> a\nc 0600 /c 1 3\nf 0644 /gone @5000:1",
            "h /b /a\nh /m /l\nh /d/c /c\nh /kept /gone",
            "w /a\nw /gone\nf 0644 /b2\nh /e /b",
        ],
    );
}

/// Bytes that an upper layer hides must not be in the image.
#[test]
fn hidden_bytes_are_not_in_the_image() {
    let secret = "this-must-not-be-in-the-image";
    let lower = format!(
        "f 0644 /secret \"{}\"\nf 0644 /dir/secret \"{}\"\nf 0644 /over \"{secret}\"\nf 0644 /kept \"public\"",
        secret,
        secret.repeat(400)
    );
    for upper in [
        "w /secret\nw /dir\nw /over",
        "opq /\nf 0644 /kept \"public\"",
        "w /secret\nopq /dir\nf 0644 /over \"new\"",
    ] {
        let built = check(&layers(&[&lower, upper]), &Recipe::default()).unwrap();
        let bytes = std::fs::read(built.image.path()).unwrap();
        let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(
            !found(secret.as_bytes()),
            "hidden bytes are in the image after {upper:?}"
        );
        assert!(found(b"public"));
    }
}

/// An image as small as what is in it.
fn least() -> Recipe {
    Recipe {
        ext4: firebrick_ext4::Options {
            size: firebrick_ext4::Size::Least,
            ..firebrick_ext4::Options::default()
        },
        ..Recipe::default()
    }
}

/// What upper layers hide leaves no room, everything else is as it was, and so it is twice.
#[test]
fn the_smallest_image_has_no_room_for_what_is_hidden() {
    let lower = "f 0644 /first @3000000:1\nf 0644 /hidden @20000000:2\nf 0644 /small \"hello\"\n\
                 f 0644 /sparse len=5000000 seg=512000:@70000:1 seg=4194304:@5:2 sparse=1.0\n\
                 f 0644 /last @5000000:3\nh /hard /last\nf 0644 /empty";
    let set = layers(&[lower, "w /hidden\nf 0644 /over @70000:4\nh /again /first"]);
    let built = check(&set, &least()).unwrap();
    let report = &built.report;
    assert!(report.size_bytes < 10_000_000, "{report:?}");
    // Metadata begins at a whole MiB.
    assert!(report.free_bytes < 1 << 20, "{report:?}");
    assert_eq!(report.hidden_bytes, 20_000_000_u64.next_multiple_of(4096));
    assert!(report.layers.iter().all(|layer| layer.region_start.is_none()));
    let auto = check(&set, &Recipe::default()).unwrap();
    assert!(
        auto.report.size_bytes > report.size_bytes + 19_000_000,
        "{report:?}"
    );
    assert_eq!(auto.report.hidden_bytes, report.hidden_bytes);
    let bytes = |built: &Built| std::fs::read(built.image.path()).unwrap();
    assert!(bytes(&check(&set, &least()).unwrap()) == bytes(&built));
    for texts in [&[""][..], &["f 0644 /a/b @100000:1", "opq /"], &["f 0644 /a"]] {
        check(&layers(texts), &least()).unwrap();
    }
}

#[test]
fn every_compression_gives_the_same_image() {
    let set = layers(&["f 0644 /a @100000:1\nd 0755 /d", "w /a\nf 0644 /b @70000:2"]);
    let image = |compression| {
        let recipe = Recipe {
            layout: oci::Options {
                compression,
                ..Default::default()
            },
            ..Recipe::default()
        };
        std::fs::read(check(&set, &recipe).unwrap().image.path()).unwrap()
    };
    let plain = image(oci::Compression::None);
    assert!(image(oci::Compression::Gzip) == plain);
    assert!(image(oci::Compression::Zstd) == plain);
}

/// The layers of each real image that is here.
fn real_images() -> impl Iterator<Item = Vec<PathBuf>> {
    let alpine = fixtures::ALPINE
        .iter()
        .filter_map(|name| fixtures::fixture(name))
        .map(|path| vec![path]);
    let busybox = fixtures::BUSYBOX
        .iter()
        .filter_map(|name| fixtures::fixture(name));
    let busybox = busybox.map(|layout| oci::layer_blobs(&layout).unwrap());
    alpine.chain(busybox)
}

#[test]
fn real_images_show_what_their_layers_say() {
    for blobs in real_images() {
        let set: Vec<_> = blobs
            .iter()
            .map(|blob| read::read(&std::fs::read(blob).unwrap()).unwrap())
            .collect();
        let built = check(&set, &Recipe::default()).unwrap();
        let links = set.iter().flat_map(|layer| &layer.entries);
        let links = links
            .filter(|entry| matches!(entry.kind, EntryKind::Hardlink(_)))
            .count();
        let name = blobs[0].display().to_string();
        assert!(
            links >= 400 || !name.contains("busybox-musl"),
            "{name} has {links} hard links"
        );
        assert!(
            built.expected.len() > 400,
            "{name} has {} paths",
            built.expected.len()
        );
    }
}

/// Our tar writer is not what decides: the real layers, byte for byte as they are.
#[test]
fn real_images_build_from_their_own_bytes() {
    for paths in real_images() {
        let blob = |path| oci::Blob::found(std::fs::read(path).unwrap()).unwrap();
        let blobs: Vec<_> = paths.iter().map(blob).collect();
        let set: Vec<_> = blobs
            .iter()
            .map(|blob| read::read(&blob.bytes).unwrap())
            .collect();
        let built = build_blobs(&blobs, &Recipe::default()).unwrap();
        let expected = reference::apply(&set, CREATED).unwrap();
        built
            .compare(&expected)
            .unwrap_or_else(|error| panic!("{paths:?}: {error:#}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_show_as_the_reference_says(set in random::layer_set()) {
        for recipe in [Recipe::default(), least()] {
            check(&set, &recipe).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        }
    }
}

/// Every judge sees a difference where there is one: one thing of a finished image is changed behind our back.
#[test]
fn each_judge_notices_each_change() {
    const ALL: [&str; 3] = ["our own reader", "ext4-view", "the mounted image"];
    // What ext4-view does not show.
    const NOT_VIEW: [&str; 2] = ["our own reader", "the mounted image"];
    let changes: &[(&str, &[&str])] = &[
        ("set_inode_field /f mode 0100600", &ALL),
        ("set_inode_field /f uid 7", &ALL),
        ("set_inode_field /f gid 7", &ALL),
        ("set_inode_field /f size 5", &ALL),
        ("set_inode_field /f links_count 2", &NOT_VIEW),
        ("set_inode_field /l block[0] 0x41414141", &ALL),
        ("set_inode_field /c block[0] 0x107", &NOT_VIEW),
        ("ea_set /f user.k other", &NOT_VIEW),
        ("ea_rm /f user.k", &NOT_VIEW),
        ("ln /f /new", &ALL),
        ("unlink /f", &ALL),
        ("set_inode_field /p mode 0140644", &ALL),
    ];
    let text =
        "f 0644 /f \"content\" xattr:user.k=v\nl /l -> target\nc 0600 /c 1 3\np 0644 /p\nf 0644 /g @9000:1";
    let built = check(&layers(&[text]), &Recipe::default()).unwrap();
    let original = std::fs::read(built.image.path()).unwrap();
    for (command, noticed_by) in changes {
        built.image.change(command).unwrap();
        assert_noticed(command, &built, noticed_by);
        std::fs::write(built.image.path(), &original).unwrap();
    }
    // One byte of one file, which no checksum of ext4 covers.
    let mut bytes = original;
    let place = bytes.windows(7).position(|window| window == b"content").unwrap();
    bytes[place] = b'C';
    std::fs::write(built.image.path(), &bytes).unwrap();
    assert_noticed("one byte", &built, &ALL);
}

/// An image of ours has one time for each path; whoever shows times notices another.
#[test]
fn each_judge_notices_another_time() {
    let layers = layers(&["f 0644 /f mtime=1.5\nd 0755 /d mtime=4294967296"]);
    let built = check(&layers, &Recipe::default()).unwrap();
    let original = std::fs::read(built.image.path()).unwrap();
    for field in ["atime", "ctime", "crtime", "mtime"] {
        for (field, value) in [
            (field.to_owned(), "20200101000000"),
            (format!("{field}_extra"), "0x10"),
        ] {
            for path in ["/f", "/d"] {
                let change = format!("set_inode_field {path} {field} {value}");
                built.image.change(&change).unwrap();
                let said = format!("{path} has other times");
                let ours = own::listing(built.image.path()).unwrap_err();
                assert!(
                    ours.root_cause().to_string().starts_with(&said),
                    "{change}: {ours:#}"
                );
                match built.image.mounted_listing() {
                    Ok(None) => {}
                    Ok(Some(_)) => panic!("{change}: the walk of the mount does not notice"),
                    Err(error) => assert!(error.to_string().starts_with(&said), "{change}: {error:#}"),
                }
                if field.starts_with("mtime") {
                    let viewed = built.image.viewed_listing().unwrap();
                    diff(&built.expected, &viewed, &Ignore::EXT4_VIEW).unwrap_err();
                }
                std::fs::write(built.image.path(), &original).unwrap();
            }
        }
    }
}

fn assert_noticed(change: &str, built: &Built, noticed_by: &[&str]) {
    let views = views(&built.image, true).unwrap_or_else(|error| panic!("{change}: {error:#}"));
    for view in views.iter().filter(|view| noticed_by.contains(&view.who)) {
        let same = diff(&built.expected, &view.listing, &view.ignore).is_ok();
        assert!(!same, "{} does not notice: {change}", view.who);
    }
    assert!(
        views.len() == 3 || oracle::have_mount().is_ok_and(|have| !have),
        "{change}"
    );
}

/// What our reader sums up of an image is what `dumpe2fs` does, from one group to several.
#[test]
fn the_reader_sums_up_what_dumpe2fs_does() {
    use firebrick_ext4::{Size, read::Filesystem};
    for mib in [3, 128, 129, 700] {
        let mut recipe = Recipe::default();
        recipe.ext4.size = Size::Bytes(mib << 20);
        recipe.ext4.label = b"a label".to_vec();
        let built = build(&layers(&["f 0644 /a @9000:1\nd 0755 /d"]), &recipe).unwrap();
        let filesystem = Filesystem::open(std::fs::File::open(built.image.path()).unwrap()).unwrap();
        let summary = filesystem.summary();
        let field = |name: &str| built.image.superblock_field(name).unwrap();
        let counts = [
            ("Block count", summary.blocks),
            ("Free blocks", summary.free_blocks),
            ("Reserved block count", summary.reserved_blocks),
            ("Block size", summary.block_size.into()),
            ("Inode count", summary.inodes.into()),
            ("Free inodes", summary.free_inodes.into()),
            ("Inode size", summary.inode_size.into()),
        ];
        for (name, count) in counts {
            assert_eq!(field(name), count.to_string(), "{name} of {mib} MiB");
        }
        assert_eq!(field("Filesystem UUID"), summary.uuid_text());
        assert_eq!(field("Filesystem volume name").as_bytes(), &*summary.label);
        // Lines `Group 0: (Blocks …`; `Group descriptor size` is none of them.
        let text = built.image.dumpe2fs().unwrap();
        let groups = text
            .lines()
            .filter(|line| line.starts_with("Group ") && line.contains(": (Blocks "))
            .count();
        assert_eq!(summary.groups as usize, groups, "groups of {mib} MiB");
        assert_eq!(groups as u64, mib.div_ceil(128));
    }
}

/// Attributes that ext4 has no namespace for are left out, and each inode that had one is named once.
#[test]
fn what_is_left_out_is_told() {
    let text = "d 0755 /d\nf 0644 /d/f xattr:bogus.x=1 xattr:user.kept=2\nh /hard /d/f\nf 0644 /g xattr:com.example=3";
    let built = build(&layers(&[text]), &Recipe::default()).unwrap();
    assert_eq!(built.report.left_out_xattrs, ["/d/f: bogus.x", "/g: com.example"]);
    let listing = own::listing(built.image.path()).unwrap();
    let names: Vec<_> = listing[b"/hard".as_slice()].xattrs.keys().collect();
    assert_eq!(names, [b"user.kept"]);
}

/// Nobody reads eight gigabytes of nothing, or writes them.
#[test]
fn holes_of_a_folder_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(8 << 30).unwrap();
    sparse.write_all_at(b"end", (8 << 30) - 3).unwrap();
    let source = format!("dir:{}", dir.path().display()).parse().unwrap();
    let start = std::time::Instant::now();
    let built = build_found(&source, &Recipe::default()).unwrap();
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    assert!(built.report.size_bytes < 8 << 20, "{:?}", built.report);
    let stat = built.image.debugfs("stat /sparse").unwrap();
    assert!(stat.contains(&format!("Size: {}", 8_u64 << 30)), "{stat}");
    assert!(
        stat.contains("Blockcount: 8\n") && stat.contains("(2097151):"),
        "{stat}"
    );
}

/// A folder of the host becomes the image of itself.
#[test]
fn a_folder_shows_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("root");
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    std::fs::write(folder.join("a/file"), vec![7; 10_000]).unwrap();
    std::fs::hard_link(folder.join("a/file"), folder.join("a/b/hard")).unwrap();
    std::os::unix::fs::symlink("../nowhere", folder.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let sparse = std::fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"across two blocks", 40_950).unwrap();
    sparse.write_all_at(&[0; 50_000], 500_000).unwrap();
    let source = format!("dir:{}", folder.display()).parse().unwrap();
    let built = build_found(&source, &Recipe::default()).unwrap();
    let mut expected = walk::walk(&folder).unwrap();
    // The folder's own filesystem may count links of folders otherwise.
    let ignore = Ignore {
        dir_links: true,
        ..Ignore::NOTHING
    };
    for record in expected.values_mut() {
        record.xattrs.retain(|name, _| !name.starts_with(b"security."));
    }
    diff(&expected, &own::listing(built.image.path()).unwrap(), &ignore).unwrap();
    if let Some(mounted) = built.image.mounted_listing().unwrap() {
        diff(&expected, &mounted, &ignore).unwrap();
    }
}
