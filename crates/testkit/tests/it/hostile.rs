//! Proves that hostile input to a whole build costs a clear error: no panic, no image, nothing left, and bounded memory
//! and time, whatever the input promises. Each build runs in a process of its own, which says how much memory it held.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use firebrick_digest::Digest;
use firebrick_testkit::build::names_in;
use firebrick_testkit::child;
use firebrick_testkit::layers::oci::{Blob, Compression, Options, write_layout_of_blobs};
use firebrick_testkit::layers::tar::{pax_record, to_tar, write_entry};
use firebrick_testkit::layers::{Entry, EntryKind, Layer};
use serde_json::{Value, json};

/// Builds `reference`, which must fail within bounds and say `words`.
fn refused(name: &str, reference: &str, words: &[&str]) {
    child::refused(env!("CARGO_BIN_EXE_build-image"), name, reference, words).unwrap();
}

/// As [`refused`], of a layer's tar as it is.
fn tar_refused(name: &str, tar: &[u8], words: &[&str]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tar).unwrap();
    refused(name, &format!("tar:{}", file.path().display()), words);
}

/// As [`refused`], of a gzip-compressed tar that is too long to hold.
fn stream_refused(name: &str, words: &[&str], fill: impl FnOnce(&mut dyn Write)) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(
        BufWriter::new(file.reopen().unwrap()),
        flate2::Compression::fast(),
    );
    fill(&mut encoder);
    encoder.finish().unwrap().flush().unwrap();
    refused(name, &format!("tar:{}", file.path().display()), words);
}

fn layer(text: &str) -> Vec<u8> {
    to_tar(&text.parse::<Layer>().unwrap())
}

#[test]
fn paths_that_lead_out() {
    tar_refused(
        "dotdot",
        &layer("f 0644 ../../etc/passwd \"x\""),
        &["\"..\"", "../../etc/passwd"],
    );
    tar_refused("dotdot inside", &layer("f 0644 a/../../x"), &["\"..\""]);
    tar_refused(
        "dotdot link",
        &layer("f 0644 /a\nh /b ../../etc/shadow"),
        &["\"..\""],
    );
    tar_refused("dotdot whiteout", &layer("w ../x"), &["\"..\""]);
    tar_refused(
        "below a file",
        &layer("f 0644 /a\nf 0644 /a/b"),
        &["/a/b", "not a directory"],
    );
    tar_refused(
        "long name",
        &layer(&format!("f 0644 /{}", "n".repeat(256))),
        &["256 bytes", "255"],
    );
    tar_refused(
        "long path",
        &layer(&format!("f 0644 /{}", "n/".repeat(2100))),
        &["4095"],
    );
}

/// Absolute names and symbolic links among the parents stay inside, as in a container: nothing of the host is touched.
#[test]
fn paths_that_only_seem_to_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let text = format!(
        "f 0644 /{0} \"x\"\nl /l -> {1}\nf 0644 /l/y \"x\"",
        outside.display(),
        dir.path().display()
    );
    let tar = dir.path().join("layer.tar");
    std::fs::write(&tar, layer(&text)).unwrap();
    let output = dir.path().join("rootfs.ext4");
    let program = env!("CARGO_BIN_EXE_build-image");
    let outcome = child::finish(child::command(
        program,
        &format!("tar:{}", tar.display()),
        &output,
    ))
    .unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(names_in(dir.path()).unwrap(), ["layer.tar", "rootfs.ext4"]);
    let listing = firebrick_testkit::own::listing(&output).unwrap();
    for name in ["outside", "y"] {
        let path = format!("{}/{name}", dir.path().display());
        assert!(listing.contains_key(path.as_bytes()), "{path}");
    }
}

#[test]
fn links_in_circles() {
    tar_refused(
        "hard links",
        &layer("h /a /b\nh /b /a"),
        &["hardlink /a names /b"],
    );
    tar_refused("to itself", &layer("h /a /a"), &["hardlink /a names /a"]);
    tar_refused(
        "symbolic links",
        &layer("l /a -> b\nl /b -> a\nf 0644 /a/x"),
        &["loop of symbolic links"],
    );
    // Each link leads through the next one twice: 2^60 steps for who follows them all.
    let chain: String = (0..60)
        .map(|n| format!("l /l{n} -> l{}/../l{}\n", n + 1, n + 1))
        .collect();
    tar_refused(
        "doubling",
        &layer(&format!("{chain}f 0644 /l0/x")),
        &["symbolic links"],
    );
}

