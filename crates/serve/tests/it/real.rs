//! Clients that others wrote: QEMU's and libnbd's.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firebrick_serve::{Disk as _, Ending, Event, FileDisk, Options};
use firebrick_testkit::oracle;
use serde_json::Value;

use crate::disks::TestDisk;
use crate::harness::serve;

/// Not a multiple of anything.
const SIZE: u64 = (24 << 20) + 1000;
/// Where the file has bytes.
const PARTS: [(u64, u64); 3] = [(0, 1 << 20), (5 << 20, 8192), (SIZE - 1000, 1000)];

/// A file with holes, and the bytes of [`TestDisk`] between them.
fn sparse_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    for (offset, len) in PARTS {
        file.as_file()
            .write_all_at(&TestDisk::bytes(offset, len), offset)
            .unwrap();
    }
    file
}

/// Serves such a file as the export `root`, and gives `test` the file, the socket and its URL.
fn serve_file(test: impl FnOnce(&Path, &Path, &str)) {
    let file = sparse_file();
    let disk = FileDisk::open(file.path()).unwrap();
    let mut options = Options::default();
    options.export_name = "root".to_owned();
    let events = serve(&disk, options, |socket| {
        test(
            file.path(),
            socket,
            &format!("nbd+unix:///?socket={}", socket.display()),
        );
    });
    for event in events {
        if let Event::Ended { ending, .. } = &event {
            assert!(
                matches!(ending, Ending::Disconnected | Ending::HungUp),
                "{event:?}"
            );
        }
        assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
    }
}

fn json(tool: &str, arguments: &[&str]) -> Value {
    let text = oracle::run_ok(tool, arguments).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn qemu_sees_the_same_disk() {
    if !oracle::have("qemu-img").unwrap() {
        return;
    }
    serve_file(|file, _, url| {
        let info = json("qemu-img", &["info", "--output=json", "-f", "raw", url]);
        // QEMU counts in sectors.
        let size = info["virtual-size"].as_u64().unwrap();
        assert!(size == SIZE || size == SIZE.next_multiple_of(512), "{info}");
        let copy = tempfile::NamedTempFile::new().unwrap();
        let copied = copy.path().to_str().unwrap();
        oracle::run_ok("qemu-img", ["convert", "-f", "raw", "-O", "raw", url, copied]).unwrap();
        let (bytes, expected) = (std::fs::read(copy.path()).unwrap(), std::fs::read(file).unwrap());
        assert!(bytes[..expected.len()] == expected && bytes[expected.len()..].iter().all(|&byte| byte == 0));
        let name = url.replace(":///?", ":///root?");
        let file = file.to_str().unwrap();
        oracle::run_ok("qemu-img", ["compare", "-f", "raw", "-F", "raw", &name, file]).unwrap();
        let other = url.replace(":///?", ":///other?");
        let refused = oracle::run("qemu-img", ["info", &other]).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("no export of that name"),
            "{said}"
        );
    });
}

#[test]
fn qemu_sees_the_holes() {
    if !oracle::have("qemu-img").unwrap() {
        return;
    }
    serve_file(|_, _, url| {
        let map = json("qemu-img", &["map", "--output=json", "-f", "raw", url]);
        let data: Vec<(u64, u64)> = map
            .as_array()
            .unwrap()
            .iter()
            .filter(|extent| extent["data"] == true)
            .map(|extent| {
                (
                    extent["start"].as_u64().unwrap(),
                    extent["length"].as_u64().unwrap(),
                )
            })
            .collect();
        // A filesystem counts in its own blocks, but does not take the rest for data.
        let total: u64 = data.iter().map(|(_, len)| len).sum();
        assert!(total < 3 << 20, "{map}");
        for (offset, len) in PARTS {
            let covers = |&(start, data): &(u64, u64)| start <= offset && offset + len <= start + data;
            assert!(data.iter().any(covers), "{offset}: {map}");
        }
    });
}

