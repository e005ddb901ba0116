//! Proves that `rootfs tree`, `du` and `diff` say what `dpkg-query`, `apk`, `du` and `diff` say of the same files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use firebrick_testkit::fixtures::{ALPINE, fixture};
use firebrick_testkit::mount::Mount;
use firebrick_testkit::oracle::{have, have_mount, run_ok};
use serde_json::Value;

use crate::support::{Home, image};

/// What a command prints with `--json`, and its exit code.
fn json(home: &Home, args: &[&str]) -> (i32, Value) {
    let output = home
        .firebrick(args)
        .arg("--json")
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (output.status.code().expect("no signal"), value)
}

/// A root that is a part of this host's Debian: the database, the lists and the files of these packages.
fn debian(root: &Path, packages: &[&str]) {
    let (info, merged) = (root.join("var/lib/dpkg/info"), ["bin", "sbin", "lib", "lib64"]);
    fs::create_dir_all(&info).expect("a folder");
    for folder in merged {
        fs::create_dir_all(root.join("usr").join(folder)).expect("a folder");
        symlink(format!("usr/{folder}"), root.join(folder)).expect("a link");
    }
    // Says that lists of packages of several architectures have those in their names.
    fs::copy("/var/lib/dpkg/info/format", info.join("format")).expect("a copy");
    let status = fs::read_to_string("/var/lib/dpkg/status").expect("dpkg's database");
    let wanted = |stanza: &&str| {
        packages
            .iter()
            .any(|name| stanza.starts_with(&format!("Package: {name}\n")))
    };
    let stanzas: Vec<&str> = status.split("\n\n").filter(wanted).collect();
    assert_eq!(stanzas.len(), packages.len(), "all are installed here");
    fs::write(root.join("var/lib/dpkg/status"), stanzas.join("\n\n") + "\n").expect("a file");
    for name in packages {
        let lists = fs::read_dir("/var/lib/dpkg/info").expect("lists");
        let list = lists
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .find(|list| {
                *list == format!("{name}.list")
                    || (list.starts_with(&format!("{name}:")) && list.ends_with(".list"))
            })
            .expect("a list");
        let from = Path::new("/var/lib/dpkg/info").join(&list);
        for path in fs::read_to_string(&from).expect("a list").lines() {
            let (host, here) = (Path::new(path), root.join(path.trim_start_matches('/')));
            let Ok(metadata) = host.symlink_metadata() else {
                continue;
            };
            if metadata.is_symlink() && !here.exists() {
                fs::create_dir_all(here.parent().expect("a parent")).expect("a folder");
                _ = symlink(fs::read_link(host).expect("a link"), here);
            } else if metadata.is_dir() {
                fs::create_dir_all(here).expect("a folder");
            } else if metadata.is_file() {
                fs::create_dir_all(here.parent().expect("a parent")).expect("a folder");
                fs::copy(host, here).expect("a copy");
            }
        }
        fs::copy(from, info.join(list)).expect("a copy");
    }
}

/// The paths that a tree says are a package's.
fn owned(tree: &Value, package: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![(String::new(), tree)];
    while let Some((path, node)) = todo.pop() {
        if node["package"] == package {
            found.insert(path.clone());
        }
        for child in node["children"].as_array().into_iter().flatten() {
            todo.push((
                format!("{path}/{}", child["name"].as_str().expect("a name")),
                child,
            ));
        }
    }
    found
}

#[test]
fn dpkg_query_names_the_same_packages_and_the_same_files() {
    if !have("dpkg-query").expect("a judge") {
        return;
    }
    let home = Home::new();
    let root = home.path().join("root");
    let packages = ["coreutils", "dash", "libc6", "sed", "tzdata"];
    debian(&root, &packages);
    image::make(
        &home,
        "debian",
        &format!("dir:{}", root.display()),
        &["--agent", "none"],
    );

    let (code, by_package) = json(&home, &["rootfs", "du", "debian", "--by", "package"]);
    assert_eq!(code, 0);
    let ours: BTreeSet<String> = by_package["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| {
            Some(format!(
                "{} {}",
                entry["package"].as_str()?,
                entry["version"].as_str()?
            ))
        })
        .collect();
    let at = format!("--root={}", root.display());
    let theirs = run_ok("dpkg-query", [at.as_str(), "-W", "-f=${Package} ${Version}\n"]).expect("an answer");
    assert_eq!(ours, theirs.lines().map(str::to_owned).collect());

    let (_, tree) = json(&home, &["rootfs", "tree", "debian", "--depth", "200"]);
    for package in packages {
        let listed = run_ok("dpkg-query", [at.as_str(), "-L", package]).expect("an answer");
        let theirs: BTreeSet<String> = listed
            .lines()
            .filter_map(|path| {
                let path = root.join(path.trim_start_matches('/'));
                // Where it lies, as it is there; folders are nobody's.
                let folder = path.parent()?.canonicalize().ok()?;
                let path = folder.join(path.file_name()?);
                let metadata = path.symlink_metadata().ok()?;
                let is_merged = folder == root && metadata.is_symlink();
                let inside = path.strip_prefix(root.canonicalize().ok()?).ok()?;
                (!metadata.is_dir() && !is_merged).then(|| format!("/{}", inside.display()))
            })
            .collect();
        assert_eq!(owned(&tree, package), theirs, "{package}");
        assert!(theirs.len() > 3, "{package} has files");
    }
}

