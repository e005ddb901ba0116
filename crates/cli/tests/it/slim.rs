//! Slimming and settings with the command itself, judged by dpkg, apk, and shadow's own checkers.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use firebrick_testkit::oracle::Image;
use firebrick_testkit::{fixtures, oracle};
use serde_json::json;

use crate::support::{Home, layout};

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What dpkg finds wrong with the packages of a folder.
fn dpkg_verify(root: &Path) -> String {
    text(&run(Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .arg("--verify")))
}

/// The files of an image, in a folder.
fn unpacked(image: &Path, folder: &Path) {
    fs::create_dir(folder).expect("a folder");
    let request = format!("rdump / {}", folder.display());
    let output = run(Command::new("debugfs").args(["-R", &request]).arg(image));
    assert!(folder.join("etc").is_dir(), "{}", text(&output));
}

/// The files of the squashfs of this name, in a folder of that name.
fn unsquashed(home: &Home, name: &str) -> std::path::PathBuf {
    let (image, folder) = (
        home.path().join(format!("fb/images/rootfs-{name}.squashfs")),
        home.path().join(name),
    );
    let words = [
        "-n",
        "-d",
        folder.to_str().expect("text"),
        image.to_str().expect("text"),
    ];
    oracle::run_ok("unsquashfs", words).expect("another reader reads it");
    folder
}

/// A root with one package that dpkg itself installed.
fn installed(home: &Home) -> std::path::PathBuf {
    let (package, root) = (home.path().join("package"), home.path().join("root"));
    for (path, content) in [
        (
            "DEBIAN/control",
            "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: a tool\n",
        ),
        ("usr/bin/tool", "#!/bin/sh\necho works\n"),
        ("usr/share/doc/tool/copyright", "free\n"),
        ("usr/share/doc/tool/README", "read me\n"),
        ("usr/share/man/man1/tool.1", "page\n"),
        ("usr/share/man/de/man1/tool.1", "Seite\n"),
        ("usr/share/locale/de/LC_MESSAGES/tool.mo", "mo\n"),
    ] {
        let path = package.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, content).expect("a file");
    }
    let deb = home.path().join("tool.deb");
    let built = run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-b"])
        .arg(&package)
        .arg(&deb));
    assert!(built.status.success(), "{}", text(&built));
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).expect("folders");
    }
    fs::create_dir_all(root.join("etc/dpkg/dpkg.cfg.d")).expect("folders");
    fs::write(root.join("var/lib/dpkg/status"), "").expect("a file");
    let unpack = run(Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .args(["--force-not-root", "--force-script-chrootless", "-i"])
        .arg(&deb));
    assert!(unpack.status.success(), "{}", text(&unpack));
    root
}

#[test]
fn dpkg_misses_nothing_that_was_slimmed_away() {
    if !oracle::have("dpkg-deb").expect("what the tests need") {
        return;
    }
    let home = Home::new();
    let root = installed(&home);
    assert_eq!(dpkg_verify(&root), "");
    let output = home
        .firebrick(&[
            "rootfs",
            "from-docker",
            "-n",
            "slim",
            "-i",
            "dir:root",
            "--slim",
            "docs,man,locale,logs",
        ])
        .output()
        .expect("the binary starts");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for row in ["docs    1      8 B", "man     2      11 B", "locale  1      3 B"] {
        assert!(said.contains(row), "{row}: {said}");
    }
    let image = home.path().join("fb/images/rootfs-slim.ext4");
    Image::check(&image).expect("a sound image");
    let slim = home.path().join("slim");
    unpacked(&image, &slim);
    assert_eq!(dpkg_verify(&slim), "");
    let has = |path: &str| slim.join(path).exists();
    assert!(has("usr/share/doc/tool/copyright") && has("usr/share/man/man1") && has("usr/bin/tool"));
    assert!(!has("usr/share/doc/tool/README") && !has("usr/share/man/de") && !has("usr/share/locale/de"));
    let excludes = fs::read_to_string(slim.join("etc/dpkg/dpkg.cfg.d/firebrick-slim")).expect("a file");
    assert!(excludes.contains("path-exclude=/usr/share/man/*\n"), "{excludes}");
    // The same of the same packages, where the image is a squashfs.
    let flags = ["--slim", "docs,man,locale,logs", "--format", "squashfs"];
    home.firebrick(
        &[
            &["rootfs", "from-docker", "-n", "flat", "-i", "dir:root"],
            &flags[..],
        ]
        .concat(),
    )
    .assert()
    .success();
    let flat = unsquashed(&home, "flat");
    assert_eq!(dpkg_verify(&flat), "");
    assert!(flat.join("usr/bin/tool").exists() && !flat.join("usr/share/doc/tool/README").exists());
    // dpkg takes the list, and its word against a file that is really missing.
    fs::remove_file(slim.join("usr/share/doc/tool/copyright")).expect("it is there");
    assert_eq!(dpkg_verify(&slim), "missing     /usr/share/doc/tool/copyright\n");
}

