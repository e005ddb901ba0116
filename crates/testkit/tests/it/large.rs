//! Proves that directories and trees beyond the sizes of every day show as the reference says: 50,000 names in a
//! folder, 70,000 subdirectories (more than a link count holds), a path as deep as Linux can name, 65,000 names of one
//! file.

use firebrick_testkit::build::{Recipe, build, check};
use firebrick_testkit::layers::{Content, Entry, EntryKind, Layer};

fn layer(entries: impl IntoIterator<Item = Entry>) -> Vec<Layer> {
    vec![Layer {
        entries: entries.into_iter().collect(),
    }]
}

#[test]
fn a_folder_of_50_000_files() {
    let entries = (0..50_000_u32).map(|n| {
        let content = if n % 100 == 0 {
            format!("content {n}").into_bytes()
        } else {
            Vec::new()
        };
        // Long and short names, so that leaf blocks fill unevenly.
        let name = format!("folder/{n}-{}", "x".repeat(n as usize % 40));
        Entry::new(name.as_bytes(), EntryKind::File(Content::Bytes(content)), 0o644)
    });
    // Its number is fixed in the first group, wherever the layers bring it.
    let lost_and_found = Entry::new(b"lost+found", EntryKind::Dir, 0o711);
    let set = layer(entries.chain([lost_and_found, Entry::file("lost+found/kept", b"x")]));
    let built = check(&set, &Recipe::default()).unwrap();
    let htree = built.image.debugfs("htree_dump /folder").unwrap();
    assert!(
        htree.contains("Root node dump"),
        "{}",
        htree.lines().take(5).collect::<Vec<_>>().join("\n")
    );
}

/// Names of 255 bytes make the index as deep as it gets here: 15 names fill a block.
#[test]
fn a_folder_of_20_000_long_names() {
    let entries = (0..20_000_u32).map(|n| Entry::file(&format!("folder/{n:0>255}"), b""));
    let built = check(&layer(entries), &Recipe::default()).unwrap();
    let htree = built.image.debugfs("htree_dump /folder").unwrap();
    let levels = htree
        .lines()
        .find(|line| line.contains("Indirect levels"))
        .unwrap_or_default();
    assert!(
        levels.trim().ends_with(": 1"),
        "{levels:?} {}",
        htree.chars().take(1000).collect::<String>()
    );
}

#[test]
fn more_subdirectories_than_a_link_count_holds() {
    let entries = (0..70_000_u32).map(|n| Entry::dir(&format!("folder/{n}")));
    check(&layer(entries), &Recipe::default()).unwrap();
}

#[test]
fn a_path_of_1900_directories() {
    let path = vec!["d"; 1900].join("/");
    check(
        &layer([Entry::file(&format!("{path}/file"), b"deep")]),
        &Recipe::default(),
    )
    .unwrap();
}

#[test]
fn a_file_of_65_000_names_and_of_one_too_many() {
    let names = |count: u32| {
        let links = (1..count).map(|n| {
            let target = EntryKind::Hardlink(b"names/0".to_vec());
            Entry::new(format!("names/{n}").as_bytes(), target, 0o644)
        });
        layer([Entry::file("names/0", b"many")].into_iter().chain(links))
    };
    check(&names(65_000), &Recipe::default()).unwrap();
    let error = format!("{:#}", build(&names(65_001), &Recipe::default()).unwrap_err());
    assert!(error.contains("65000") && error.contains("names/0"), "{error}");
}
