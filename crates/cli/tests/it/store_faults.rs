//! What the store commands do about what is damaged, odd or in their way.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::process::Command;

use crate::support::Home;
use crate::support::folder::names_in;
use crate::support::image::make;
use crate::support::layout::home_with;

/// A home with the image `app`, which is in the store `store`, too.
fn home() -> Home {
    let home = home_with(&["f 0644 /etc/motd \"hello\"\n"], serde_json::json!({}));
    make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
    ok(&home, &["rootfs", "upload", "-l", "app", "-b", "./store"]);
    home
}

fn ok(home: &Home, args: &[&str]) -> String {
    let said = home.transcript(args);
    assert!(said.ends_with("exit code 0\n"), "{args:?}: {said}");
    said
}

/// What a command says that must fail with this code.
fn refused(home: &Home, args: &[&str], code: u8) -> String {
    let said = home.transcript(args);
    assert!(said.ends_with(&format!("exit code {code}\n")), "{args:?}: {said}");
    said
}

#[test]
fn only_files_are_written_over() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    for pipe in ["pipe", "other"] {
        let made = Command::new("mkfifo").arg(at(pipe)).status();
        assert!(made.expect("mkfifo").success());
    }
    // Root alone may make devices.
    let _ = Command::new("mknod")
        .arg(at("null"))
        .args(["c", "1", "3"])
        .output();
    symlink("/proc/self/fd/1", at("stdout")).expect("a link");
    for place in ["pipe", "null", "stdout", "store"] {
        if fs::symlink_metadata(at(place)).is_err() {
            continue;
        }
        let before = fs::symlink_metadata(at(place)).expect("it is there").file_type();
        for args in [
            &["rootfs", "export", "app", "-o", place, "-b", "./store"][..],
            &["store", "stats", "--html", place, "-b", "./store"],
            &["rootfs", "download", "-l", "app", "-o", place, "-b", "./store"],
            &["rootfs", "inspect", "app", "--html", place],
        ] {
            refused(&home, args, 1);
            let now = fs::symlink_metadata(at(place)).expect("it is there").file_type();
            assert_eq!(now, before, "{args:?}");
        }
    }
    assert!(
        fs::metadata(at("pipe"))
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
    // A link to a file stays one.
    symlink("far.tar", at("near.tar")).expect("a link");
    ok(
        &home,
        &["rootfs", "export", "app", "-o", "near.tar", "-b", "./store"],
    );
    assert!(at("near.tar").is_symlink() && at("far.tar").is_file());
}

#[test]
fn what_killed_exports_left_goes_with_the_next() {
    let home = home();
    for name in [".app.tar.partial-1-0", ".other.tar.partial-1-0"] {
        fs::write(home.path().join(name), "begun").expect("a file");
    }
    ok(
        &home,
        &["rootfs", "export", "app", "-o", "app.tar", "-b", "./store"],
    );
    let left = names_in(home.path());
    assert!(!left.contains(&".app.tar.partial-1-0".into()), "{left:?}");
    assert!(left.contains(&".other.tar.partial-1-0".into()), "{left:?}");
}

#[test]
fn flags_of_stores_need_a_store() {
    let home = home();
    for args in [
        &["rootfs", "rm", "-b", "./store", "app"][..],
        &["rootfs", "rm", "--key", "k", "app"],
        &["rootfs", "list", "-b", "./store"],
        &["run", "-b", "./store", "-i", "app", "--", "true"],
    ] {
        let said = refused(&home, args, 2);
        assert!(
            said.contains("required") || said.contains("cannot be used with"),
            "{said}"
        );
    }
    assert!(home.path().join("fb/images/rootfs-app.ext4").exists());
}

#[test]
fn damaged_names_are_not_for_a_check_to_mend() {
    let home = home();
    let index = home.path().join("store/index.json");
    fs::write(&index, "<html>").expect("a file");
    let check = "store check --repair";
    for args in [
        &["rootfs", "list", "-r", "-b", "./store"][..],
        &["store", "check", "--repair", "-b", "./store"],
    ] {
        let said = refused(&home, args, 1);
        assert!(
            said.contains("put a copy of it back") && said.contains("upload -l NAME -b file://~/store"),
            "{said}"
        );
        assert!(!said.contains(check), "{said}");
    }
}