#[test]
fn the_table_is_json_where_a_program_asks() {
    let home = layout::home_with(
        &["f 0644 /usr/share/doc/a \"text\"\nf 0644 /var/log/b \"log\""],
        json!({}),
    );
    let args = [
        "rootfs",
        "from-docker",
        "-n",
        "a",
        "-i",
        "oci:img",
        "--slim",
        "docs,logs",
        "--slim-json",
    ];
    let output = home.firebrick(&args).output().expect("the binary starts");
    let said = String::from_utf8(output.stderr).expect("text");
    let line = said.lines().find(|line| line.starts_with('{')).expect(&said);
    let found: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&found["files"], &found["bytes"]), (&json!(2), &json!(7)));
    assert_eq!(found["slimmed"][1]["rule"], "logs");
    let refused = home.transcript(&[
        "rootfs",
        "from-docker",
        "-n",
        "a",
        "-i",
        "oci:img",
        "--slim",
        "manual",
    ]);
    assert!(
        refused.contains("\"manual\" is no rule: expected docs, man,"),
        "{refused}"
    );
}

/// The same image in another layout, and as squashfs, gives the same edited files: what is read back is what was written.
#[test]
fn settings_are_laid_over_real_account_files() {
    let Some(alpine) = fixtures::fixture("alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz") else {
        return;
    };
    let home = Home::new();
    let hash = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNJnJuFNEVPqL7Ob2";
    let tar = format!("tar:{}", alpine.display());
    for (name, more) in [("plain", &[][..]), ("online", &["--online-resize"])] {
        let args = [
            &[
                "rootfs",
                "from-docker",
                "-n",
                name,
                "-i",
                &tar,
                "--hostname",
                "box",
                "--dns",
                "1.1.1.1",
                "--root-password",
                hash,
            ],
            &["--module", "vsock", "--slim", "all", "--platform", "linux/amd64"][..],
            more,
        ]
        .concat();
        let output = home.firebrick(&args).output().expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output));
        let image = home.path().join(format!("fb/images/rootfs-{name}.ext4"));
        Image::check(&image).expect("a sound image");
        let folder = home.path().join(name);
        unpacked(&image, &folder);
        let read = |path: &str| fs::read_to_string(folder.join(path)).expect(path);
        assert_eq!(read("etc/hostname"), "box\n");
        assert!(read("etc/hosts").contains("localhost") && read("etc/hosts").ends_with("127.0.1.1\tbox\n"));
        assert_eq!(read("etc/resolv.conf"), "nameserver 1.1.1.1\n");
        assert_eq!(read("etc/modules-load.d/firebrick.conf"), "vsock\n");
        let shadow = read("etc/shadow");
        assert!(shadow.starts_with(&format!("root:{hash}:")), "{shadow}");
        assert!(shadow.contains("\nnobody:!:"), "the other lines stay: {shadow}");
    }
}

