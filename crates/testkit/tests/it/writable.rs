//! Proves that an image is a filesystem to live in: mounted read-write it takes a workload up to a full disk and is
//! clean afterwards, `resize2fs` grows it offline and, with `--online-resize`, mounted, and with `--journal` it comes
//! back from a cut-off with everything that was promised to be on disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use firebrick_testkit::build::{Built, Recipe, build, check};
use firebrick_testkit::layers::text::layers;
use firebrick_testkit::mount::Mount;
use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::uml::{self, Uml};

const LAYERS: &[&str] = &[
    "d 0755 /etc\nf 0644 /etc/motd \"hi\"\nf 0644 /big @3000000:1\nl /l -> etc\nf 0644 /x xattr:user.a=b",
    "f 0644 /upper @100000:2\nw /etc/motd",
];

fn recipe(change: impl FnOnce(&mut Recipe)) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.ext4.free = 200 << 20;
    change(&mut recipe);
    recipe
}

/// Everything that programs do to a filesystem; ends with a full disk, and most of it deleted again.
fn work(root: &Path) -> anyhow::Result<()> {
    let dir = root.join("work");
    fs::create_dir(&dir)?;
    for n in 0..300 {
        let mut file = File::create(dir.join(format!("file-{n}")))?;
        file.write_all(&vec![n as u8; 100 * n])?;
    }
    for n in (0..300).step_by(2) {
        fs::OpenOptions::new()
            .append(true)
            .open(dir.join(format!("file-{n}")))?
            .write_all(b"appended")?;
        fs::rename(dir.join(format!("file-{n}")), dir.join(format!("renamed-{n}")))?;
    }
    for n in (1..300).step_by(4) {
        fs::remove_file(dir.join(format!("file-{n}")))?;
    }
    let mut deep = dir.clone();
    for _ in 0..200 {
        deep.push("deep");
        fs::create_dir(&deep)?;
    }
    fs::write(deep.join("bottom"), "here")?;
    let folder = root.join("folder");
    fs::create_dir(&folder)?;
    for n in 0..50_000 {
        File::create(folder.join(format!("name-{n}")))?;
    }
    for n in (0..50_000).step_by(3) {
        fs::remove_file(folder.join(format!("name-{n}")))?;
    }
    std::os::unix::fs::symlink("x".repeat(100), root.join("new-link"))?;
    fs::hard_link(root.join("upper"), root.join("upper-too"))?;
    // Files that we laid, made longer, shorter, and sparse.
    fs::OpenOptions::new()
        .append(true)
        .open(root.join("big"))?
        .write_all(&[7; 100_000])?;
    fs::OpenOptions::new()
        .write(true)
        .open(root.join("upper"))?
        .set_len(5000)?;
    fs::remove_file(root.join("l"))?;
    fill(root)
}

/// Writes until there is no space, then frees some of it.
fn fill(root: &Path) -> anyhow::Result<()> {
    let block = vec![0x5a; 1 << 20];
    for n in 0.. {
        let mut file = File::create(root.join(format!("fill-{}", n % 2)))?;
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        drop(file);
        if n >= 2 {
            break;
        }
    }
    fs::remove_file(root.join("fill-0"))?;
    Ok(())
}

/// Mounts, works, unmounts, checks.
fn survives(built: &Built) {
    let mounted = Mount::new(built.image.path(), "rw").unwrap();
    work(mounted.path()).unwrap();
    mounted.unmount().unwrap();
    built.image.fsck().unwrap();
    let mounted = Mount::new(built.image.path(), "ro").unwrap();
    assert_eq!(
        fs::read_to_string(mounted.path().join(format!("work{}/bottom", "/deep".repeat(200)))).unwrap(),
        "here"
    );
    assert_eq!(
        fs::read_dir(mounted.path().join("folder")).unwrap().count(),
        50_000 - 16_667
    );
    mounted.unmount().unwrap();
}