#[test]
fn a_damaged_list_is_found_and_made_anew() {
    let home = home();
    let list = home.path().join("store/gc/condemned.json");
    fs::create_dir_all(list.parent().expect("a folder")).expect("a folder");
    for content in ["", "{}", "\0\0"] {
        fs::write(&list, content).expect("a file");
        let said = refused(&home, &["store", "gc", "-b", "./store"], 1);
        assert!(
            said.contains("hint: have an empty one made")
                && said.contains("store check --repair -b file://~/store"),
            "{said}"
        );
        let said = refused(&home, &["store", "check", "-b", "./store"], 1);
        assert!(said.contains("wrong: gc/condemned.json: "), "{said}");
        assert_eq!(fs::read_to_string(&list).expect("the list"), content);
        let said = ok(&home, &["store", "check", "--repair", "-b", "./store"]);
        assert!(said.contains("put right: gc/condemned.json: "), "{said}");
        ok(&home, &["store", "check", "-b", "./store"]);
        ok(&home, &["store", "gc", "-b", "./store"]);
        ok(&home, &["rootfs", "upload", "-l", "app", "-b", "./store"]);
    }
}

#[test]
fn an_entry_that_nobody_can_name_goes_if_it_means_nothing() {
    let home = home();
    let path = home.path().join("store/index.json");
    let read = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(&path).expect("the names")).expect("JSON")
    };
    let mut index = read();
    let mut entry = index["manifests"][0].clone();
    entry["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    entry["annotations"]["org.opencontainers.image.ref.name"] = "no such/NAME!".into();
    let all = index["manifests"].as_array_mut().expect("a list");
    all.push(entry);
    fs::write(&path, index.to_string()).expect("a file");
    refused(&home, &["store", "gc", "-b", "./store"], 1);
    let said = refused(&home, &["store", "check", "-b", "./store"], 1);
    assert!(
        said.contains("wrong: entry \"no such/NAME!\" of index.json: "),
        "{said}"
    );
    let said = ok(&home, &["store", "check", "--repair", "-b", "./store"]);
    assert!(said.contains("put right: entry "), "{said}");
    assert_eq!(read()["manifests"].as_array().map(Vec::len), Some(1));
    ok(&home, &["store", "gc", "-b", "./store"]);
    ok(
        &home,
        &["rootfs", "download", "-l", "app", "-o", "back", "-b", "./store"],
    );
}

#[test]
fn a_name_with_two_current_versions_is_found() {
    let home = home();
    ok(&home, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    ok(&home, &["rootfs", "upload", "-l", "app", "-b", "./store"]);
    let path = home.path().join("store/index.json");
    let text = fs::read_to_string(&path).expect("the names");
    let torn = text.replace("dev.firebrick.was", "org.opencontainers.image.ref.name");
    assert_ne!(torn, text);
    fs::write(&path, torn).expect("a file");
    let said = refused(&home, &["store", "check", "-b", "./store"], 1);
    assert!(
        said.contains("wrong: app:latest in index.json: it has two current"),
        "{said}"
    );
}

#[test]
fn hints_lead_into_the_same_store() {
    let home = home();
    let said = refused(
        &home,
        &["rootfs", "download", "-l", "x", "-b", "./empty", "--plain-http"],
        1,
    );
    assert!(
        said.contains("firebrick rootfs list --remote -b file://~/empty --plain-http"),
        "{said}"
    );
    // The manifest that the name means is not there.
    let index = fs::read_to_string(home.path().join("store/index.json")).expect("the names");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    let blob = home.path().join("store/blobs").join(digest.replace(':', "/"));
    fs::remove_file(blob).expect("the manifest");
    let other = Home::new();
    let store = format!("file://{}/store", home.path().display());
    let said = refused(&other, &["rootfs", "download", "-l", "app", "-b", &store], 1);
    assert!(
        said.contains("it is missing") && said.contains(&format!("store check --repair -b {store}")),
        "{said}"
    );
}

#[test]
fn archives_and_whole_files_have_hints_of_their_own() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    ok(
        &home,
        &["rootfs", "export", "app", "-o", "app.tar", "-b", "./store"],
    );
    let archive = fs::read(at("app.tar")).expect("the archive");
    fs::write(at("cut.tar"), &archive[..archive.len() / 2]).expect("a file");
    let packed = Command::new("gzip").arg("-k").arg(at("app.tar")).status();
    assert!(packed.expect("gzip").success());
    for (file, hint) in [
        ("cut.tar", "hint: copy it again"),
        (
            "app.tar.gz",
            "hint: unpack it: gunzip -c FILE | firebrick rootfs import - -b file://~/far",
        ),
    ] {
        let said = refused(&home, &["rootfs", "import", file, "-b", "./far"], 1);
        assert!(said.contains(hint) && !said.contains("store check"), "{said}");
    }
    ok(
        &home,
        &["rootfs", "upload", "-l", "app", "--plain", "-b", "./store"],
    );
    let digest = at("store/rootfs-app.ext4.sha256");
    fs::write(digest, format!("{}  x\n", "0".repeat(64))).expect("a file");
    let said = refused(
        &home,
        &["rootfs", "download", "-l", "app", "--plain", "-b", "./store"],
        1,
    );
    assert!(
        said.contains("send both again: firebrick rootfs upload --plain -l NAME -b file://~/store")
            && !said.contains("store check"),
        "{said}"
    );
}

