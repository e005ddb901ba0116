//! Images that go to a store in a folder and come back.

use std::fs;
use std::process::Command;

use firebrick_testkit::oracle;
use serde_json::Value;

use crate::support::Home;
use crate::support::image::make;
use crate::support::layout::home_with;

/// A home with an image `app` of two layers, and the store in `fb-store` as the default.
fn home() -> Home {
    let big = "x".repeat(300_000);
    let layers = [
        format!("d 0755 /etc\nf 0644 /etc/big \"{big}\"\n"),
        "f 0644 /etc/motd \"hello\"\n".to_owned(),
    ];
    let home = home_with(&[&layers[0], &layers[1]], serde_json::json!({}));
    make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
    home
}

/// Runs a command with the store, which must succeed; stdout and stderr.
fn run(home: &Home, args: &[&str]) -> (String, String) {
    let output = home
        .firebrick(args)
        .env("FIREBRICK_STORE", "./store")
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    assert!(output.status.success(), "{args:?}: {}", text(output.stderr));
    (text(output.stdout), text(output.stderr))
}

fn json(home: &Home, args: &[&str]) -> Value {
    serde_json::from_str(&run(home, args).0).expect("JSON")
}

fn digest_of(home: &Home, name: &str) -> String {
    let list = json(home, &["rootfs", "list", "-r", "-l", name, "--json"]);
    list[0]["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn an_image_goes_and_comes_back() {
    let home = home();
    let image = home.path().join("fb/images/rootfs-app.ext4");
    let bytes = fs::read(&image).expect("the image");
    let (name, talk) = run(&home, &["rootfs", "upload", "-l", "app"]);
    assert_eq!(name, format!("app:latest@{}\n", digest_of(&home, "app")));
    assert!(
        talk.lines()
            .last()
            .is_some_and(|line| line.starts_with("sent ") && line.ends_with(" already there)")),
        "{talk}"
    );
    let again = json(&home, &["rootfs", "upload", "-l", "app", "--json"]);
    assert_eq!(
        (&again["sent_bytes"], &again["changed"]),
        (&Value::from(0), &Value::from(false))
    );

    fs::remove_file(&image).expect("it is there");
    let (path, _) = run(&home, &["rootfs", "download", "-l", "app"]);
    assert_eq!(path, format!("{}\n", image.display()));
    assert_eq!(fs::read(&image).expect("the image"), bytes);
    let rows = run(&home, &["rootfs", "list", "--remote"]).0;
    let head: Vec<&str> = rows
        .lines()
        .next()
        .expect("a line")
        .split("  ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(head, ["LANGUAGE", "SIZE", "LAST MODIFIED", "KEY"]);
    // What it holds is what the image holds.
    let (out, _) = run(&home, &["rootfs", "cat", "app", "/etc/motd"]);
    assert_eq!(out, "hello");
    let other = json(
        &home,
        &["rootfs", "download", "-l", "app", "-o", "copy.ext4", "--json"],
    );
    assert_eq!(
        (&other["new_chunks"], &other["digest"]),
        (&Value::from(0), &again["digest"])
    );
    let fetched = json(
        &home,
        &[
            "rootfs",
            "download",
            "-l",
            "app",
            "-o",
            "copy.ext4",
            "--no-reuse",
            "--json",
        ],
    );
    assert_eq!(fetched["known_chunks"], 0);
    assert_eq!(fs::read(home.path().join("copy.ext4")).expect("the copy"), bytes);
}

#[test]
fn a_name_has_versions() {
    let home = home();
    run(&home, &["rootfs", "upload", "-l", "app"]);
    let first = digest_of(&home, "app");
    run(&home, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    let (_, talk) = run(&home, &["rootfs", "upload", "-l", "app"]);
    assert!(
        talk.contains(&format!("the version before stays as app:latest@{first}")),
        "{talk}"
    );
    let second = digest_of(&home, "app");
    assert_ne!(first, second);
    let history = json(&home, &["rootfs", "list", "-r", "--history", "--json"]);
    assert_eq!(
        (history[0]["digest"].as_str(), history[1]["digest"].as_str()),
        (Some(&*second), Some(&*first))
    );

    run(&home, &["rootfs", "tag", &format!("app@{first}"), "app:stable"]);
    let stable = json(
        &home,
        &[
            "rootfs",
            "download",
            "-l",
            "app:stable",
            "-o",
            "stable.ext4",
            "--json",
        ],
    );
    assert_eq!(stable["digest"].as_str(), Some(&*first));
    // The current version is not deleted from under its name.
    let refused = home.transcript(&["rootfs", "rm", "-r", "-b", "./store", &format!("app@{second}")]);
    assert!(refused.contains("is what app:latest means now"), "{refused}");
    run(&home, &["rootfs", "rm", "-r", &format!("app@{first}")]);
    run(&home, &["rootfs", "rm", "-r", "app"]);
    let left = json(&home, &["rootfs", "list", "-r", "--history", "--json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    let gone = home.transcript(&["rootfs", "download", "-l", "app", "-b", "./store"]);
    assert!(gone.contains("hint: there are: app:stable"), "{gone}");
}

#[test]
fn whole_files_go_and_come_back() {
    let home = home();
    let image = home.path().join("fb/images/rootfs-app.ext4");
    let bytes = fs::read(&image).expect("the image");
    let (_, talk) = run(&home, &["rootfs", "upload", "-l", "app", "--plain"]);
    assert!(talk.contains("sent ") && talk.contains(" of "), "{talk}");
    fs::write(home.path().join("kernel"), b"a kernel").expect("a file");
    run(&home, &["rootfs", "upload", "--plain", "--kernel", "kernel"]);
    let store = home.path().join("store");
    let check = Command::new("sha256sum")
        .arg("--check")
        .args(["rootfs-app.ext4.sha256", "vmlinux.sha256"])
        .current_dir(&store)
        .output();
    assert!(check.expect("sha256sum").status.success());
    let keys = json(&home, &["rootfs", "list", "-r", "--json"]);
    assert_eq!(
        (&keys[0]["key"], &keys[1]["key"]),
        (&"rootfs-app.ext4".into(), &"vmlinux".into())
    );
    fs::remove_file(&image).expect("it is there");
    let (_, talk) = run(&home, &["rootfs", "download", "-l", "app", "--plain"]);
    assert!(talk.contains("fetched ") && talk.contains(" of "), "{talk}");
    assert_eq!(fs::read(&image).expect("the image"), bytes);
    let checked = json(&home, &["store", "check", "--json"]);
    assert_eq!(checked["whole_files"]["count"], 2, "{checked}");
    run(&home, &["rootfs", "download", "--plain", "--kernel", "-o", "k2"]);
    assert_eq!(fs::read(home.path().join("k2")).expect("the kernel"), b"a kernel");

    // Not what its digest says: refused, and what was there stays.
    fs::write(store.join("rootfs-app.ext4"), b"damaged").expect("a file");
    let refused = home.transcript(&["rootfs", "download", "-l", "app", "--plain", "-b", "./store"]);
    assert!(
        refused.contains("rootfs-app.ext4.sha256") && refused.ends_with("exit code 1\n"),
        "{refused}"
    );
    assert_eq!(fs::read(&image).expect("the image"), bytes);
    let checked = home.transcript(&["store", "check", "-b", "./store"]);
    assert!(
        checked.contains("wrong: whole file rootfs-app.ext4 has the digest")
            && checked.contains("rootfs upload --plain")
            && checked.ends_with("exit code 1\n"),
        "{checked}"
    );
    // Nothing says what it must be: taken, with a warning.
    fs::remove_file(store.join("rootfs-app.ext4.sha256")).expect("it is there");
    let (_, talk) = run(&home, &["rootfs", "download", "-l", "app", "--plain", "-o", "x"]);
    assert!(talk.contains("warning:"), "{talk}");
    run(&home, &["rootfs", "rm", "-r", "--plain", "app"]);
    assert!(!store.join("rootfs-app.ext4").exists());
    run(&home, &["rootfs", "rm", "-r", "--plain", "vmlinux"]);
    assert!(!store.join("vmlinux").exists() && !store.join("vmlinux.sha256").exists());
}

#[test]
fn who_holds_the_lock_is_waited_for_and_told_of() {
    let home = home();
    run(&home, &["rootfs", "upload", "-l", "app"]);
    let mut holder = Command::new("flock")
        .args(["store/.lock", "sh", "-c", "echo held; sleep 4"])
        .current_dir(home.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut held = [0; 5];
    let mut words = holder.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut words, &mut held).expect("its word");
    let (_, talk) = run(&home, &["rootfs", "tag", "app", "app:v1"]);
    assert!(
        talk.contains("warning: somebody else holds") && talk.contains("store/.lock: waiting"),
        "{talk}"
    );
    assert!(holder.wait().expect("it ends").success());
}

#[test]
fn the_store_is_named_in_a_file() {
    let home = home();
    let lost = home.transcript(&["rootfs", "upload", "-l", "app"]);
    assert!(
        lost.contains("error: no store is named\nhint: name one: -b file:///srv/images"),
        "{lost}"
    );
    let folder = home.path().join(".config/firebrick");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(
        folder.join("config.toml"),
        format!("store = \"file://{}/s\"\n", home.path().display()),
    )
    .expect("a file");
    home.firebrick(&["rootfs", "upload", "-l", "app"])
        .assert()
        .success();
    assert!(home.path().join("s/index.json").exists());
    fs::write(folder.join("config.toml"), "shop = 1\n").expect("a file");
    let odd = home.transcript(&["rootfs", "list", "-r"]);
    assert!(
        odd.contains("config.toml") && odd.contains("unknown field `shop`"),
        "{odd}"
    );
    let bad = home.transcript(&["rootfs", "list", "-r", "-b", "ftp://x"]);
    assert!(
        bad.contains("is no store: expected file:///dir") && bad.ends_with("exit code 2\n"),
        "{bad}"
    );
}

#[test]
fn skopeo_carries_an_image() {
    let home = home();
    let bytes = fs::read(home.path().join("fb/images/rootfs-app.ext4")).expect("the image");
    run(&home, &["rootfs", "upload", "-l", "app:v1"]);
    if !oracle::have("skopeo").expect("an oracle, or leave to go without") {
        return;
    }
    let at = |name: &str| format!("oci:{}:app:v1", home.path().join(name).display());
    oracle::run_ok("skopeo", ["copy", "--quiet", &at("store"), &at("other")]).expect("skopeo copies it");
    run(
        &home,
        &[
            "rootfs",
            "download",
            "-l",
            "app:v1",
            "-b",
            "./other",
            "-o",
            "back",
            "--no-reuse",
        ],
    );
    assert_eq!(fs::read(home.path().join("back")).expect("the image"), bytes);
    let list = json(&home, &["rootfs", "list", "-r", "-b", "./other", "--json"]);
    assert_eq!(list[0]["size_bytes"], bytes.len());
}

#[test]
fn an_archive_carries_an_image_to_another_store() {
    let home = home();
    let bytes = fs::read(home.path().join("fb/images/rootfs-app.ext4")).expect("the image");
    run(&home, &["rootfs", "upload", "-l", "app"]);
    run(&home, &["rootfs", "export", "app", "-o", "app.tar"]);
    let (name, _) = run(
        &home,
        &["rootfs", "import", "app.tar", "-l", "other:v1", "-b", "./far"],
    );
    assert_eq!(name, format!("other:v1@{}\n", digest_of(&home, "app")));
    run(
        &home,
        &[
            "rootfs",
            "download",
            "-l",
            "other:v1",
            "-b",
            "./far",
            "-o",
            "back",
            "--no-reuse",
        ],
    );
    assert_eq!(fs::read(home.path().join("back")).expect("the image"), bytes);
    let archive = fs::read(home.path().join("app.tar")).expect("the archive");
    fs::write(home.path().join("cut.tar"), &archive[..archive.len() / 2]).expect("a file");
    let refused = home.transcript(&["rootfs", "import", "cut.tar", "-b", "./far2"]);
    assert!(
        refused.contains("cannot import") && refused.ends_with("exit code 1\n"),
        "{refused}"
    );
    assert!(!home.path().join("far2/index.json").exists());
}

#[test]
fn a_store_is_kept_in_order() {
    let home = home();
    run(&home, &["rootfs", "upload", "-l", "app"]);
    run(&home, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    run(&home, &["rootfs", "upload", "-l", "app"]);
    let stats = json(&home, &["store", "stats", "--history", "--json"]);
    assert_eq!(stats["images"].as_array().map(Vec::len), Some(2));
    assert!(
        stats["sharing"][0]["bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 100_000),
        "{stats}"
    );
    run(&home, &["store", "stats", "--html", "page.html"]);
    let page = fs::read_to_string(home.path().join("page.html")).expect("the page");
    assert!(
        page.contains("app:latest") && page.ends_with("</html>\n"),
        "{page}"
    );

    let seen = json(
        &home,
        &[
            "store",
            "gc",
            "--keep",
            "1",
            "--dry-run",
            "--grace",
            "0",
            "--json",
        ],
    );
    assert_eq!(seen["dropped"].as_array().map(Vec::len), Some(1));
    let gone = json(&home, &["store", "gc", "--keep", "1", "--grace", "0", "--json"]);
    assert!(
        gone["deleted"]["count"].as_u64().is_some_and(|count| count > 0),
        "{gone}"
    );
    assert_eq!(
        json(&home, &["rootfs", "list", "-r", "--history", "--json"])
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        json(&home, &["store", "check", "--json"])["findings"],
        serde_json::json!([])
    );
}

#[test]
fn a_damaged_blob_is_made_again_out_of_the_image_that_is_here() {
    let home = home();
    run(&home, &["rootfs", "upload", "-l", "app"]);
    let blobs = fs::read_dir(home.path().join("store/blobs/sha256")).expect("blobs");
    let largest = blobs
        .map(|one| one.expect("a blob").path())
        .max_by_key(|path| fs::metadata(path).expect("a blob").len());
    let largest = largest.expect("there is one");
    let right = fs::read(&largest).expect("the blob");
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    fs::write(&largest, &wrong).expect("the blob");
    let found = home.transcript(&["store", "check", "-q", "-b", "./store"]);
    assert!(
        found.contains("wrong: blob sha256:") && found.contains("not whole: app:latest@"),
        "{found}"
    );
    assert!(
        found.ends_with(
            "hint: mend what can be mended: firebrick store check --repair -b file://~/store\nexit code 1\n"
        ),
        "{found}"
    );
    let (mended, _) = run(&home, &["store", "check", "--repair"]);
    assert!(mended.contains("made again: blob"), "{mended}");
    assert_eq!(fs::read(&largest).expect("the blob"), right);
}