#[test]
fn a_workload_leaves_the_image_clean() {
    if !oracle::have_mount().unwrap() {
        return;
    }
    let inodes = |recipe: &mut Recipe| recipe.ext4.inodes = Some(60_000);
    survives(&build(&layers(LAYERS), &recipe(inodes)).unwrap());
    let journal = recipe(|recipe| {
        inodes(recipe);
        recipe.ext4.journal = true;
    });
    survives(&build(&layers(LAYERS), &journal).unwrap());
    let online = recipe(|recipe| {
        inodes(recipe);
        recipe.ext4.online_resize = true;
    });
    survives(&build(&layers(LAYERS), &online).unwrap());
}

/// `--size auto` and no `--free`: full, but whole.
#[test]
fn an_image_without_free_space_mounts_and_says_so() {
    if !oracle::have_mount().unwrap() {
        return;
    }
    let built = check(&layers(LAYERS), &Recipe::default()).unwrap();
    let mounted = Mount::new(built.image.path(), "rw").unwrap();
    fill(mounted.path()).unwrap();
    mounted.unmount().unwrap();
    built.image.fsck().unwrap();
}

#[test]
fn resize2fs_grows_it_offline() {
    for (journal, online) in [(false, false), (true, false), (false, true)] {
        let recipe = recipe(|recipe| {
            recipe.ext4.free = 1 << 20;
            recipe.ext4.journal = journal;
            recipe.ext4.online_resize = online;
        });
        let built = check(&layers(LAYERS), &recipe).unwrap();
        // Within a group, to several groups, to more groups than one block of descriptors holds.
        for size in ["60M", "700M", "9G"] {
            built
                .image
                .resize(size)
                .unwrap_or_else(|error| panic!("journal {journal}, online {online}, {size}: {error:#}"));
            built.compare(&built.expected).unwrap();
        }
        if oracle::have_mount().unwrap() {
            let mounted = Mount::new(built.image.path(), "rw").unwrap();
            fs::write(mounted.path().join("new"), vec![1; 40 << 20]).unwrap();
            mounted.unmount().unwrap();
            built.image.fsck().unwrap();
        }
    }
}

/// In user-mode Linux: growing a mounted filesystem takes a capability that most places do not give even to root.
#[test]
fn it_grows_while_mounted() {
    if !uml::have().unwrap() {
        return;
    }
    let recipe = recipe(|recipe| {
        recipe.ext4.free = 1 << 20;
        recipe.ext4.online_resize = true;
    });
    let built = check(&layers(LAYERS), &recipe).unwrap();
    let blocks = || built.image.superblock_field("Block count").unwrap();
    let before: u64 = blocks().parse().unwrap();
    let file = File::options().write(true).open(built.image.path()).unwrap();
    file.set_len(3 << 30).unwrap();
    let grow = Uml::start(built.image.path(), "rw,noatime", "resize2fs /dev/ubda 2>&1").unwrap();
    let said = grow.finish().unwrap();
    assert!(said.contains("on-line resizing required"), "{said}");
    assert_eq!((blocks().as_str(), before < 50_000), ("786432", true), "{said}");
    built.image.fsck().unwrap();
    built.compare(&built.expected).unwrap();
    // Into groups that were not there before.
    if oracle::have_mount().unwrap() {
        let mounted = Mount::new(built.image.path(), "rw").unwrap();
        fs::write(mounted.path().join("new"), vec![1; 300 << 20]).unwrap();
        mounted.unmount().unwrap();
        built.image.fsck().unwrap();
    }
}

/// Without `--online-resize` Linux refuses, and says why; the image is as it was.
#[test]
fn it_does_not_grow_while_mounted_by_default() {
    if !uml::have().unwrap() {
        return;
    }
    let built = build(&layers(LAYERS), &recipe(|recipe| recipe.ext4.free = 1 << 20)).unwrap();
    let file = File::options().write(true).open(built.image.path()).unwrap();
    file.set_len(1 << 30).unwrap();
    let script = "! resize2fs /dev/ubda 2>&1";
    let said = Uml::start(built.image.path(), "rw", script)
        .unwrap()
        .finish()
        .unwrap();
    assert!(said.contains("sparse_super2"), "{said}");
    built.image.fsck().unwrap();
}