#[test]
fn what_ended_downloads_left_is_seen_and_goes() {
    let home = home();
    let images = home.path().join("fb/images");
    let part = images.join(".rootfs-gone.ext4.download-0123");
    let busy = images.join(".rootfs-busy.ext4.download-0123");
    let file = fs::File::create(&busy).expect("a file");
    file.lock().expect("a lock");
    fs::write(&part, [1; 10_000]).expect("a file");
    let said = ok(&home, &["cache", "list"]);
    assert!(
        said.contains("unfinished image gone") && !said.contains("busy"),
        "{said}"
    );
    ok(&home, &["rootfs", "rm", "gone"]);
    assert!(!part.exists());
    refused(&home, &["rootfs", "rm", "gone"], 1);
    fs::write(&part, [1; 10_000]).expect("a file");
    ok(&home, &["cache", "prune", "--older-than", "1"]);
    assert!(part.exists());
    ok(&home, &["cache", "prune"]);
    assert!(!part.exists() && busy.exists() && images.join("rootfs-app.ext4").exists());
}

#[test]
fn images_of_other_programs_are_told_as_such() {
    let home = home();
    let path = home.path().join("store/index.json");
    let mut index: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("the names")).expect("JSON");
    // Any manifest that is none of ours.
    let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    fs::write(home.path().join("manifest"), manifest).expect("a file");
    let sum = Command::new("sha256sum")
        .arg(home.path().join("manifest"))
        .output();
    let sum = String::from_utf8(sum.expect("sha256sum").stdout).expect("text");
    let digest = &sum[..64];
    fs::write(home.path().join("store/blobs/sha256").join(digest), manifest).expect("a blob");
    let entry = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{digest}"),
        "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "busy:1" },
    });
    index["manifests"].as_array_mut().expect("a list").push(entry);
    fs::write(&path, index.to_string()).expect("the names");
    let said = ok(&home, &["rootfs", "list", "-r", "-b", "./store"]);
    assert!(said.contains("busy:1 (of another program)"), "{said}");
    let said = ok(&home, &["rootfs", "list", "-r", "--json", "-b", "./store"]);
    assert!(said.contains(r#""kind": "foreign""#), "{said}");
}

#[test]
fn keys_are_made_all_or_none_and_are_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = home();
    let at = |name: &str| home.path().join(name);
    refused(&home, &["store", "keygen", "--sign", "k", "--seal", "k"], 1);
    assert!(!at("k").exists() && !at("k.pub").exists());
    fs::write(at("there"), "mine").expect("a file");
    refused(&home, &["store", "keygen", "--sign", "k", "--seal", "there"], 1);
    assert!(!at("k").exists() && !at("k.pub").exists());
    ok(&home, &["store", "keygen", "--sign", "k", "--seal", "s"]);
    let upload = ["rootfs", "upload", "-l", "app", "--sign", "k", "-b", "./store"];
    assert!(!ok(&home, &upload).contains("warning"));
    fs::set_permissions(at("k"), fs::Permissions::from_mode(0o644)).expect("the key is ours");
    assert!(ok(&home, &upload).contains("chmod 600 k"));
}

#[test]
fn slips_in_addresses_are_bad_usage() {
    let home = Home::new();
    for (address, said) in [
        ("s3:/x", "did you mean s3://x"),
        ("oci:/x/y", "did you mean oci://x/y"),
        ("s3://", "names no bucket"),
    ] {
        let told = refused(&home, &["rootfs", "list", "-r", "-b", address], 2);
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn an_endpoint_without_tls_is_told_the_flag() {
    let home = Home::new();
    let output = home
        .firebrick(&["rootfs", "list", "-r", "-b", "s3://bucket"])
        .env("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("has no TLS") && said.contains("--plain-http"),
        "{said}"
    );
}

/// A check of a path with a slip in it must not pass, night after night.
#[test]
fn a_folder_that_is_not_there_is_no_empty_store() {
    let home = home();
    for command in [
        &["store", "check"][..],
        &["store", "gc"],
        &["store", "stats"],
        &["rootfs", "list", "-r"],
    ] {
        let said = refused(&home, &[command, &["-b", "./stroe"]].concat(), 1);
        assert!(said.contains("stroe\", and so no store in it"), "{said}");
        assert!(said.contains("hint: see what there is: ls "), "{said}");
        ok(&home, &[command, &["-b", "./store"]].concat());
    }
    // Who sends something makes it.
    ok(&home, &["rootfs", "upload", "-l", "app", "-b", "./stroe"]);
}
