//! Images out of a registry with the command itself: what is downloaded, what the cache keeps, what it gives up.

#[path = "support/folder.rs"]
mod folder;
#[path = "support/layout.rs"]
mod layout;
mod support;

use std::fs;

use firebrick_testkit::registry::Registry;
use folder::names_in;
use serde_json::{Value, json};
use support::Home;

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