/// A power cut in the middle of writing: a whole Linux is killed while it writes, at three moments.
#[test]
fn a_journal_brings_it_back_from_a_power_cut() {
    if !uml::have().unwrap() || !oracle::have_mount().unwrap() {
        return;
    }
    let script = "n=0\nwhile :; do\n\
        head -c 5000 /dev/zero | tr '\\0' x > $M/promised-$n; sync $M/promised-$n; echo promised $n\n\
        head -c 90000 /dev/zero > $M/other-$n; mkdir $M/folder-$n; mv $M/other-$n $M/folder-$n/; n=$((n + 1))\ndone";
    for cut_after in [3, 20, 45] {
        let built = build(&layers(LAYERS), &recipe(|recipe| recipe.ext4.journal = true)).unwrap();
        let mut linux = Uml::start(built.image.path(), "rw", script).unwrap();
        let mut promised = 0;
        while promised < cut_after {
            let line = linux.line().unwrap().expect("it writes for ever");
            promised += usize::from(line.starts_with("promised "));
        }
        drop(linux);
        recovers(&built, |root| {
            for n in 0..promised {
                let content = fs::read(root.join(format!("promised-{n}"))).unwrap();
                assert_eq!(content, [b'x'; 5000], "promised-{n} of {promised}");
            }
        });
    }
}

/// The journal has something to replay, and whoever replays it, e2fsck or the kernel, leaves nothing to mend.
fn recovers(built: &Built, look: impl Fn(&Path)) {
    let state = built.image.superblock_field("Filesystem features").unwrap();
    assert!(state.contains("needs_recovery"), "nothing to replay: {state}");
    let copy = built.image.path().with_extension("copy");
    fs::copy(built.image.path(), &copy).unwrap();
    let output = oracle::run("e2fsck", ["-p".as_ref(), built.image.path().as_os_str()]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code().is_some_and(|code| code <= 1), "{output:?}");
    assert!(text.contains("recovering journal"), "{text}");
    built.image.fsck().unwrap();
    let mounted = Mount::new(&copy, "rw").unwrap();
    look(mounted.path());
    mounted.unmount().unwrap();
    Image::check(&copy).unwrap();
}

/// A cut-off in the middle of writing: from one moment on the device takes nothing more, as when the VM is killed.
/// (`EXT4_IOC_SHUTDOWN` without flushing the log. A copy of a file while it is written would not be one moment.)
#[test]
fn a_journal_brings_it_back_from_a_cut_off() {
    if !oracle::have_mount().unwrap() || !oracle::have("perl").unwrap() {
        return;
    }
    for round in 0..3 {
        let recipe = recipe(|recipe| recipe.ext4.journal = true);
        let built = check(&layers(LAYERS), &recipe).unwrap();
        let mounted = Mount::new(built.image.path(), "rw").unwrap();
        let promised = write_and_cut_off(&mounted, 40 + 100 * round);
        mounted.unmount().unwrap();
        assert!(promised > 0, "nothing was written before the cut-off");
        recovers(&built, |root| {
            for n in 0..promised {
                let content = fs::read(root.join(format!("promised-{n}"))).unwrap();
                assert_eq!(content, vec![n as u8; 5000], "promised-{n} of {promised}");
            }
        });
    }
}

/// Writes files, with `fsync`, beside others without; cuts off after about `count`. Tells how many were synced.
fn write_and_cut_off(mounted: &Mount, count: usize) -> usize {
    for n in 0..count {
        let mut file = File::create(mounted.path().join(format!("promised-{n}"))).unwrap();
        file.write_all(&[n as u8; 5000]).unwrap();
        file.sync_all().unwrap();
        fs::write(mounted.path().join(format!("not-promised-{n}")), [1; 9000]).unwrap();
        fs::rename(
            mounted.path().join(format!("not-promised-{n}")),
            mounted.path().join(format!("other-{n}")),
        )
        .unwrap();
    }
    // _IOR('X', 125, __u32), EXT4_GOING_FLAGS_NOLOGFLUSH; perl is part of every Debian.
    let script = "open(my $f, '<', $ARGV[0]) or die $!; my $flags = pack('L', 2); ioctl($f, 0x8004587d, $flags) or die $!;";
    oracle::run_ok(
        "perl",
        ["-e".as_ref(), script.as_ref(), mounted.path().as_os_str()],
    )
    .unwrap();
    assert!(
        fs::write(mounted.path().join("too-late"), "x").is_err(),
        "the device is cut off"
    );
    count
}
