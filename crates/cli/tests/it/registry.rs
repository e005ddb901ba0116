//! Images out of a registry with the command itself: what is downloaded, what the cache keeps, what it gives up.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use firebrick_testkit::registry::Registry;
use serde_json::{Value, json};

use crate::support::folder::names_in;
use crate::support::{Home, layout};

fn make(home: &Home, name: &str, image: &str) -> String {
    home.transcript(&["rootfs", "from-docker", "-n", name, "-i", image])
}

#[test]
fn layers_are_downloaded_once_and_kept_until_pruned() {
    let layers = ["f 0644 /a @2000000:1", "f 0644 /b @1000:2"];
    let home = layout::home_with(&layers, json!({ "Cmd": ["/a"] }));
    let registry = Registry::serve(&home.path().join("img")).expect("a port");
    let first = make(&home, "first", &registry.image());
    assert!(
        first.contains("(2 layers), 0 B from the cache (0 layers)"),
        "{first}"
    );
    let second = make(&home, "second", &registry.image());
    assert!(
        second.contains("downloaded 0 B (0 layers)") && second.contains("from the cache (2 layers)"),
        "{second}"
    );

    // The tag leads to an index, a manifest, a config and two layers.
    let listed: Value = serde_json::from_slice(
        &home
            .firebrick(&["cache", "list", "--json"])
            .output()
            .expect("it starts")
            .stdout,
    )
    .expect("JSON");
    let kept = names_in(&home.path().join("fb/cache/blobs/sha256"));
    assert_eq!(
        (listed.as_array().map(Vec::len), kept.len()),
        (Some(5), 5),
        "{listed}"
    );
    let table = home.transcript(&["cache", "list"]);
    assert!(
        kept.iter()
            .all(|hex| table.contains(&format!("sha256:{}", hex.to_string_lossy()))),
        "{table}"
    );

    // From the same manifest comes the same image, wherever it lies.
    let local = make(&home, "local", "oci:img");
    let image =
        |name: &str| fs::read(home.path().join(format!("fb/images/rootfs-{name}.ext4"))).expect("an image");
    assert!(image("first") == image("local"), "{first}{local}");
    assert!(image("first") == image("second"));

    // Two megabytes in all, and one may stay.
    let pruned = home.transcript(&["cache", "prune", "--keep", "1"]);
    assert!(
        pruned.starts_with("deleted ") && pruned.ends_with(" left\nexit code 0\n"),
        "{pruned}"
    );
    assert!(names_in(&home.path().join("fb/cache/blobs/sha256")).len() < 5);
    let all = home.transcript(&["cache", "prune"]);
    assert!(all.contains("0 B left"), "{all}");
    assert_eq!(
        home.transcript(&["cache", "list"]),
        "the cache in ~/fb/cache is empty\nexit code 0\n"
    );
    drop(registry);
}

#[test]
fn by_digest_the_cache_needs_no_registry() {
    let home = layout::home_with(&["f 0644 /a \"x\""], json!({}));
    let registry = Registry::serve(&home.path().join("img")).expect("a port");
    let index: Value =
        serde_json::from_slice(&fs::read(home.path().join("img/index.json")).expect("a file")).expect("JSON");
    let digest = index["manifests"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let image = format!("{}@{digest}", registry.image());
    let online = make(&home, "online", &image);
    assert!(online.ends_with("exit code 0\n"), "{online}");
    drop(registry);
    let offline = make(&home, "offline", &image);
    assert!(
        offline.ends_with("exit code 0\n") && offline.contains("from the cache (1 layer)"),
        "{offline}"
    );
}

#[test]
fn what_is_not_there_is_told_with_a_hint() {
    let home = layout::home_with(&[""], json!({}));
    let registry = Registry::serve(&home.path().join("img")).expect("a port");
    let name = registry.image().replace("test/image", "test/other");
    let text = make(&home, "x", &name);
    let repository = name.trim_end_matches(":v1");
    assert!(
        text.contains(&format!(
            "hint: see which tags there are: skopeo list-tags docker://{repository}\n"
        )),
        "{text}"
    );
}

/// Asks everybody for a name and password, until the test program ends.
fn locked_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let answer = "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("{address}/x")
}

/// Each failure on the way to the credentials names its file or program, and says what to do.
#[test]
fn credentials_that_cannot_be_had_are_explained() {
    let home = Home::new();
    let image = locked_registry();
    let config = home.path().join(".docker/config.json");
    fs::create_dir(home.path().join(".docker")).expect("a folder");
    for (content, cause, hint) in [
        (
            "{}",
            "does not let us read x",
            "log in with `docker login 127.0.0.1:",
        ),
        (
            "{\"auths\": {\n x",
            "Docker config \"~/.docker/config.json\" is not usable: it is not valid at line 2, column 2",
            "mend ~/.docker/config.json, or choose another file: --authfile FILE",
        ),
        (
            "{\"credsStore\":\"nowhere\"}",
            "credential helper \"docker-credential-nowhere\" for 127.0.0.1:",
            "install docker-credential-nowhere, or take it out of ~/.docker/config.json",
        ),
    ] {
        fs::write(&config, content).expect("a file");
        let text = make(&home, "x", &image);
        assert!(
            text.contains(cause) && text.contains(&format!("hint: {hint}")),
            "{text}"
        );
    }
    fs::write(home.path().join("bad.pem"), "no certificate").expect("a file");
    let args = [
        "rootfs",
        "from-docker",
        "-n",
        "x",
        "-i",
        &image,
        "--ca-file",
        "bad.pem",
    ];
    let text = home.transcript(&args);
    assert!(
        text.contains("CA file \"bad.pem\" is not usable\nhint: it must hold certificates as PEM"),
        "{text}"
    );
}

#[test]
fn what_is_no_registrys_name_is_said_before_anything_is_asked() {
    let home = layout::home_with(&[""], json!({}));
    for (image, expected) in [
        (
            "img",
            "there is a folder of that name here: write oci:img, or docker://img for a registry's",
        ),
        ("./img", "it is a path: write oci:./img"),
        ("missing.tar.gz", "write tar:missing.tar.gz for a root filesystem"),
        (
            "containers-storage:x",
            "skopeo copy containers-storage:x oci:DIR:TAG",
        ),
    ] {
        let text = make(&home, "x", image);
        assert!(
            text.contains(expected) && text.ends_with("exit code 2\n"),
            "{text}"
        );
    }
    let text = make(&home, "x", "oci:img:v2");
    assert!(
        text.ends_with("hint: write the image after a colon, e.g. oci:img:latest\nexit code 1\n"),
        "{text}"
    );
    fs::remove_file(home.path().join("img/index.json")).expect("it was there");
    let text = make(&home, "x", "oci:img");
    assert!(
        text.ends_with("a plain root filesystem is dir:img\nexit code 1\n"),
        "{text}"
    );
}