#[test]
fn headers_that_lie() {
    tar_refused(
        "longer than the tar",
        &layer("f 0644 /a \"x\" size=1000000"),
        &["in the middle of an entry"],
    );
    tar_refused(
        "longest",
        &layer("f 0644 /a \"x\" size=9223372036854775807"),
        &["unpacked bytes"],
    );
    tar_refused("shorter", &layer("f 0644 /a @5000:1 size=100"), &["checksum"]);
    tar_refused("no tar", &vec![b'x'; 100_000], &["checksum"]);
    let mut negative = layer("f 0644 /a \"x\"");
    negative[124..136].fill(0xff);
    tar_refused("negative", &negative, &["checksum"]);
    tar_refused(
        "sparse beyond everything",
        &layer("f 0644 /a len=9000000000000000000 sparse=1.0"),
        &["/a"],
    );
}

#[test]
fn streams_that_end_early_or_are_damaged() {
    let tar = layer("f 0644 /a @300000:1\nf 0644 /b @300000:2");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let blob = compression.compress(&tar);
        tar_refused("cut", &blob[..blob.len() / 2], &["cannot read the layer"]);
        tar_refused(
            "cut at the end",
            &blob[..blob.len() - 2],
            &["cannot read the layer"],
        );
    }
    let mut damaged = Compression::Gzip.compress(&tar);
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    tar_refused("gzip's own sum", &damaged, &["cannot read the layer"]);
    tar_refused("plain, cut", &tar[..700], &["in the middle of an entry"]);
}

/// Files of zeros behind a header that promises 90 GB.
fn bomb() -> (Vec<u8>, Vec<u8>) {
    let mut entry = Entry::file("zeros", b"");
    entry.lie = Some(90 << 30);
    let mut header = Vec::new();
    write_entry(&entry, &mut header).unwrap();
    (header, vec![0; 64 << 20])
}

/// gzip at its best: a thousand zeros a byte. (At its fastest it stays below the bound.)
fn best(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn decompression_bombs() {
    let (header, zeros) = bomb();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut blob = compression.compress(&header);
        let piece = match compression {
            Compression::Gzip => best(&zeros),
            other => other.compress(&zeros),
        };
        (0..1000).for_each(|_| blob.extend(&piece));
        tar_refused("bomb", &blob, &["ratio of 250"]);
    }
    // A compressed archive of images is unpacked to a temporary file: the same bound.
    let mut archive = Compression::Gzip.compress(&header);
    let piece = best(&zeros);
    (0..1000).for_each(|_| archive.extend(&piece));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), archive).unwrap();
    let place = file.path().display();
    refused(
        "docker-archive",
        &format!("docker-archive:{place}"),
        &["compressed"],
    );
    refused("oci-archive", &format!("oci-archive:{place}"), &["compressed"]);
}

/// Empty files with names like `d0001/name-0000500`.
fn write_entries(count: u32, tar: &mut dyn Write) {
    let mut header = Vec::new();
    write_entry(&Entry::file("", b""), &mut header).unwrap();
    for n in 0..count {
        let name = format!("d{:04}/name-{n:07}", n / 500);
        header[..name.len()].copy_from_slice(name.as_bytes());
        mend(&mut header);
        tar.write_all(&header).unwrap();
    }
}

#[test]
fn five_million_entries() {
    stream_refused("entries", &["more than 1000000 entries"], |tar| {
        write_entries(5_000_000, tar);
    });
}

/// What is let through is bounded too: a tree at the limit, with all that a build holds beside it.
#[test]
fn as_many_entries_as_are_let_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer.tar.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    // With 1996 folders that no entry makes, and the root.
    write_entries(998_000, &mut encoder);
    encoder.finish().unwrap();
    let output = dir.path().join("rootfs.ext4");
    let program = env!("CARGO_BIN_EXE_build-image");
    let command = child::command(program, &format!("tar:{}", path.display()), &output);
    let outcome = child::finish(command).unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.peak_mib().unwrap() <= 500, "{outcome:?}");
    firebrick_testkit::oracle::Image::check(&output).unwrap();
}

