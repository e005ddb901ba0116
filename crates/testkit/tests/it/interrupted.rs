//! Proves that a build that is killed or runs out of space leaves no image under the final name that is not whole, and
//! nothing that the next run does not clean up; and that the next run makes the same bytes.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use firebrick_digest::Digest;
use firebrick_source::Reference;
use firebrick_testkit::build::{Recipe, names_in, run, wrap};
use firebrick_testkit::layers::oci::{Blob, Compression};
use firebrick_testkit::layers::{tar::to_tar, text::layers};
use firebrick_testkit::listing::Listing;
use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::targets::mutate::Random;
use firebrick_testkit::uml::{self, Uml};
use firebrick_testkit::{child, own};

const PROGRAM: &str = env!("CARGO_BIN_EXE_build-image");

/// An image of four layers and some 10 MiB, with hidden contents, so that every phase takes a while.
fn source(dir: &Path) -> Reference {
    let text = |n: u64| {
        let files: String = (0..150)
            .map(|f| format!("f 0644 /d{n}/{f} @{}:{f}\n", f * 97 % 20_000))
            .collect();
        format!("{files}f 0644 /large @1000000:{n}\nw /d{}\n", n.wrapping_sub(1))
    };
    let texts: Vec<String> = (0..4).map(text).collect();
    let set = layers(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let blobs: Vec<_> = set
        .iter()
        .map(|layer| Blob::of_tar(&to_tar(layer), Compression::Gzip))
        .collect();
    wrap(&dir.join("source"), &blobs, &Recipe::default()).unwrap()
}

fn digest_of(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).unwrap())
}

/// The right image, its digest, and what is in it.
fn expected(source: &Reference, dir: &Path) -> (PathBuf, Digest, Listing) {
    let image = dir.join("expected.ext4");
    run(source, &image, &Recipe::default()).unwrap();
    Image::check(&image).unwrap();
    let listing = own::listing(&image).unwrap();
    assert!(listing.contains_key(b"/large".as_slice()));
    let digest = digest_of(&image);
    (image, digest, listing)
}

/// What runs that are killed leave under the name of their image.
struct Kills {
    name: &'static str,
    /// What the program is told after the source and the image.
    arguments: &'static [&'static str],
    rounds: u32,
    /// When to kill: thousandths of the time that a whole run takes.
    moments: Range<usize>,
    /// How many runs must not have come to their end.
    killed: u32,
}

impl Kills {
    fn check(&self) {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let folder = dir.path().join("images");
        std::fs::create_dir(&folder).unwrap();
        let output = folder.join(self.name);
        let command = || {
            let mut command = child::command(PROGRAM, &source.to_string(), &output);
            command.args(self.arguments);
            command
        };
        let start = Instant::now();
        assert!(child::finish(command()).unwrap().status.success());
        let whole = start.elapsed();
        let digest = digest_of(&output);

        let mut random = Random::new(1);
        let (mut killed, mut made) = (0, 0);
        for round in 0..self.rounds {
            // By turns nothing is there before, or an image.
            let before = (round % 2 == 1).then_some(b"the old image".as_slice());
            let _ = std::fs::remove_file(&output);
            if let Some(before) = before {
                std::fs::write(&output, before).unwrap();
            }
            let moment = self.moments.start + random.below(self.moments.end - self.moments.start);
            let mut child = command().stdout(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * moment as u32 / 1000);
            let _ = child.kill();
            let success = child.wait().unwrap().success();
            *if success { &mut made } else { &mut killed } += 1;
            let content = std::fs::read(&output).ok();
            let untouched = !success && content.as_deref() == before;
            let new = content.is_some_and(|content| Digest::of(&content) == digest);
            assert!(untouched || new, "round {round}: half an image");
            // At most one killed run's file is there at any time: each run removes the last one's.
            let names = names_in(&folder).unwrap();
            assert!(names.len() <= 2, "{names:?}");
        }
        oracle::say(&format!("{killed} builds were killed in time, {made} were not"));
        assert!(
            killed >= self.killed,
            "{killed} killed, {made} made: the moments are badly chosen"
        );
        assert!(child::finish(command()).unwrap().status.success());
        assert_eq!(digest_of(&output), digest);
        assert_eq!(names_in(&folder).unwrap(), [self.name]);
    }
}

#[test]
fn fifty_kills_leave_the_old_image_or_the_new_one() {
    // The end, where names are given, is met more often than its share of the time.
    Kills {
        name: "rootfs-a.ext4",
        arguments: &[],
        rounds: 50,
        moments: 400..1100,
        killed: 10,
    }
    .check();
}

