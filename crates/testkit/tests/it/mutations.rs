//! Proves that thousands of damaged inputs make no parser of outside bytes panic, hang or break its promises; the same
//! inputs on every run and every toolchain. `scripts/fuzz` goes further with libFuzzer.

use firebrick_testkit::layers::oci::{self, Blob, Compression};
use firebrick_testkit::layers::{Layer, archive, tar::to_tar};
use firebrick_testkit::oracle::{self, Image, say};
use firebrick_testkit::targets::mutate::{Random, mend_tar, mutate};
use firebrick_testkit::{build, targets};

/// Layers that use every feature of tar that we read.
const LAYER: &str = r#"
    f 0644 /etc/motd "hello" uid=70000 mtime=-1.5 xattr:user.a=b acl=u::rwx,u:7:r--,g::r-x,m::r-x,o::---
    f 0644 /1 len=9000 seg=4096:@512:1 seg=8192:"x" sparse=1.0
    f 0644 /2 len=9000 seg=512:@512:1 seg=4096:"x" sparse=0.1
    f 0644 /3 len=9000 seg=512:@512:1 seg=4096:"x" sparse=0.0
    f 0644 /4 len=90000 seg=512:@512:1 seg=2048:@512:1 seg=4096:@512:1 seg=8192:@512:1 seg=16384:@512:1 sparse=gnu
    d 1777 /tmp libarchive xattr:user.k=v
    h /b /etc/motd
    format gnu
    l /a -> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    c 0600 /null 1 3 uid=3000000
    w /etc/motd
    opq /tmp
    p 0644 /p
    format pax
    s 0644 /s
"#;

fn seeds_of_tar() -> Vec<Vec<u8>> {
    let layer: Layer = LAYER.parse().unwrap();
    let single = layer.entries.iter().map(|entry| {
        let entries = vec![entry.clone()];
        to_tar(&Layer { entries })
    });
    let whole = to_tar(&layer);
    let compressed = [Compression::Gzip, Compression::Zstd].map(|compression| compression.compress(&whole));
    single.chain([whole.clone()]).chain(compressed).collect()
}

