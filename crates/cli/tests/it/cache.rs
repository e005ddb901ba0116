//! What stores leave in the cache: listed, deleted by the rules, and left alone while somebody reads it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::folder::names_in;
use crate::support::image::make;
use crate::support::{Home, layout};

/// A home whose image `app` went to the store `./store`.
fn home() -> Home {
    let home = layout::home_with(&["f 0644 /big @300000:1"], json!({}));
    make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
    let sent = home.transcript(&["rootfs", "upload", "-l", "app", "-b", "./store"]);
    assert!(sent.ends_with("exit code 0\n"), "{sent}");
    home
}

/// What the cache holds, by kind: how many files and bytes.
fn kinds(home: &Home) -> Vec<(String, u64, u64)> {
    let listed = home.firebrick(&["cache", "list", "--json"]).output();
    let listed: Value = serde_json::from_slice(&listed.expect("it starts").stdout).expect("JSON");
    let mut kinds: Vec<_> = listed
        .as_array()
        .expect("an array")
        .iter()
        .map(|item| {
            let number = |key: &str| item[key].as_u64().expect("a number");
            assert!(number("last_used_unix") > 1_700_000_000, "{item}");
            (
                item["kind"].as_str().expect("a kind").to_owned(),
                number("files"),
                number("size_bytes"),
            )
        })
        .collect();
    kinds.sort();
    kinds
}

/// A firebrick that reads an image lazily until it is dropped.
struct Serving(Child);

impl Serving {
    fn start(home: &Home) -> Serving {
        let socket = home.path().join("nbd");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebrick"));
        command
            .args(["store", "serve", "app", "-b", "./store", "--nbd"])
            .arg(format!("unix:{}", socket.display()))
            .env("FIREBRICK_HOME", home.path().join("fb"))
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let serving = Serving(command.spawn().expect("it starts"));
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "nothing is served");
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn what_stores_keep_is_listed_and_deleted_when_nobody_reads_it() {
    let home = home();
    let serving = Serving::start(&home);
    let told = home.path().join("fb/cache/told");
    fs::create_dir_all(&told).expect("a folder");
    fs::write(told.join("ab".repeat(32)), "oci://registry.example/x").expect("a file");

    let found = kinds(&home);
    let names: Vec<&str> = found.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(names, ["chunks", "tables", "told"]);
    assert!(found[1].1 > 1 && found[1].2 > 100, "{found:?}");
    assert_eq!((found[0].1, found[2].1, found[2].2), (1, 1, 24));
    let part = PathBuf::from(names_in(&home.path().join("fb/cache/chunks"))[0].clone());
    let image = part.file_stem().expect("a digest").display().to_string();
    let table = home.transcript(&["cache", "list"]);
    for wanted in [
        format!("sha256:{image}"),
        "read lazily".to_owned(),
        format!("{} tables of stores and images", found[1].1),
        "1 warning given".to_owned(),
    ] {
        assert!(table.contains(&wanted), "{table} has no {wanted}");
    }

    // Nothing is so old, and all of it fits.
    for kept in [["--older-than", "1"], ["--keep", "1G"]] {
        let pruned = home.transcript(&["cache", "prune", kept[0], kept[1]]);
        assert!(pruned.starts_with("deleted 0 files, freed 0 B; "), "{pruned}");
    }
    home.transcript(&["cache", "prune"]);
    let left: Vec<String> = kinds(&home).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(left, ["chunks"], "somebody reads it");
    drop(serving);
    let pruned = home.transcript(&["cache", "prune", "-v"]);
    assert!(
        pruned.contains(&format!("deleted sha256:{image} read lazily ("))
            && pruned.contains("deleted 1 file,"),
        "{pruned}"
    );
    assert_eq!(kinds(&home), []);
    // Nothing that is needed has gone.
    let sent = home.transcript(&["rootfs", "upload", "-l", "app", "-b", "./store"]);
    assert!(sent.contains("it is this image already"), "{sent}");
}

/// `firebrick` as somebody whom the modes of files bind, root or not.
fn bound_by_modes(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let firebrick = env!("CARGO_BIN_EXE_firebrick");
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-dac_override,-dac_read_search", firebrick]);
            command
        }
        false => Command::new(firebrick),
    };
    command.args(args).env("FIREBRICK_HOME", home.path().join("fb"));
    let output = command.output().expect("it starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn who_may_not_write_the_cache_sees_what_he_may_read() {
    let home = home();
    drop(Serving::start(&home));
    let (cache, tables) = (home.path().join("fb/cache"), home.path().join("fb/cache/tables"));
    let mode =
        |path: &PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    for path in [&tables, &cache.join("chunks"), &cache] {
        mode(path, 0o555);
    }
    let (code, text) = bound_by_modes(&home, &["cache", "list"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("tables of stores") && text.contains("read lazily"),
        "{text}"
    );
    let (code, text) = bound_by_modes(&home, &["cache", "prune"]);
    assert!(code == Some(1) && text.contains("Permission denied"), "{text}");
    // What may not even be read is said, and never called empty.
    mode(&tables, 0o000);
    let (code, text) = bound_by_modes(&home, &["cache", "list"]);
    for path in [&cache, &cache.join("chunks"), &tables] {
        mode(path, 0o755);
    }
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("warning: not shown: cannot list") && !text.contains("empty"),
        "{text}"
    );
}