/// What a script prints that may mount.
fn with_mounts(script: &str, folder: &Path) -> String {
    let is_root = rustix::process::geteuid().is_root();
    let mut unshare = Command::new("unshare");
    unshare.arg(if is_root { "-m" } else { "-Urm" });
    let output = unshare
        .args(["sh", "-c", script])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Layers go to a file without a name here, then the image to another.
#[test]
fn killed_while_it_compresses() {
    Kills {
        name: "rootfs-a.squashfs",
        arguments: &["2", "squashfs"],
        rounds: 20,
        moments: 100..1100,
        killed: 5,
    }
    .check();
}

/// The disk may be full with the layers already, or with the image beside them.
#[test]
fn a_full_disk_leaves_no_squashfs() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let script = format!(
        r#"set -e
        mkdir disk
        for kib in 16 500 4000 8000 12000 14000 16000 40000; do
            mount -t tmpfs -o size=${{kib}}k tmpfs disk; cd disk
            printf old > b
            said=$({PROGRAM} '{source}' b 2 squashfs) && echo "made $kib" || echo "refused $kib: $said" | head -1
            echo "there: $(ls -A | tr '\n' ' ')$(head -c 3 b | tr -cd 'old')"
            cd ..; umount disk
        done"#
    );
    let said = with_mounts(&script, dir.path());
    let lines: Vec<_> = said.lines().collect();
    let mut refused = 0;
    for pair in lines.chunks(2) {
        let [outcome, there] = pair else { panic!("{said}") };
        if !outcome.starts_with("made") {
            refused += 1;
            assert!(
                outcome.contains("cannot write") && outcome.contains("No space left on device"),
                "{said}"
            );
            assert_eq!(*there, "there: b old", "after {outcome}");
        }
    }
    assert!(
        refused >= 4 && lines.iter().any(|line| line.starts_with("made 40000")),
        "{said}"
    );
}

/// A killed run's file between getting a temporary name and the final one.
#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let folder = dir.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(".rootfs-a.ext4.partial-77-0"), "left").unwrap();
    run(&source, &folder.join("rootfs-a.ext4"), &Recipe::default()).unwrap();
    assert_eq!(names_in(&folder).unwrap(), ["rootfs-a.ext4"]);
}

/// Two builds of one output at once, in one process and in several: each gets through, and one of them stays.
#[test]
fn builds_of_one_output_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let (_, digest, _) = expected(&source, dir.path());
    let folder = dir.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    let output = folder.join("rootfs-a.ext4");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run(&source, &output, &Recipe::default()).unwrap());
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let command = child::command(PROGRAM, &source.to_string(), &output);
                let outcome = child::finish(command).unwrap();
                assert!(outcome.status.success(), "{outcome:?}");
            });
        }
    });
    assert_eq!(digest_of(&output), digest);
    assert_eq!(names_in(&folder).unwrap(), ["rootfs-a.ext4"]);
}

/// On ever larger disks: an error that says so and nothing left, until it fits; and then the same bytes. An image
/// that was there stays as it was.
#[test]
fn a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let (_, digest, _) = expected(&source, dir.path());
    let script = format!(
        r#"set -e
        mkdir disk
        for kib in 16 500 2000 4000 6000 8000 9000 9400 9600 9800 10000 40000; do
            mount -t tmpfs -o size=${{kib}}k tmpfs disk; cd disk
            printf old > b.ext4
            for name in a b; do
                if said=$({PROGRAM} '{source}' $name.ext4); then
                    echo "made $name $kib $(sha256sum < $name.ext4)"
                else
                    echo "refused $name $kib: $said"
                fi
                echo "there: $(ls -A | tr '\n' ' ')$(head -c 3 b.ext4 | tr -cd 'old')"
                test $name = b || rm -f a.ext4
            done
            cd ..; umount disk
        done"#
    );
    let said = with_mounts(&script, dir.path());
    let (mut refused, mut made) = (0, 0);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.starts_with("peak_kib"))
        .collect();
    for pair in lines.chunks(2) {
        let [outcome, there] = pair else { panic!("{said}") };
        if outcome.starts_with("made") {
            made += 1;
            assert!(outcome.contains(&digest.hex().to_string()), "{outcome}");
        } else {
            refused += 1;
            assert!(outcome.contains("cannot write"), "{outcome}");
            assert!(outcome.contains("No space left on device"), "{outcome}");
            assert_eq!(*there, "there: b.ext4 old", "after {outcome}");
        }
    }
    assert!(refused >= 8 && made >= 2, "{said}");
}

/// A filesystem that knows no files without a name, no direct writing and no holes: the host's, as user-mode Linux
/// shows it. A power cut in the middle leaves a named file; the next run removes it and makes the same bytes.
#[test]
fn it_works_where_files_must_have_names() {
    if !uml::have().unwrap() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path());
    let (image, digest, _) = expected(&source, dir.path());
    let folder = dir.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    let output = folder.join("rootfs-a.ext4");
    let script = format!("{PROGRAM} '{source}' {}", output.display());
    let watched = format!("({script}) & while :; do ls -A {}; done", folder.display());
    let mut linux = Uml::start(&image, "ro", &watched).unwrap();
    while !linux
        .line()
        .unwrap()
        .expect("it lists for ever")
        .contains(".partial-")
    {}
    drop(linux);
    let names = names_in(&folder).unwrap();
    assert!(
        names.len() == 1 && names[0].starts_with(".rootfs-a.ext4.partial-"),
        "{names:?}"
    );
    let said = Uml::start(&image, "ro", &script).unwrap().finish().unwrap();
    assert!(said.contains("ok sha256:"), "{said}");
    assert_eq!(digest_of(&output), digest);
    assert_eq!(names_in(&folder).unwrap(), ["rootfs-a.ext4"]);
}