#[test]
fn qemu_reads_at_random_and_writes_nothing() {
    if !oracle::have("qemu-io").unwrap() {
        return;
    }
    serve_file(|_, _, url| {
        let hole = [
            "-r",
            "-f",
            "raw",
            "-c",
            "read -P 0 3M 1M",
            "-c",
            "read 5242881 8190",
            "-c",
            "flush",
            url,
        ];
        let said = oracle::run_ok("qemu-io", hole).unwrap();
        assert!(
            said.contains("read 1048576/1048576 bytes at offset 3145728"),
            "{said}"
        );
        assert!(said.contains("read 8190/8190 bytes at offset 5242881"), "{said}");
        assert!(!said.contains("verification failed"), "{said}");
        // Many at a time, out of order.
        let many: Vec<String> = (0..40)
            .map(|n| format!("aio_read -P 0 {} 64k", (2 << 20) + n * 65_536))
            .collect();
        let mut arguments = vec!["-r", "-f", "raw"];
        for command in &many {
            arguments.extend(["-c", command]);
        }
        arguments.extend(["-c", "aio_flush", url]);
        let said = oracle::run_ok("qemu-io", arguments).unwrap();
        assert_eq!(said.matches("read 65536/65536 bytes").count(), 40, "{said}");
        assert!(!said.contains("verification failed"), "{said}");
        let write = oracle::run("qemu-io", ["-f", "raw", "-c", "write 0 4096", url]).unwrap();
        assert!(!write.status.success());
        let said = String::from_utf8_lossy(&write.stderr);
        assert!(said.contains("Permission denied"), "{said}");
    });
}

#[test]
fn qemu_is_told_of_what_cannot_be_read() {
    if !oracle::have("qemu-io").unwrap() {
        return;
    }
    let mut disk = TestDisk::new(4 << 20);
    disk.lost = 100_000..100_001;
    serve(&disk, Options::default(), |socket| {
        let url = format!("nbd+unix:///?socket={}", socket.display());
        let reads = [
            "-r",
            "-f",
            "raw",
            "-c",
            "read 98304 4096",
            "-c",
            "read 200000 4096",
            &url,
        ];
        let output = oracle::run("qemu-io", reads).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            format!("{said}{complaints}").contains("read failed: Input/output error"),
            "{said}{complaints}"
        );
        assert!(
            said.contains("read 4096/4096 bytes at offset 200000"),
            "{said}{complaints}"
        );
    });
}

#[test]
fn libnbd_sees_what_is_offered() {
    if !oracle::have("nbdinfo").unwrap() {
        return;
    }
    serve_file(|_, _, url| {
        let info = json("nbdinfo", &["--json", url]);
        assert_eq!(info["protocol"], "newstyle-fixed");
        assert_eq!(info["TLS"], false);
        assert_eq!(info["structured"], true);
        let export = &info["exports"][0];
        assert_eq!(export["export-size"], SIZE, "{info}");
        for (what, expected) in [
            ("is_read_only", true),
            ("can_multi_conn", true),
            ("can_cache", true),
            ("can_df", true),
            ("can_flush", true),
            ("can_fua", false),
            ("can_trim", false),
            ("can_zero", false),
        ] {
            assert_eq!(export[what], expected, "{what}: {export}");
        }
        let sizes =
            ["minimum", "preferred", "maximum"].map(|which| export[format!("block_size_{which}")].as_u64());
        assert_eq!(sizes, [Some(1), Some(4096), Some(32 << 20)], "{export}");
        assert_eq!(
            export["contexts"],
            serde_json::json!(["base:allocation"]),
            "{export}"
        );
        let listed = json("nbdinfo", &["--list", "--json", url]);
        assert_eq!(listed["exports"][0]["export-name"], "root", "{listed}");
        let totals = oracle::run_ok("nbdinfo", ["--map", "--totals", url]).unwrap();
        assert!(
            totals.contains("hole,zero") && totals.contains("data"),
            "{totals}"
        );
        let refused = oracle::run("nbdinfo", [url.replace(":///?", ":///other?")]).unwrap();
        assert!(!refused.status.success());
    });
}

#[test]
fn libnbd_copies_over_many_connections() {
    if !oracle::have("nbdcopy").unwrap() {
        return;
    }
    serve_file(|file, socket, url| {
        let expected = std::fs::read(file).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        let copied = copy.to_str().unwrap();
        for arguments in [
            &["--connections=4", "--requests=64"][..],
            &["--synchronous"],
            &["--no-extents"],
        ] {
            std::fs::File::create(&copy).unwrap().set_len(SIZE).unwrap();
            oracle::run_ok("nbdcopy", arguments.iter().copied().chain([url, copied])).unwrap();
            assert!(std::fs::read(&copy).unwrap() == expected, "{arguments:?}");
        }
        // TLS is refused, and whoever insists on it goes.
        let secure = format!("nbds+unix:///?socket={}", socket.display());
        assert!(!oracle::run("nbdinfo", [secure]).unwrap().status.success());
    });
}

#[test]
fn a_file_disk_is_its_file() {
    let file = sparse_file();
    let disk = FileDisk::open(file.path()).unwrap();
    assert_eq!(disk.size_bytes(), SIZE);
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    assert!(bytes == std::fs::read(file.path()).unwrap());
}