#[test]
fn apk_names_the_same_packages_and_the_same_files() {
    let (Some(tar), true) = (fixture(ALPINE[1]), have("unshare").expect("a judge")) else {
        return;
    };
    let home = Home::new();
    image::make(&home, "alpine", &format!("tar:{}", tar.display()), &[]);
    let root = home.path().join("root");
    fs::create_dir(&root).expect("a folder");
    let (archive, folder) = (tar.display().to_string(), root.display().to_string());
    run_ok("tar", ["-xzf", &archive, "-C", &folder, "--no-same-owner"]).expect("an unpacked copy");
    let apk = |args: &[&str]| {
        let output = Command::new("unshare")
            .args(["-r", "--root", &folder, "/sbin/apk"])
            .args(args)
            .output()
            .expect("unshare starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };
    let (_, tree) = json(&home, &["rootfs", "tree", "alpine", "--depth", "100"]);
    let names: Vec<String> = apk(&["info"]).lines().map(str::to_owned).collect();
    assert!(names.len() > 10);
    for name in names {
        let theirs: BTreeSet<String> = apk(&["info", "-q", "-L", &name])
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| format!("/{line}"))
            .collect();
        // An image of ours has mount points that apk thinks are its files.
        let theirs: BTreeSet<String> = theirs
            .into_iter()
            .filter(|path| root.join(&path[1..]).symlink_metadata().is_ok())
            .collect();
        assert_eq!(owned(&tree, &name), theirs, "{name}");
    }
}

#[test]
fn du_counts_what_du_counts() {
    let Some(tar) = fixture(ALPINE[1]) else { return };
    let home = Home::new();
    image::make(&home, "alpine", &format!("tar:{}", tar.display()), &[]);
    if !have_mount().expect("a judge") {
        return;
    }
    let path = home.path().join("fb/images/rootfs-alpine.ext4");
    let mount = Mount::new(&path, "ro").expect("a mount");
    for folder in ["/", "/usr", "/lib", "/etc/apk"] {
        let (_, ours) = json(&home, &["rootfs", "du", "-n", "alpine", folder]);
        let at = mount.path().join(&folder[1..]).display().to_string();
        for (flag, key) in [("--apparent-size", "size_bytes"), ("-s", "stored_bytes")] {
            let said = run_ok("du", ["-s", "-B1", flag, at.as_str()]).expect("an answer");
            let theirs: u64 = said
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .expect("a number");
            assert_eq!(ours["total"][key], theirs, "{folder} {key}");
        }
    }
    mount.unmount().expect("it ends");
    let by = |by: &str| json(&home, &["rootfs", "du", "alpine", "--by", by]).1;
    let sum = |value: &Value, key: &str| -> u64 {
        let entries = value["entries"].as_array().expect("a list");
        entries
            .iter()
            .map(|entry| entry[key].as_u64().expect("a number"))
            .sum()
    };
    let packages = by("package");
    assert_eq!(sum(&packages, "stored_bytes"), packages["total"]["stored_bytes"]);
    let files = by("file");
    assert_eq!(sum(&files, "files"), files["total"]["files"]);
}

const OLD: &str = "mkdir -p same gone/deep changed; echo 1 > same/a; echo 2 > gone/deep/b; echo 3 > changed/c; echo 4 > changed/mode; \
                   ln -s a changed/link; echo 5 > type; head -c 100000 /dev/zero > large";
const NEW: &str = "rm -r gone; mkdir new; echo 6 > new/d; echo 7 > changed/c; chmod 600 changed/mode; ln -sfn b changed/link; \
                   rm type; mkdir type; head -c 300000 /dev/urandom > large";

/// Two images, the second one's folder made from the first one's, and their names.
fn two(home: &Home) {
    for (name, script) in [("old", OLD), ("new", NEW)] {
        let root = home.path().join("root");
        fs::create_dir_all(&root).expect("a folder");
        let status = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&root)
            .status()
            .expect("sh starts");
        assert!(status.success());
        run_ok(
            "cp",
            [
                "-a",
                &root.display().to_string(),
                &home.path().join(name).display().to_string(),
            ],
        )
        .expect("a copy");
        image::make(
            home,
            name,
            &format!("dir:{}", root.display()),
            &["--agent", "none"],
        );
    }
}

