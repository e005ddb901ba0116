//! Images for other processors: which guest they get, what is said where there is none for them, and where they do not boot.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_digest::Digest;
use firebrick_ext4::read::{Filesystem, LastSymlink};
use firebrick_testkit::layers::{oci, text};
use firebrick_testkit::oracle::Image;
use serde_json::{Value, json};

use crate::support::{Home, layout};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const GUEST: &[u8] = b"/usr/lib/firebrick/firebrick-guest";

/// A home with the OCI layout `img`, whose index leads to an image for each of these platforms.
fn with_platforms(platforms: &[(&str, &str)]) -> Home {
    let home = Home::new();
    let layout = home.path().join("img");
    let layers = text::layers(&["d 0755 /etc\nf 0644 /etc/motd \"hi\\n\""]);
    oci::write_layout(&layout, &layers, &oci::Options::default()).expect("a layout");
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).expect("a blob")).expect("JSON") };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        layout
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    };
    let store = |value: &Value, like: &Value| {
        let bytes = value.to_string().into_bytes();
        let mut descriptor = like.clone();
        descriptor["digest"] = Digest::of(&bytes).to_string().into();
        descriptor["size"] = bytes.len().into();
        fs::write(blob(&descriptor), bytes).expect("a blob");
        descriptor
    };
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]));
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|(os, architecture)| {
            let mut config = read(&blob(&manifest["config"]));
            config["os"] = (*os).into();
            config["architecture"] = (*architecture).into();
            let mut manifest = manifest.clone();
            manifest["config"] = store(&config, &manifest["config"]);
            let mut descriptor = store(&manifest, &index["manifests"][0]);
            descriptor["platform"] = json!({"os": os, "architecture": architecture});
            descriptor["annotations"] = json!({});
            descriptor
        })
        .collect();
    let images = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let tag = json!({"mediaType": INDEX, "annotations": {"org.opencontainers.image.ref.name": "latest"}});
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [store(&images, &tag)]});
    fs::write(layout.join("index.json"), top.to_string()).expect("an index");
    home
}

/// Another processor than this machine's: its name for OCI, for Rust, and its `e_machine`.
fn other() -> (&'static str, &'static str, u16) {
    match cfg!(target_arch = "aarch64") {
        true => ("amd64", "x86_64", 62),
        false => ("arm64", "aarch64", 183),
    }
}

/// The real guest for the other processor, as `cargo xtask guest` makes it. Where this Rust cannot build for that, a program
/// that is nothing but the header.
fn other_guest() -> Vec<u8> {
    let (_, processor, machine) = other();
    let target = format!("{processor}-unknown-linux-gnu");
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = String::from_utf8(sysroot.expect("rustc").stdout).expect("a path");
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(&target)
        .is_dir()
    {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-build"); // as the tests of embed, which build it too
        fs::create_dir_all(&folder).expect("a folder");
        return fs::read(firebrick_embed::build_guest_for(&target, &folder).expect("a guest"))
            .expect("a file");
    }
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16..20].copy_from_slice(&[2, 0, machine.to_le_bytes()[0], 0]);
    header
}

fn from_docker<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [
        &["rootfs", "from-docker", "-q", "-n", "app", "-i", "oci:img"],
        more,
    ]
    .concat()
}

fn image_of(home: &Home) -> PathBuf {
    home.path().join("fb/images/rootfs-app.ext4")
}

/// A file of the image, by our reader.
fn file_of(image: &Path, path: &[u8]) -> Option<Vec<u8>> {
    let filesystem = Filesystem::open(fs::File::open(image).expect("the image")).expect("an ext4");
    let inode = filesystem.lookup(path, LastSymlink::Follow).ok()?;
    let mut bytes = Vec::new();
    let mut file = filesystem.open_file(&inode).expect("a file");
    file.read_to_end(&mut bytes).expect("bytes");
    Some(bytes)
}

#[test]
fn an_image_for_another_processor_gets_the_guest_that_is_given() {
    let (architecture, _, machine) = other();
    let home = with_platforms(&[("linux", "amd64"), ("linux", "arm64")]);
    let guest = other_guest();
    fs::write(home.path().join("guest"), &guest).expect("a file");
    let platform = format!("linux/{architecture}");
    home.firebrick(&from_docker(&["--platform", &platform, "--agent", "guest"]))
        .assert()
        .success();
    Image::check(&image_of(&home)).expect("a sound image");
    let inside = file_of(&image_of(&home), GUEST).expect("a guest");
    assert!(inside == guest, "it is another one");
    assert_eq!(u16::from_le_bytes([inside[18], inside[19]]), machine);
    let init = file_of(&image_of(&home), b"/sbin/init").expect("an init");
    assert!(init == guest, "/sbin/init is not the guest");

    // This machine's image is in the same layout, and the other's guest does not fit it.
    home.firebrick(&from_docker(&[])).assert().success();
    let own = file_of(&image_of(&home), GUEST).expect("a guest");
    assert_ne!(u16::from_le_bytes([own[18], own[19]]), machine);
    let text = home.transcript(&from_docker(&["--agent", "guest"]));
    assert!(
        text.contains("another processor") && text.ends_with("exit code 1\n"),
        "{text}"
    );
}