#[test]
fn a_password_is_asked_for_and_never_a_default() {
    let passwd = "d 0755 /etc\nf 0644 /etc/passwd \"root:x:0:0::/root:/bin/sh\\n\"\nf 0640 /etc/shadow \"root:!:1::::::\\n\"";
    let home = layout::home_with(&[passwd], json!({}));
    let shadow = || {
        let output = home
            .firebrick(&["rootfs", "cat", "a", "/etc/shadow"])
            .output()
            .expect("the binary starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let make = ["rootfs", "from-docker", "-n", "a", "-i", "oci:img"];
    home.firebrick(&make).assert().success();
    assert_eq!(shadow(), "root:!:1::::::\n");
    let asking = [&make[..], &["--root-password", "ask"]].concat();
    home.firebrick(&asking).write_stdin("secret\n").assert().success();
    let line = shadow();
    let salt = line.split('$').nth(2).expect("a salt").to_owned();
    let judge = run(Command::new("openssl").args(["passwd", "-6", "-salt", &salt, "secret"]));
    assert_eq!(line, format!("root:{}:1::::::\n", text(&judge).trim_end()));
    let said = home.transcript(&[&make[..], &["--root-password", "hunter2"]].concat());
    assert!(
        said.contains("a password itself never stands in a file") && said.ends_with("exit code 2\n"),
        "{said}"
    );
}

/// Puts a package into Alpine as apk would, with something for each rule in it.
const INSTALL: &str = r#"set -e
put() { mkdir -p "$(dirname "$1")"; printf "$2" > "$1"; chmod 755 "$1"; }
put /usr/bin/tool '#!/bin/sh\necho works\n'
put /usr/share/doc/tool/README 'read me\n'
put /usr/share/doc/tool/COPYING 'free\n'
put /usr/share/man/man1/tool.1 'page\n'
put /usr/share/locale/de/LC_MESSAGES/tool.mo 'mo\n'
{
    printf 'C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:tool\nV:1-r0\nA:noarch\nS:1\nI:1\nT:a tool\nU:none\nL:MIT\n'
    for file in usr/bin/tool usr/share/doc/tool/README usr/share/doc/tool/COPYING usr/share/man/man1/tool.1 \
        usr/share/locale/de/LC_MESSAGES/tool.mo; do
        sum=$(sha1sum "/$file" | cut -c 1-40 | xxd -r -p | base64)
        printf 'F:%s\nR:%s\na:0:0:755\nZ:Q1%s\n' "$(dirname $file)" "$(basename $file)" "$sum"
    done
    echo
} >> /lib/apk/db/installed
apk info -e tool
"#;

/// What apk says in the image, and what it says once a file is really missing.
const AUDIT: &str = "set -e\napk audit --system > /audit\napk info -L tool > /files\ntool > /works\n\
    busybox --list > /dev/null\nrm /usr/bin/tool\napk audit --system > /broken\n";

/// A squashfs that is slimmed, and one that is not: apk, run inside both by the sandbox, says the same.
#[test]
fn apk_audits_nothing_new_in_an_image_that_was_slimmed() {
    let Some(alpine) = fixtures::fixture("alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz") else {
        return;
    };
    if !oracle::have("unsquashfs").expect("what the tests need") {
        return;
    }
    let home = Home::new();
    fs::write(home.path().join("install"), INSTALL).expect("a file");
    fs::write(home.path().join("audit"), AUDIT).expect("a file");
    let tar = format!("tar:{}", alpine.display());
    let make = |name: &str, image: &str, script: &str, more: &[&str]| {
        let base = [
            "rootfs",
            "from-docker",
            "-n",
            name,
            "-i",
            image,
            "--script",
            script,
        ];
        let output = home
            .firebrick(&[&base, more].concat())
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output));
    };
    let mut found = Vec::new();
    for (name, more) in [
        ("whole", &["--format", "squashfs"][..]),
        ("slim", &["--format", "squashfs", "--slim", "all"]),
    ] {
        make(name, &tar, "install", more);
        let unpacked = unsquashed(&home, name);
        let is_slim = name == "slim";
        let has = |path: &str| unpacked.join(path).exists();
        assert!(has("usr/share/doc/tool/COPYING") && has("usr/bin/tool"));
        for gone in [
            "usr/share/doc/tool/README",
            "usr/share/man/man1/tool.1",
            "usr/share/locale/de",
        ] {
            assert_eq!(has(gone), !is_slim, "{gone} in {name}");
        }
        let audited = format!("{name}-audited");
        make(&audited, &format!("dir:{name}"), "audit", &[]);
        let read = |path: &str| {
            let output = home
                .firebrick(&["rootfs", "cat", &audited, path])
                .output()
                .expect("the binary starts");
            String::from_utf8(output.stdout).expect("text")
        };
        assert_eq!(read("/works"), "works\n");
        assert_eq!(read("/files").contains("usr/share/doc/tool/README"), !is_slim);
        let (audit, broken) = (read("/audit"), read("/broken"));
        assert!(
            !audit.contains("usr/bin/tool") && broken.contains("usr/bin/tool"),
            "{audit} {broken}"
        );
        found.push(audit);
    }
    assert_eq!(found[0], found[1]);
}