#[test]
fn diff_finds_what_diff_finds() {
    let home = Home::new();
    two(&home);
    let (code, found) = json(&home, &["rootfs", "diff", "old", "new"]);
    assert_eq!((code, &found["same"]), (1, &Value::Bool(false)));
    let of = |kind: &str| -> BTreeSet<String> {
        let changes = found["changes"].as_array().expect("a list").iter();
        changes
            .filter(|change| change["kind"] == kind && change["path"] != "/etc/firebrick/image.json")
            .map(|change| change["path"].as_str().expect("a path").to_owned())
            .collect()
    };
    let output = Command::new("diff")
        .args(["-rq", "--no-dereference", "old", "new"])
        .env("LC_ALL", "C")
        .current_dir(home.path())
        .output()
        .expect("diff starts");
    let said = String::from_utf8(output.stdout).expect("text");
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, path) = match words.as_slice() {
            ["Only", "in", folder, name] => {
                let folder = folder.trim_end_matches(':');
                let kind = if folder.starts_with("old") {
                    "removed"
                } else {
                    "added"
                };
                (kind, format!("{}/{name}", &folder[3..]))
            }
            ["Files", file, "and", ..] | ["Symbolic", "links", file, ..] | ["File", file, ..] => {
                ("changed", file.trim_start_matches("old").to_owned())
            }
            _ => panic!("{line}"),
        };
        assert!(of(kind).contains(&path), "diff says {line}: {found:#}");
    }
    let names = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| (*path).to_owned())
            .collect::<BTreeSet<String>>()
    };
    assert_eq!(of("added"), names(&["/new", "/new/d"]));
    assert_eq!(of("removed"), names(&["/gone", "/gone/deep", "/gone/deep/b"]));
    let changed = ["/changed/c", "/changed/link", "/changed/mode", "/large", "/type"];
    assert_eq!(of("changed"), names(&changed));
    assert_eq!(found["added"]["paths"], 2);
}

#[test]
fn the_exit_code_of_diff_tells_sameness_and_budget() {
    let home = Home::new();
    two(&home);
    let code = |args: &[&str]| json(&home, &[&["rootfs", "diff"], args].concat()).0;
    assert_eq!(code(&["old", "old"]), 0);
    assert_eq!(code(&["old", "new"]), 1);
    assert_eq!(code(&["old", "new", "--budget", "1M"]), 0, "it differs, and may");
    assert_eq!(code(&["old", "new", "--budget", "100K"]), 3);
    assert_eq!(code(&["new", "old", "--budget", "0"]), 0, "it shrank");
    let said = home.transcript(&["rootfs", "diff", "old", "new", "--budget", "100K"]);
    assert!(said.contains("error: the contents have grown by +19"), "{said}");
    assert!(
        home.transcript(&["rootfs", "diff", "old", "nothing"])
            .ends_with("exit code 2\n")
    );
    let same = home.transcript(&["rootfs", "diff", "old", "old"]);
    assert_eq!(same, "nothing differs\nexit code 0\n");
}

#[test]
fn an_image_is_the_same_in_both_formats() {
    let Some(tar) = fixture(ALPINE[1]) else { return };
    let home = Home::new();
    let reference = format!("tar:{}", tar.display());
    image::make(&home, "one", &reference, &[]);
    image::make(&home, "two", &reference, &["--format", "squashfs"]);
    let (code, found) = json(&home, &["rootfs", "diff", "one", "two"]);
    // The squashfs has neither the folder that ext4 must have, nor places of layers.
    let paths: Vec<&Value> = found["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|change| &change["path"])
        .collect();
    assert_eq!(
        (code, paths),
        (
            1,
            vec![
                &Value::from("/etc/firebrick/image.json"),
                &Value::from("/lost+found")
            ]
        )
    );
    let stored = |name: &str| {
        json(&home, &["rootfs", "du", name]).1["total"]["stored_bytes"]
            .as_u64()
            .expect("a number")
    };
    let packed = fs::metadata(home.path().join("fb/images/rootfs-two.squashfs"))
        .expect("a file")
        .len();
    assert!(
        stored("two") < packed && stored("two") * 10 > packed * 8,
        "{} of {packed}",
        stored("two")
    );
    assert!(stored("two") < stored("one"));
}

#[test]
fn trees_are_drawn_and_paths_are_found() {
    let home = Home::new();
    two(&home);
    let tree = home.transcript(&["rootfs", "tree", "old", "/changed"]);
    let names: Vec<&str> = tree.lines().filter_map(|line| line.get(12..)).collect();
    assert_eq!(
        names,
        ["/changed", "├── c", "├── link -> a", "└── mode"],
        "{tree}"
    );
    let missing = home.transcript(&["rootfs", "du", "-n", "old", "/nothing"]);
    assert!(
        missing.contains("error: there is no \"/nothing\" in")
            && missing.contains("hint: see what is there: firebrick rootfs tree"),
        "{missing}"
    );
    assert!(home.transcript(&["rootfs", "tree"]).ends_with("exit code 2\n"));
}