/// Whether this firebrick could be built with the guest for the other processor.
fn carries_other_guest() -> bool {
    let (_, processor, _) = other();
    firebrick_embed::can_build_for(&format!("{processor}-unknown-linux-gnu"))
}

#[test]
fn firebrick_carries_the_guest_for_the_other_processor() {
    let (architecture, processor, machine) = other();
    let home = with_platforms(&[("linux", architecture)]);
    let text = home.transcript(&from_docker(&["--platform", &format!("linux/{architecture}")]));
    if !carries_other_guest() {
        let command = format!(
            "cargo xtask guest --target {processor}-unknown-linux-gnu --output firebrick-guest-{processor}"
        );
        for part in [&*command, "--agent none", "exit code 1\n"] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        return;
    }
    assert!(text.ends_with("exit code 0\n"), "{text}");
    let inside = file_of(&image_of(&home), GUEST).expect("a guest");
    assert_eq!(u16::from_le_bytes([inside[18], inside[19]]), machine);
    assert!(inside == other_guest(), "it is not the guest of this workspace");
}

#[test]
fn images_for_another_processor_are_refused_before_anything_boots() {
    let (architecture, processor, _) = other();
    let home = with_platforms(&[("linux", architecture)]);
    fs::write(home.path().join("guest"), other_guest()).expect("a file");
    let platform = format!("linux/{architecture}");
    let build = from_docker(&["--platform", &platform, "--agent", "guest"]);
    home.firebrick(&build).assert().success();
    let own = std::env::consts::ARCH;
    for (args, code) in [
        (&["run", "-i", "app", "--", "true"][..], 125),
        (&["boot", "app"], 1),
    ] {
        // There is neither a kernel nor a search for QEMU: the image alone tells.
        let text = home.transcript(args);
        for part in [
            &*format!("is for {processor}, but the VM's processor is {own}: it cannot start /sbin/init"),
            &format!(
                "hint: run it in software, which is slow: firebrick setup --platform linux/{architecture}"
            ),
            &format!("exit code {code}\n"),
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
    // With the machine that it is for, the next thing that is missing is its kernel.
    let text = home.transcript(&["boot", "app", "--platform", &platform]);
    assert!(
        text.contains(&format!("no kernel for {processor} has been set up")),
        "{text}"
    );
    assert!(
        text.contains(&format!("firebrick setup --platform {platform}")),
        "{text}"
    );
    let text = home.transcript(&["boot", "app", "--platform", "linux/riscv64"]);
    assert!(text.ends_with("exit code 2\n"), "{text}");
}

/// A kernel as `setup` keeps it, of no use but to be asked for its release.
fn old_kernel(home: &Home, release: &str) {
    let kernels = home.path().join("fb/kernels");
    let folder = kernels.join(release);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("vmlinux"), "x").expect("a file");
    let manifest = json!({
        "version": 1, "release": release, "file": "vmlinux", "format": "elf", "size_bytes": 1,
        "digest": Digest::of(b"x").to_string(), "modules": [], "missing": [],
        "origin": {"kind": "file", "path": "/x", "digest": "sha256:0"},
    });
    fs::write(folder.join("kernel.json"), manifest.to_string()).expect("a file");
    let _ = fs::remove_file(kernels.join("default"));
    std::os::unix::fs::symlink(release, kernels.join("default")).expect("a link");
}

#[test]
fn nodejs_on_an_old_kernel_is_refused_with_the_reason() {
    let node = |layer: &str, env: Value| {
        let home = layout::home_with(&[layer], json!({"Env": env}));
        home.firebrick(&from_docker(&[])).assert().success();
        home
    };
    let program = "d 0755 /usr/bin\nf 0755 /usr/bin/node \"x\"";
    let by_env = node(program, json!(["NODE_VERSION=20.11.1"]));
    let list =
        format!("{program}\nd 0755 /lib/apk/db\nf 0644 /lib/apk/db/installed \"P:nodejs\\nV:18.20.1-r0\\n\"");
    let by_list = node(&list, json!([]));
    for (home, version) in [(&by_env, "20.11.1"), (&by_list, "18.20.1-r0")] {
        old_kernel(home, "5.4.0-9-cloud");
        let text = home.transcript(&["run", "-i", "app", "--", "node"]);
        let words = format!(
            "has Node.js {version}, which needs Linux 5.10 or later, and the kernel is 5.4.0-9-cloud"
        );
        assert!(text.contains(&words), "{text}");
        assert!(text.contains("firebrick setup --kernel-version 6.1"), "{text}");
        assert!(text.ends_with("exit code 125\n"), "{text}");
    }
    // A newer kernel, and an older Node.js, are taken: what fails then is the kernel that is none.
    old_kernel(&by_env, "5.10.0-1");
    let text = by_env.transcript(&["boot", "app"]);
    assert!(!text.contains("Node.js"), "{text}");
    let old = node(program, json!(["NODE_VERSION=16.20.0"]));
    old_kernel(&old, "5.4.0-9-cloud");
    let text = old.transcript(&["boot", "app"]);
    assert!(!text.contains("Node.js"), "{text}");
}

#[test]
fn without_a_guest_the_hint_tells_how_to_do_without() {
    let (architecture, _, _) = other();
    let home = with_platforms(&[("linux", architecture), ("linux", "s390x"), ("windows", "amd64")]);
    let text = home.transcript(&from_docker(&["--platform", "linux/s390x"]));
    assert!(!text.contains("xtask") && text.contains("hint: "), "{text}");
    assert!(text.contains("--agent none"), "{text}");
    let text = home.transcript(&from_docker(&["--platform", "windows/amd64"]));
    assert!(text.contains("only Linux images boot"), "{text}");

    // Of what there is, only what can boot is offered.
    let text = home.transcript(&from_docker(&["--platform", "linux/ppc64le"]));
    let choice = format!("hint: choose one: --platform linux/{architecture}, or --platform linux/s390x\n");
    assert!(text.contains(&choice), "{text}");

    home.firebrick(&from_docker(&["--platform", "linux/s390x", "--agent", "none"]))
        .assert()
        .success();
    let image = image_of(&home);
    Image::check(&image).expect("a sound image");
    assert_eq!(file_of(&image, GUEST), None);
    assert_eq!(file_of(&image, b"/sbin/init"), None);
    assert!(file_of(&image, b"/etc/firebrick/image.json").is_some());
    let text = home.transcript(&from_docker(&[
        "--platform",
        "linux/s390x",
        "--agent",
        "none",
        "--init",
        "firebrick",
    ]));
    assert!(text.contains("hint: leave one of the two flags out"), "{text}");
}

/// A tar says nothing about its processor; its programs do.
#[test]
fn programs_tell_what_a_tar_is_for() {
    if !carries_other_guest() {
        return;
    }
    let (architecture, processor, machine) = other();
    let home = Home::new();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).expect("a folder");
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).expect("a link");
    std::os::unix::fs::symlink("/bin/box", root.join("usr/bin/sh")).expect("a link");
    fs::write(root.join("usr/bin/box"), other_guest()).expect("a file");
    let build = ["rootfs", "from-docker", "-n", "app", "-i", "dir:root"];
    for format in ["squashfs", "ext4"] {
        let text = home.transcript(&[&build[..], &["--format", format]].concat());
        let words = format!("/bin/sh is for {processor}: the image is made for linux/{architecture}");
        assert!(text.contains(&words) && text.ends_with("exit code 0\n"), "{text}");
    }
    let inside = file_of(&image_of(&home), GUEST).expect("a guest");
    assert_eq!(u16::from_le_bytes([inside[18], inside[19]]), machine);
    // Said to be for another, by a flag or by its config, it is refused.
    let own = match architecture {
        "arm64" => "linux/amd64",
        _ => "linux/arm64",
    };
    let text = home.transcript(&[&build[..], &["--platform", own]].concat());
    let words = format!("said to be for {own}, but its /bin/sh is for {processor}");
    assert!(text.contains(&words), "{text}");
    assert!(
        text.contains(&format!(
            "hint: take it for what it is: --platform linux/{architecture}"
        )),
        "{text}"
    );
    assert!(text.ends_with("exit code 1\n"), "{text}");
    let platform = format!("linux/{architecture}");
    let text = home.transcript(&[&build[..], &["--platform", &platform]].concat());
    assert!(
        !text.contains("is for") && text.ends_with("exit code 0\n"),
        "{text}"
    );
}

/// What cannot be copied is told before anything boots: here there is not even a kernel.
#[test]
fn files_that_cannot_be_copied_are_refused_before_the_boot() {
    let home = layout::home_with(&[""], json!({}));
    home.firebrick(&from_docker(&[])).assert().success();
    std::os::unix::fs::symlink("nowhere", home.path().join("dangling")).expect("a link");
    let pipe = Command::new("mkfifo").arg(home.path().join("pipe")).status();
    assert!(pipe.expect("mkfifo").success());
    for (flag, words, told) in [
        ("--put", "absent:/x", "cannot copy \"absent\""),
        ("--put", "dangling:/x", "cannot copy \"dangling\""),
        ("--get", "/x:pipe", "there is a named pipe, which is not replaced"),
        ("--get", "/x:dangling", "there is a link, which is not replaced"),
    ] {
        let text = home.transcript(&["run", "-i", "app", flag, words, "--", "true"]);
        assert!(text.contains(told) && text.contains("hint: "), "{text}");
        assert!(text.ends_with("exit code 125\n"), "{text}");
    }
}