fn damage(seeds: &[Vec<u8>], count: u64, mend: fn(&mut [u8]), target: fn(&[u8]) -> bool) {
    for (number, seed) in seeds.iter().enumerate() {
        assert!(target(seed), "seed {number} is sound");
    }
    for round in 0..count {
        let mut random = Random::new(round);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        if random.below(4) != 0 {
            mend(&mut bytes);
        }
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        if let Err(panic) = outcome {
            let path = std::env::temp_dir().join(format!("firebrick-mutation-{round}"));
            std::fs::write(&path, &bytes).unwrap();
            say(&format!(
                "round {round} fails; its input is in {}",
                path.display()
            ));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn damaged_layers() {
    damage(&seeds_of_tar(), 6000, mend_tar, targets::tar);
}

fn seeds_of_protocol() -> Vec<Vec<u8>> {
    let lines =
        br#" {"jsonrpc":"2.0","id":1,"method":"exec","params":{"cmd":"true","env":{"A":"b"},"timeout_ms":5}}
{"jsonrpc":"2.0","id":"x","result":{"exit_code":0}}
{"jsonrpc":"2.0","method":"output","params":{}}
{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}
"#;
    let mut wire = vec![200_u8];
    wire.extend([0; 16_396]);
    wire.extend(b"FBMUX2H\n\x07\0\0\0\0\0\0\0");
    for kind in 0..12_u8 {
        wire.extend([kind, 0, 4, 0, 2, 0, 0, 0, 52, 0, 0, 0, 7, 0, 0, 0]);
    }
    let mut reply = vec![3_u8];
    reply.extend(b"FBMUX2G\n\x07\0\0\0\0\0\0\0");
    reply.extend_from_slice(&wire[wire.len() - 160..]);
    vec![lines.to_vec(), wire, reply]
}

#[test]
fn damaged_messages() {
    damage(&seeds_of_protocol(), 3000, |_| {}, targets::protocol);
}

fn framed(json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    [&length, json.as_bytes()].concat()
}

fn seeds_of_requests() -> Vec<Vec<u8>> {
    let params = [
        r#""exec","params":{"argv":["a","b"],"env":{"A":"b"},"cwd":"/","user":"0:0","stdin":true,"pty":{"rows":2,"cols":3}}"#,
        r#""exec_code","params":{"lang":"sh","code":"true","timeout_ms":5,"stream":true}"#,
        r#""put","params":{"path":"/a","root":"/b","mode":420,"owner":"a:b","tree":true,"parents":true}"#,
        r#""remove","params":{"path":"a","root":"/r","recursive":true}"#,
        r#""stdin","params":{"id":"x","data":"QUJD","eof":true}"#,
        r#""signal","params":{"id":1.5,"signal":"SIGTERM"}"#,
        r#""clock_sync","params":{"unix_us":1700000000000000}"#,
        r#""reseed","params":{"data":"MDEyMzQ1Njc4OWFiY2RlZg=="}"#,
        r#""resize","params":{"id":null,"rows":24,"cols":80}"#,
        r#""get","params":{"path":"/a","raw":true}"#,
        r#""shutdown","params":{"mode":"reboot","grace_ms":5}"#,
        r#""write_file","params":{"path":"/x","content":"\u00e9\n"}"#,
    ];
    let line = |params: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":{params}}}\n").into_bytes();
    // A file on its way in, with bytes that could be lines.
    let upload = [
        &br#"{"jsonrpc":"2.0","id":"p","method":"put","params":{"path":"/a"}}"#[..],
        br#"{"jsonrpc":"2.0","method":"stdin","params":{"id":"p","raw":13}}"#,
        b"\n{\"jsonrpc\":\"",
        br#"{"jsonrpc":"2.0","method":"stdin","params":{"id":"p","data":"QUJD","raw":2,"eof":true}}"#,
        br#"[]{"jsonrpc":"2.0","id":2,"method":"ping"}"#,
        b"",
    ];
    let mut seeds = params.map(line).to_vec();
    seeds.push(upload.join(&b'\n'));
    seeds
}

#[test]
fn damaged_requests() {
    damage(&seeds_of_requests(), 10_000, |_| {}, targets::requests);
}

fn seeds_of_jobs() -> Vec<Vec<u8>> {
    let layer: Layer = LAYER.parse().unwrap();
    let plain: Vec<_> = layer
        .entries
        .iter()
        .filter(|entry| format!("{entry:?}").contains("motd"))
        .cloned()
        .collect();
    vec![
        framed(
            r#"{"trace_id":"t","lang":"python","code":"print(1)","stdin":"x","timeout":3,"meta":{"a":"b"}}"#,
        ),
        framed(
            r#"{"lang":"c","files":[{"name":"a/b.c","content":"x\n"},{"name":"../c","content":""}],"stdin":["a",1,null]}"#,
        ),
        to_tar(&Layer { entries: plain }),
    ]
}

#[test]
fn damaged_jobs() {
    damage(&seeds_of_jobs(), 20_000, mend_tar, targets::jobs);
}

fn seeds_of_replies() -> Vec<Vec<u8>> {
    let result = |json: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{json}}}\n").into_bytes();
    vec![
        result(r#"{"exit_code":3,"signal":9,"timed_out":true,"stdout":"a","stderr":"b"}"#),
        result(r#"{"version":"1","protocol":2,"pid1":true,"boottime_us":1,"boot":[{"event":"e","boottime_us":1}],"jobs":0,"connections":1,"memory":{"total_bytes":1,"available_bytes":1}}"#),
        result(r#"{"kind":"symlink","size":1,"mode":511,"uid":0,"gid":0,"mtime_us":-5,"links":1,"target":"x"}"#),
        result(r#"{"entries":[{"name":"a","is_dir":false,"size":5}]}"#),
        br#"{"jsonrpc":"2.0","method":"output","params":{"id":"a","stream":"stderr","data":"QUJD"}}"#.iter().copied().chain(*b"\n").collect(),
        b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"no\",\"data\":{\"errno\":2}}}\n".to_vec(),
        b"{\"jsonrpc\":\"2.0\",\"method\":\"output\",\"params\":{\"id\":\"a\",\"stream\":\"stdout\",\"raw\":5}}\nab\n\0{{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{\"bytes\":5,\"entries\":1,\"changed\":1}}\n".to_vec(),
        result(r#"{"pong":true}"#),
        result(r#"{"adjusted_us":-7}"#),
        result(r#"{"content":"\u00e9\n"}"#),
        framed(r#"{"status":"success","stdout":"","stderr":null,"exception":null,"executionTime":4,"exit_code":1}"#),
        framed(r#"[{"status":"failed","stdout":"","stderr":"x","exception":"y","executionTime":0,"stdin":"z"}]"#),
    ]
}

#[test]
fn damaged_replies() {
    damage(&seeds_of_replies(), 20_000, |_| {}, targets::replies);
}

fn seeds_of_manifests() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "5a".repeat(32));
    let descriptor =
        |kind: &str, more: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":7{more}}}"#);
    let config = descriptor("application/vnd.oci.image.config.v1+json", "");
    let layer = descriptor(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        r#","annotations":{"a":"b"}"#,
    );
    let child = descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#,
    );
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{layer}],"annotations":null}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{child},{config}]}}"#);
    let image = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{{"Env":["A=b"],"Cmd":["sh"],"Labels":{{"k":"v"}},"ExposedPorts":{{"80/tcp":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
    );
    let saved = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let references = [
        "python:3.12-alpine",
        "docker://localhost:5000/a/b:tag",
        "oci:some/dir:tag",
        "docker-archive:file.tar:name:tag",
        "docker-archive:file.tar:@1",
        "tar:x",
        "linux/arm64/v8",
    ];
    let named = format!("registry.example/a@{digest}");
    let documents = [
        (0, manifest.as_str()),
        (2, &manifest),
        (1, &index),
        (4, &image),
        (6, saved),
    ];
    let references = references
        .into_iter()
        .chain([named.as_str()])
        .map(|text| (7, text));
    documents
        .into_iter()
        .chain(references)
        .map(|(choice, text)| [&[choice], text.as_bytes()].concat())
        .collect()
}

#[test]
fn damaged_manifests() {
    damage(&seeds_of_manifests(), 20_000, |_| {}, targets::manifests);
}

fn seeds_of_archives() -> Vec<Vec<u8>> {
    let layer: Layer = "f 0644 /a \"hello\"".parse().unwrap();
    let tar = to_tar(&layer);
    let blobs = [
        Blob::of_tar(&tar, Compression::None),
        Blob::of_tar(&tar, Compression::Gzip),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (oci, docker) = (folder.path().join("oci"), folder.path().join("docker"));
    let options = oci::Options::default();
    archive::write_oci_archive(&oci, &blobs, &options).unwrap();
    archive::write_docker_archive(&docker, &blobs, &options).unwrap();
    let plain = [oci, docker].map(|path| std::fs::read(path).unwrap());
    let compressed = Compression::Gzip.compress(&plain[1]);
    plain.into_iter().chain([compressed]).collect()
}

#[test]
fn damaged_archives() {
    damage(&seeds_of_archives(), 4000, mend_tar, targets::archives);
}

/// Small filesystems of `mke2fs`, with one of every structure, and one of ours.
fn seeds_of_ext4() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("root"), folder.path().join("image"));
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    for index in 0..30 {
        std::fs::write(root.join(format!("d/{}{index}", "name".repeat(20))), "").unwrap();
    }
    let mut sparse = vec![0; 24 << 10];
    for block in sparse.chunks_mut(1024).step_by(2) {
        block[0] = 1;
    }
    std::fs::write(root.join("sparse"), sparse).unwrap();
    std::os::unix::fs::symlink("d/e", root.join("short")).unwrap();
    std::os::unix::fs::symlink("x".repeat(100), root.join("long")).unwrap();
    let mut images = Vec::new();
    for features in [
        "ext2",
        "ext4 -O ^has_journal",
        "ext4 -O ^has_journal,^metadata_csum",
        "ext4 -O ^has_journal,^metadata_csum,ea_inode,meta_bg,^resize_inode",
    ] {
        let arguments = format!("-q -F -b 1024 -N 64 -m 0 -t {features} -d");
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.extend([root.to_str().unwrap(), image.to_str().unwrap(), "400K"]);
        oracle::run_ok("mke2fs", arguments).unwrap();
        let made = Image::check(&image).unwrap();
        made.change("ea_set /sparse user.small value").unwrap();
        images.push(std::fs::read(&image).unwrap());
        std::fs::remove_file(&image).unwrap();
    }
    let built = build::build(&[LAYER.parse().unwrap()], &build::Recipe::default()).unwrap();
    images.push(std::fs::read(built.image.path()).unwrap());
    images.iter().map(|image| targets::to_records(image)).collect()
}

/// Those of them that can be checked.
fn seeds_of_checks() -> Vec<Vec<u8>> {
    let mut seeds = seeds_of_ext4();
    seeds.retain(|seed| targets::ext4_check(seed));
    seeds
}

#[test]
fn damaged_filesystems() {
    damage(&seeds_of_ext4(), 4000, |_| {}, targets::ext4);
}

#[test]
fn damaged_filesystems_that_are_checked() {
    damage(&seeds_of_checks(), 4000, |_| {}, targets::ext4_check);
}

#[test]
fn damaged_tables_of_stores() {
    let [(_, seeds), ..] = targets::store_seeds();
    damage(&seeds, 3000, |_| {}, targets::store_tables);
}

#[test]
fn damaged_documents_of_stores() {
    let [_, (_, seeds), _] = targets::store_seeds();
    damage(&seeds, 6000, |_| {}, targets::store_documents);
}

#[test]
fn damaged_archives_of_stores() {
    let [.., (_, seeds)] = targets::store_seeds();
    damage(&seeds, 4000, mend_tar, targets::store_archives);
}

#[test]
fn damaged_documents_of_trust() {
    damage(&targets::trust_seeds(), 10_000, |_| {}, targets::trust);
}

/// Writes the seeds where `scripts/fuzz` wants them; without that, only makes sure that there are some.
#[test]
fn seeds() {
    let folder = std::env::var_os("FIREBRICK_FUZZ_SEEDS").map(std::path::PathBuf::from);
    for (target, seeds) in [
        ("tar", seeds_of_tar()),
        ("protocol", seeds_of_protocol()),
        ("requests", seeds_of_requests()),
        ("jobs", seeds_of_jobs()),
        ("replies", seeds_of_replies()),
        ("manifests", seeds_of_manifests()),
        ("archives", seeds_of_archives()),
        ("ext4", seeds_of_ext4()),
        ("ext4_check", seeds_of_checks()),
        ("inventory", seeds_of_databases()),
        ("squashfs", seeds_of_squashfs()),
        ("nbd", seeds_of_nbd()),
        ("trust", targets::trust_seeds()),
    ]
    .into_iter()
    .chain(targets::store_seeds())
    {
        assert!(seeds.iter().all(|seed| !seed.is_empty()), "{target}");
        let Some(folder) = &folder else { continue };
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

/// A small image in each compression; what is not compressed is where damage goes deepest.
fn seeds_of_squashfs() -> Vec<Vec<u8>> {
    use firebrick_squashfs::{Compression, Options};
    use firebrick_testkit::squashfs;
    let text = r#"
        f 0644 /etc/motd "hello" uid=70000 xattr:user.a=b
        f 0644 /large @20000:1
        f 0644 /sparse len=90000 seg=8192:@512:1 sparse=1.0
        l /link -> etc/motd
        c 0600 /null 1 3
        p 0644 /pipe xattr:trusted.x=y
        h /hard /large
    "#;
    let many: String = (0..300)
        .map(|n| format!("f 0644 /many/a-name-that-is-long-{n} \"{n}\"\n"))
        .collect();
    let layers = [text, &many].map(|text| text.parse::<Layer>().unwrap());
    let image = |compression| {
        let options = Options {
            compression,
            block_size: 4096,
            ..Options::default()
        };
        let built = squashfs::build(&layers, &squashfs::recipe(options)).unwrap();
        std::fs::read(built.path).unwrap()
    };
    Compression::ALL.into_iter().map(image).collect()
}

#[test]
fn damaged_squashfs_images() {
    damage(&seeds_of_squashfs(), 6000, |_| {}, targets::squashfs);
}

/// A program of 64 bits with one section of this name.
fn program(name: &[u8], section: &[u8]) -> Vec<u8> {
    let names = [b"\0.shstrtab\0", name, b"\0"].concat();
    let table = 64 + section.len() + names.len();
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
    file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
    file.extend_from_slice(section);
    file.extend_from_slice(&names);
    for (name, offset, size) in [
        (0_u32, 0, 0),
        (11, 64, section.len()),
        (1, 64 + section.len(), names.len()),
    ] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
        header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend_from_slice(&header);
    }
    file
}

/// A database of RPM with a package, and one whose row has many pages.
fn rpm_database() -> Vec<u8> {
    let header = |name: &str, len: usize| {
        let strings = format!(
            "{name}\x001.2\x003\x00MIT\x00a-1-2.src.rpm\x00/usr/bin/\x00ls\x00{}\x00",
            "x".repeat(len)
        );
        let data = [&[0, 0, 0, 0, 0, 0, 0, 4], strings.as_bytes()].concat();
        let at = |text: &str| 8 + strings.find(text).unwrap();
        let tags = [
            (1000, 6, 8, 1),
            (1001, 6, at("1.2"), 1),
            (1002, 6, at("3\0M"), 1),
            (1003, 4, 4, 1),
            (1014, 6, at("MIT"), 1),
            (1044, 6, at("a-1"), 1),
            (1116, 4, 0, 1),
            (1117, 8, at("ls\0"), 1),
            (1118, 8, at("/usr"), 1),
        ];
        let mut blob = [tags.len(), data.len()]
            .map(|len| u32::try_from(len).unwrap().to_be_bytes())
            .concat();
        for (tag, kind, offset, count) in tags {
            for word in [tag, kind, u32::try_from(offset).unwrap(), count] {
                blob.extend(u32::to_be_bytes(word));
            }
        }
        blob.extend(data);
        blob.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\ndb.execute('pragma page_size=512')\n\
        db.execute('create table Packages (hnum integer primary key autoincrement, blob blob not null)')\n\
        for header in sys.argv[2:]: db.execute('insert into Packages (blob) values (?)', (bytes.fromhex(header),))";
    let (path_text, one, two) = (path.to_str().unwrap(), header("small", 1), header("large", 3000));
    oracle::run_ok("python3", ["-c", script, path_text, &one, &two]).unwrap();
    std::fs::read(path).unwrap()
}

/// One image for each kind of database: the choice, and its files with a divider between.
fn seeds_of_databases() -> Vec<Vec<u8>> {
    use std::io::Write as _;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(br#"{"packages": [{"name": "app", "version": "0.1.0", "root": true}, {"name": "x", "version": "1", "kind": "build"}]}"#)
        .unwrap();
    let tool = program(b".dep-v0", &zlib.finish().unwrap());
    let divided = |choice: u8, files: &[&str]| {
        let files: Vec<&[u8]> = files.iter().map(|file| file.as_bytes()).collect();
        [&[choice], files.join(&0xff).as_slice()].concat()
    };
    vec![
        divided(
            0,
            &[
                "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nSource: t (1)\nMaintainer: a <b@c>\n\n\
                 Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: tool\nStatus: a b installed\nVersion: 2\n",
                "/.\n/bin\n/bin/ls\n/etc/motd\n",
                "/etc/motd\n/usr/lib/python3/six.py\nother\n",
                "Format: https://x\nLicense: Expat\n\nFiles: *\nLicense: GPL-2+ or X\n text\n",
                "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='x'\n",
            ],
        ),
        divided(
            1,
            &[
                "Package: base\nVersion: 12.4\nArchitecture: all\n",
                "0123  etc/motd\nzz  x\n",
            ],
        ),
        divided(
            2,
            &[
                "C:Q1x=\nP:musl\nV:1.2-r0\nA:x86_64\nL:MIT AND (BSD-3-Clause OR X)\nm:a\nU:https://x\no:m\nF:usr/bin\nR:ls\na:0:0:755\n\nP:b\nV:1\nF:etc\nR:motd\n",
                "ID=alpine",
            ],
        ),
        divided(
            3,
            &[
                "Metadata-Version: 2.1\nName: six\nVersion: 1\nLicense-Expression: MIT\nHome-page: https://six\n\nName: not\n",
                "six.py,sha256=a,3\n\"../../bin/ls\",,\n../../../../etc/motd,,\n",
                "Name: old\nVersion: 2\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n",
                "../six.py\nPKG-INFO\n",
            ],
        ),
        divided(
            4,
            &[
                r#"{"name": "a", "version": "1.0.0", "license": "MIT", "author": {"name": "me"}, "homepage": "https://a"}"#,
                r#"{"name": "@s/b", "version": "2.0.0", "licenses": [{"type": "ISC"}, "MIT"]}"#,
            ],
        ),
        divided(
            5,
            &[
                "version = 4\n\n[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n\n[metadata]\nname = \"no\"\n",
                "[v1]\n\"rg 14.1.0 (registry+https://x)\" = [\n]\n\"fd 9.0.0 (path)\" = [\"ls\", \"../../etc/x\"]\n",
            ],
        ),
        [&[6], tool.as_slice()].concat(),
        [&[7], rpm_database().as_slice()].concat(),
    ]
}

#[test]
fn damaged_databases_of_packages() {
    damage(&seeds_of_databases(), 12_000, |_| {}, targets::inventory);
}

/// Clients of a disk: one of each way into the transmission, with every request.
fn seeds_of_nbd() -> Vec<Vec<u8>> {
    let option = |kind: u8, data: &[u8]| {
        let len = u32::try_from(data.len()).unwrap().to_be_bytes();
        [b"IHAVEOPT\0\0\0", &[kind][..], &len, data].concat()
    };
    let request = |kind: u8, flags: u8, offset: u64, len: u32| {
        let start = b"\x25\x60\x95\x13\0";
        let [offset, cookie] = [offset, 7].map(u64::to_be_bytes);
        [start, &[flags, 0, kind][..], &cookie, &offset, &len.to_be_bytes()].concat()
    };
    let requests = [
        request(0, 0, 100, 60_000),
        request(7, 0, 0, 65_543),
        request(0, 4, 4096, 30_000),
        request(7, 8, 9000, 10),
        request(5, 0, 0, 65_543),
        request(3, 0, 0, 0),
        request(1, 0, 0, 5),
        b"hello".to_vec(),
        request(0, 0, 65_000, 543),
        request(6, 0, 0, 512),
        request(2, 0, 0, 0),
    ]
    .concat();
    let context = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
    let rich = [
        b"\0\0\0\x03".to_vec(),
        option(8, b""),
        option(3, b""),
        option(5, b""),
        option(9, b"\0\0\0\0\0\0\0\0"),
        option(10, context),
        option(6, b"\0\0\0\0\0\x01\0\x03"),
        option(7, b"\0\0\0\0\0\x02\0\x01\0\x03"),
        requests.clone(),
    ];
    let simple = [b"\0\0\0\x03".to_vec(), option(7, &[0; 6]), requests.clone()];
    let old = [b"\0\0\0\x01".to_vec(), option(1, b""), requests];
    vec![rich.concat(), simple.concat(), old.concat()]
}

#[test]
fn damaged_clients_of_a_disk() {
    damage(&seeds_of_nbd(), 2000, |_| {}, targets::nbd);
}