/// 3000 entries in a few kilobytes that stand for six million directories.
#[test]
fn directories_that_paths_imply() {
    stream_refused("deep", &["one inode too many", "1000000"], |tar| {
        for n in 0..3000 {
            write_entry(&Entry::file(&format!("{n}/{}x", "d/".repeat(2030)), b""), tar).unwrap();
        }
    });
}

/// Every entry leads through 40 links and two thousand directories, and no two in a row through the same.
#[test]
fn paths_that_take_for_ever_to_find() {
    stream_refused("tangled", &["too many directories and symbolic links"], |tar| {
        let mut entry = Entry::dir("d");
        write_entry(&entry, tar).unwrap();
        for n in 0..40 {
            entry = Entry::new(format!("l{n}").as_bytes(), EntryKind::Symlink(Vec::new()), 0o777);
            let next = if n == 39 {
                "d".to_owned()
            } else {
                format!("l{}", n + 1)
            };
            entry.kind = EntryKind::Symlink(format!("{}{next}", "d/../".repeat(800)).into_bytes());
            write_entry(&entry, tar).unwrap();
        }
        for n in 0..20_000 {
            let parent = if n % 2 == 0 { "l0" } else { "l1" };
            write_entry(&Entry::file(&format!("{parent}/{n}"), b""), tar).unwrap();
        }
    });
}

#[test]
fn giant_xattrs_and_headers() {
    let with = |len: usize, count: usize| {
        let mut entry = Entry::file("f", b"x");
        for n in 0..count {
            entry
                .xattrs
                .push((format!("user.x{n}").into_bytes(), vec![b'v'; len]));
        }
        to_tar(&Layer { entries: vec![entry] })
    };
    tar_refused(
        "more than a block",
        &with(5000, 1),
        &["/f", "extended attributes"],
    );
    tar_refused("many", &with(100, 1000), &["/f", "extended attributes"]);
    tar_refused("64 KiB", &with(65_536, 1), &["/f", "extended attributes"]);
    tar_refused(
        "a header of 20 MB",
        &with(1 << 20, 20),
        &["extended header", "4194304"],
    );
    // As many headers before one entry as the tar has room for.
    stream_refused("piled headers", &["extended headers of one entry"], |tar| {
        for n in 0..500 {
            let record = pax_record(format!("SCHILY.xattr.user.{n}").as_bytes(), &vec![b'v'; 1 << 20]);
            let mut header = Entry::file("pax", &record);
            header.mode = 0;
            let mut bytes = Vec::new();
            write_entry(&header, &mut bytes).unwrap();
            bytes[156] = b'x';
            mend(&mut bytes[..512]);
            tar.write_all(&bytes).unwrap();
        }
    });
    stream_refused(
        "xattrs of many files",
        &["134217728 bytes of names, xattrs"],
        |tar| {
            let mut entry = Entry::file("f", b"");
            entry.xattrs.push((b"user.x".to_vec(), vec![b'v'; 3500]));
            for n in 0..45_000 {
                entry.path = format!("{n}").into_bytes();
                write_entry(&entry, tar).unwrap();
            }
        },
    );
}

fn mend(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A layout of one layer whose documents a test may bend.
struct Bent {
    dir: tempfile::TempDir,
}

impl Bent {
    fn new() -> Bent {
        let dir = tempfile::tempdir().unwrap();
        let blob = Blob::of_tar(&layer("f 0644 /a @9000:1"), Compression::Gzip);
        write_layout_of_blobs(dir.path(), &[blob], &Options::default()).unwrap();
        Bent { dir }
    }

    fn read(&self, path: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join(path)).unwrap()).unwrap()
    }

    fn blob_path(descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap();
        format!("blobs/{}", digest.replace(':', "/"))
    }

    /// Changes the manifest, and names it anew in the index.
    fn manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut index = self.read("index.json");
        let mut manifest = self.read(&Bent::blob_path(&index["manifests"][0]));
        change(&mut manifest);
        let bytes = manifest.to_string();
        let digest = Digest::of(bytes.as_bytes());
        index["manifests"][0]["digest"] = json!(digest.to_string());
        index["manifests"][0]["size"] = json!(bytes.len());
        std::fs::write(
            self.dir.path().join(format!("blobs/sha256/{}", digest.hex())),
            bytes,
        )
        .unwrap();
        std::fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Changes the config, and names it anew in the manifest.
    fn config(&self, change: impl FnOnce(&mut Value)) {
        self.manifest(|manifest| {
            let mut config = self.read(&Bent::blob_path(&manifest["config"]));
            change(&mut config);
            let bytes = config.to_string();
            let digest = Digest::of(bytes.as_bytes());
            manifest["config"]["digest"] = json!(digest.to_string());
            manifest["config"]["size"] = json!(bytes.len());
            std::fs::write(
                self.dir.path().join(format!("blobs/sha256/{}", digest.hex())),
                bytes,
            )
            .unwrap();
        });
    }

    fn refused(&self, name: &str, words: &[&str]) {
        refused(name, &format!("oci:{}", self.dir.path().display()), words);
    }
}

/// Makes a file a gigabyte long without writing it.
fn gigabyte(path: &Path) {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
}

#[test]
fn documents_of_a_gigabyte() {
    let bent = Bent::new();
    gigabyte(&bent.dir.path().join("index.json"));
    bent.refused("index", &["4194304"]);

    let bent = Bent::new();
    let manifest = Bent::blob_path(&bent.read("index.json")["manifests"][0]);
    gigabyte(&bent.dir.path().join(manifest));
    bent.refused("manifest", &["manifest"]);

    let bent = Bent::new();
    bent.manifest(|manifest| {
        gigabyte(&bent.dir.path().join(Bent::blob_path(&manifest["config"])));
        manifest["config"]["size"] = json!(1 << 30);
    });
    bent.refused("config", &["config", "4194304"]);

    let bent = Bent::new();
    std::fs::write(bent.dir.path().join("index.json"), r#"{"a":"#.repeat(800_000)).unwrap();
    bent.refused("nested", &["index.json"]);
}

/// As above, of archives: a tar's header, and a gigabyte that nobody wrote.
#[test]
fn documents_of_a_gigabyte_in_archives() {
    for (name, transport) in [("manifest.json", "docker-archive"), ("index.json", "oci-archive")] {
        let mut entry = Entry::file(name, b"");
        entry.lie = Some(1 << 30);
        let mut header = Vec::new();
        write_entry(&entry, &mut header).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), header).unwrap();
        file.as_file().set_len((1 << 30) + 4096).unwrap();
        let place = file.path().display();
        refused(transport, &format!("{transport}:{place}"), &[name, "4194304"]);
    }
}

#[test]
fn documents_that_lie() {
    let bent = Bent::new();
    bent.manifest(|manifest| manifest["layers"][0]["size"] = json!(17));
    bent.refused("shorter layer", &["layer 0"]);

    let bent = Bent::new();
    bent.manifest(|manifest| manifest["layers"][0]["size"] = json!(1_u64 << 60));
    bent.refused("longer layer", &["layer 0"]);

    let bent = Bent::new();
    bent.config(|config| config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"other").to_string()));
    let other = Digest::of(b"other").to_string();
    let found = Digest::of(&layer("f 0644 /a @9000:1")).to_string();
    bent.refused("diff ID", &["layer 0", "diff ID", &other, &found]);

    let bent = Bent::new();
    bent.config(|config| config["rootfs"]["diff_ids"] = json!([]));
    bent.refused("no diff IDs", &["layer"]);

    // Bytes behind the end of the compressed stream are part of the layer's digest, and of nothing else.
    let bent = Bent::new();
    bent.manifest(|manifest| {
        let path = bent.dir.path().join(Bent::blob_path(&manifest["layers"][0]));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(vec![0; 3 << 20]);
        manifest["layers"][0]["size"] = json!(bytes.len());
        std::fs::write(path, bytes).unwrap();
    });
    bent.refused("trailing bytes", &["layer 0", "sha256:"]);

    let bent = Bent::new();
    bent.manifest(|manifest| {
        let path = bent.dir.path().join(Bent::blob_path(&manifest["layers"][0]));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
    bent.refused("changed layer", &["layer 0"]);
}
