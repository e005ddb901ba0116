//! Signatures, policies, and what they keep from being fetched and booted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::{fault, oracle, stores};
use serde_json::Value;

use crate::stores::through;

use crate::support::Home;
use crate::support::image::make;
use crate::support::layout::home_with;

/// A home with the image `app`, the keys `team` and `other`, and a store in the folder `store`.
struct Scene {
    home: Home,
    store: String,
}

/// What a command said: stdout and stderr, and whether it did what it was asked.
struct Said {
    out: String,
    err: String,
    code: i32,
}

impl Scene {
    fn new() -> Scene {
        let home = home_with(&["f 0644 /etc/motd \"hello\"\n"], serde_json::json!({}));
        make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
        let scene = Scene {
            home,
            store: "./store".to_owned(),
        };
        for key in ["team", "other"] {
            scene.ok(&["store", "keygen", "--sign", key]);
        }
        scene
    }

    fn policy(&self, text: &str) {
        let folder = self.home.path().join(".config/firebrick");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("policy.toml"), text).expect("a file");
    }

    /// Every image needs a signature of `team`.
    fn team_only(&self) {
        let key = self.home.path().join("team.pub");
        self.policy(&format!("[[rule]]\nname = \"*\"\nkeys = [{key:?}]\n"));
    }

    fn run(&self, args: &[&str]) -> Said {
        let output = self
            .home
            .firebrick(args)
            .env("FIREBRICK_STORE", &self.store)
            .output()
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said {
            out: text(output.stdout),
            err: text(output.stderr),
            code: output.status.code().expect("no signal ended it"),
        }
    }

    /// Runs a command that must succeed; its stdout.
    fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out
    }

    /// Runs a command that must fail, for reasons that it must tell.
    fn refused(&self, args: &[&str], told: &[&str]) {
        let said = self.run(args);
        assert!(said.code != 0, "{args:?} did not fail: {}", said.err);
        for told in told {
            assert!(
                said.err.contains(told),
                "{args:?}: {told:?} is not in {}",
                said.err
            );
        }
    }

    /// Whether `run` gets beyond the policy: then a kernel is what it lacks.
    fn is_admitted(&self, image: &str) -> bool {
        let said = self.run(&["run", "-i", image, "--", "true"]);
        assert_eq!(said.code, 125, "{}", said.err);
        let (refused, no_kernel) = (said.err.contains("cannot boot"), said.err.contains("no kernel"));
        assert!(refused != no_kernel, "{}", said.err);
        no_kernel
    }

    fn image(&self) -> String {
        let image = self.home.path().join("fb/images/rootfs-app.ext4");
        image.to_str().expect("a plain path").to_owned()
    }

    /// How many images are remembered to have been fetched.
    fn origins(&self) -> usize {
        fs::read_dir(self.home.path().join("fb/origins")).map_or(0, Iterator::count)
    }
}

fn id_of(scene: &Scene, key: &str) -> String {
    let der = scene.home.path().join(format!("{key}.der"));
    let public = scene.home.path().join(format!("{key}.pub"));
    let (public, der) = (public.to_str().expect("text"), der.to_str().expect("text"));
    oracle::run_ok(
        "openssl",
        ["pkey", "-pubin", "-in", public, "-outform", "DER", "-out", der],
    )
    .expect("openssl reads it");
    let sum = oracle::run_ok("sha256sum", [der]).expect("sha256sum");
    format!("sha256:{}", sum.split_whitespace().next().expect("a sum"))
}

/// A bucket that takes an image and no signature of it: the image is there, and the command of the hint signs it.
#[test]
fn an_image_whose_signature_fails_is_told_to_be_there_and_can_be_signed() {
    let Some(bucket) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    let broken = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&broken);
    let (_proxy, place) = through(&bucket, move |request, pass| {
        let signs =
            request.method == "PUT" && request.body.windows(16).any(|part| part == b"docker-reference");
        match signs && failing.load(Ordering::Relaxed) {
            true => fault::Answer::new(403, ""),
            false => pass(),
        }
    });
    let scene = Scene::new();
    fs::rename(scene.home.path().join("team"), scene.home.path().join("my key")).expect("it is there");
    let upload = ["rootfs", "upload", "-l", "app", "--sign", "my key"];
    let output = place.firebrick(&scene.home, &upload).output().expect("it starts");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(1), 0),
        "{text}"
    );
    let listed = place.json(&scene.home, &["rootfs", "list", "-r"]);
    let version = format!("app:latest@{}", listed[0]["digest"].as_str().expect("a digest"));
    assert!(
        text.contains(&format!(
            "error: {version} is in {}, but without the signature",
            place.address
        )),
        "{text}"
    );
    let hint = format!(
        "firebrick rootfs sign {version} --sign 'my key' -b {}",
        place.address
    );
    assert!(text.contains(&hint), "{text}");
    // The command of the hint does it, as a shell reads it.
    broken.store(false, Ordering::Relaxed);
    let binary = Path::new(env!("CARGO_BIN_EXE_firebrick"));
    let folder = binary.parent().expect("a folder").display();
    let signed = Command::new("sh")
        .args(["-euc", &format!("PATH={folder}:$PATH; {hint}")])
        .env("FIREBRICK_HOME", scene.home.path().join("fb"))
        .envs(place.variables.clone())
        .current_dir(scene.home.path())
        .output()
        .expect("sh starts");
    assert!(signed.status.success(), "{signed:?}");
    place.run(&scene.home, &["rootfs", "verify", "app", "--public", "team.pub"]);
}

#[test]
fn a_signed_image_is_fetched_and_admitted_until_its_key_is_taken_back() {
    let scene = Scene::new();
    let sent: Value =
        serde_json::from_str(&scene.ok(&["rootfs", "upload", "-l", "app", "--sign", "team", "--json"]))
            .expect("JSON");
    if oracle::have("openssl").expect("an oracle, or leave to go without") {
        assert_eq!(sent["signed_by"], id_of(&scene, "team"));
    }
    scene.team_only();
    scene.ok(&["rootfs", "download", "-l", "app"]);
    assert_eq!(scene.origins(), 1);
    assert!(scene.is_admitted("app") && scene.is_admitted(&scene.image()));
    // By another way it is the same image.
    std::os::unix::fs::symlink(scene.image(), scene.home.path().join("link.ext4")).expect("a link");
    assert!(scene.is_admitted("./link.ext4"));

    let team = fs::read(scene.home.path().join("team.pub")).expect("a key");
    fs::copy(
        scene.home.path().join("other.pub"),
        scene.home.path().join("team.pub"),
    )
    .expect("a copy");
    for image in ["app", "./link.ext4"] {
        assert!(!scene.is_admitted(image), "{image}");
    }
    for command in [
        &["boot", "app"][..],
        &["boot", "app", "--print-config"],
        &["pool", "start", "-l", "app"],
    ] {
        scene.refused(
            command,
            &["needs a signature by the rule in line 2", "hint: have it signed"],
        );
    }
    // Nor does it become an image of this host by a change.
    for change in [
        &["rootfs", "edit", "app", "--set-hostname", "x"][..],
        &["rootfs", "resize", "app", "--free", "8M"],
        &["rootfs", "convert", "app", "--format", "squashfs", "-o", "x"],
    ] {
        scene.refused(change, &["cannot make another image of", "needs a signature"]);
    }
    fs::write(scene.home.path().join("team.pub"), team).expect("a file");
    assert!(scene.is_admitted("app"));
    scene.ok(&["rootfs", "rm", "app"]);
    assert_eq!(scene.origins(), 0);
}

#[test]
fn unsigned_images_are_neither_fetched_nor_booted() {
    let scene = Scene::new();
    scene.ok(&["rootfs", "upload", "-l", "app"]);
    scene.ok(&["rootfs", "upload", "-l", "app", "--plain"]);
    scene.ok(&["rootfs", "download", "-l", "app", "-o", "early.ext4"]);
    scene.ok(&["rootfs", "download", "-l", "app", "--plain", "-o", "whole.ext4"]);
    scene.team_only();
    let blobs = scene.home.path().join("store/blobs/sha256");
    let moved = scene.home.path().join("moved");
    // Not a byte of the image could come now: it is refused before that is seen.
    for entry in fs::read_dir(&blobs).expect("a folder").flatten() {
        if entry.metadata().is_ok_and(|found| found.len() > 4096) {
            fs::create_dir_all(&moved).expect("a folder");
            fs::rename(entry.path(), moved.join(entry.file_name())).expect("it moves");
        }
    }
    let told = [
        "refuses app:latest@sha256:",
        "needs a signature",
        "hint: have it signed with the private key of /",
    ];
    scene.refused(&["rootfs", "download", "-l", "app", "-o", "late.ext4"], &told);
    scene.refused(
        &["rootfs", "download", "-l", "app", "--plain", "-o", "late.ext4"],
        &["refuses app as a whole file", "upload -l app --sign KEY"],
    );
    assert!(!scene.home.path().join("late.ext4").exists());
    // What came before there was a policy is refused as well; what was made here is not.
    assert!(!scene.is_admitted("./early.ext4") && !scene.is_admitted("./whole.ext4"));
    assert!(scene.is_admitted("app"));
    scene.policy("local = \"refuse\"\n");
    assert!(!scene.is_admitted("app"));
    scene.policy("[[rule]]\nname = \"app\"\nunsigned = \"allow\"\n");
    assert!(scene.is_admitted("./early.ext4") && scene.is_admitted("./whole.ext4"));
    scene.ok(&["rootfs", "download", "-l", "app", "--plain", "-o", "late.ext4"]);
}

#[test]
fn a_signature_is_for_one_name_and_one_key() {
    let scene = Scene::new();
    let version = scene.ok(&["rootfs", "upload", "-l", "app:v1", "--sign", "team"]);
    let digest = version.trim().rsplit('@').next().expect("a digest").to_owned();
    scene.team_only();
    scene.ok(&["rootfs", "tag", "app:v1", "app:stable"]);
    scene.refused(
        &["rootfs", "download", "-l", "app:stable"],
        &[
            "it is for \"app:v1\", not for \"app:stable\"",
            &format!("rootfs sign app:stable@{digest}"),
        ],
    );
    scene.refused(
        &["rootfs", "verify", "app:stable"],
        &[
            "warning: a signature says nothing for it: it is for \"app:v1\"",
            "needs a signature",
        ],
    );
    scene.ok(&["rootfs", "sign", "app:stable", "--sign", "other"]);
    scene.refused(
        &["rootfs", "download", "-l", "app:stable"],
        &["needs a signature"],
    );
    let out = scene.ok(&[
        "rootfs",
        "sign",
        &format!("app:stable@{digest}"),
        "--sign",
        "team",
    ]);
    assert_eq!(out, format!("app:stable@{digest}\n"));
    scene.ok(&["rootfs", "download", "-l", "app:stable"]);
    assert!(scene.is_admitted("app"));
}

#[test]
fn verify_tells_who_signed() {
    let scene = Scene::new();
    scene.ok(&["rootfs", "upload", "-l", "app", "--sign", "team"]);
    let line = |said: &str| said.split_whitespace().nth(1).map(str::to_owned);
    assert_eq!(
        line(&scene.ok(&["rootfs", "verify", "app", "--public", "team.pub"])).as_deref(),
        Some("team.pub")
    );
    // One of them is enough.
    let both = [
        "rootfs",
        "verify",
        "app",
        "--public",
        "other.pub",
        "--public",
        "team.pub",
        "--json",
    ];
    let found: Value = serde_json::from_str(&scene.ok(&both)).expect("JSON");
    assert_eq!(found["signed_by"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(
        (&found["allowed"], &found["signed_by"][0]["key"]),
        (&true.into(), &"team.pub".into())
    );
    let other = ["rootfs", "verify", "app", "--public", "other.pub", "--json"];
    scene.refused(
        &other,
        &["none of the given keys has signed app:latest@", "hint: sign it"],
    );
    assert_eq!(
        serde_json::from_str::<Value>(&scene.run(&other).out).expect("JSON")["allowed"],
        false
    );
    scene.refused(
        &["rootfs", "verify", "app"],
        &["nothing to verify by", "hint: name keys: --public FILE"],
    );
    scene.team_only();
    assert!(
        scene
            .ok(&["rootfs", "verify", "app"])
            .trim_end()
            .ends_with("team.pub")
    );
    scene.policy("unsigned = \"allow\"\n");
    let said = scene.run(&["rootfs", "verify", "app"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    assert!(said.err.contains("allows it without a signature"), "{}", said.err);
}

#[test]
fn a_key_that_is_none_stops_the_upload_before_it_begins() {
    let scene = Scene::new();
    fs::write(scene.home.path().join("no-key"), "x").expect("a file");
    for (key, told) in [
        ("no-key", "private key"),
        ("team.pub", "this is a public key"),
        ("absent", "cannot sign with the key"),
    ] {
        scene.refused(&["rootfs", "upload", "-l", "app", "--sign", key], &[told]);
    }
    assert!(!scene.home.path().join("store").exists());
}

#[test]
fn a_policy_that_is_of_no_use_refuses_everything() {
    let scene = Scene::new();
    scene.ok(&["rootfs", "upload", "-l", "app"]);
    scene.policy("unsinged = \"allow\"\n");
    let told = ["no image is used, since the policy", "unknown field `unsinged`"];
    scene.refused(&["rootfs", "download", "-l", "app", "-o", "x"], &told);
    scene.refused(&["run", "-l", "app", "--", "true"], &told);
    // Nor does the one that is named let another decide.
    scene.policy("unsigned = \"allow\"\n");
    let named = |path: &str| {
        let mut command = scene.home.firebrick(&["run", "-i", "app", "--", "true"]);
        let output = command
            .env("FIREBRICK_POLICY", path)
            .output()
            .expect("the binary starts");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    assert!(named("absent.toml").contains("no image is used"));
    assert!(named("").contains("no kernel"));
    fs::write(scene.home.path().join("mine.toml"), "local = \"refuse\"\n").expect("a file");
    assert!(named("mine.toml").contains("refuses images that were made here"));
}

#[test]
fn an_image_that_others_change_is_refused_and_one_that_firebrick_changes_is_local() {
    let scene = Scene::new();
    scene.ok(&["rootfs", "upload", "-l", "app", "--sign", "team"]);
    scene.team_only();
    scene.ok(&["rootfs", "download", "-l", "app"]);
    let file = fs::File::options()
        .append(true)
        .open(scene.image())
        .expect("the image");
    file.set_len(file.metadata().expect("it is there").len() + 4096)
        .expect("it grows");
    scene.refused(
        &["run", "-l", "app", "--", "true"],
        &[
            "the file changed since it was fetched",
            "hint: fetch it again: firebrick rootfs download -l app:latest",
        ],
    );
    for change in [
        &["rootfs", "edit", "app", "--set-hostname", "x"][..],
        &["rootfs", "resize", "app", "--free", "8M"],
        &["rootfs", "convert", "app", "--format", "squashfs"],
        &[
            "rootfs",
            "from-docker",
            "-n",
            "app",
            "-i",
            "oci:img",
            "--agent",
            "none",
            "--init",
            "none",
        ],
    ] {
        scene.ok(&["rootfs", "download", "-l", "app"]);
        assert!(scene.is_admitted("app") && scene.origins() == 1, "{change:?}");
        scene.ok(change);
        assert!(scene.is_admitted("app") && scene.origins() == 0, "{change:?}");
    }
    // A damaged record is none that is absent.
    scene.ok(&["rootfs", "download", "-l", "app"]);
    for entry in fs::read_dir(scene.home.path().join("fb/origins"))
        .expect("a folder")
        .flatten()
    {
        fs::write(entry.path(), "{}").expect("a file");
    }
    assert!(!scene.is_admitted("app"));
}

#[test]
fn encrypted_images_are_signed_like_others() {
    let scene = Scene::new();
    let bytes = fs::read(scene.image()).expect("the image");
    scene.ok(&["store", "keygen", "--seal", "images.key"]);
    scene.ok(&[
        "rootfs",
        "upload",
        "-l",
        "app",
        "--key",
        "images.key",
        "--sign",
        "team",
    ]);
    scene.team_only();
    let fetch = ["rootfs", "download", "-l", "app", "-o", "back.ext4", "--no-reuse"];
    scene.refused(&fetch, &["is encrypted for the key", "--key FILE"]);
    scene.ok(&[&fetch[..], &["--key", "images.key"]].concat());
    assert_eq!(
        fs::read(scene.home.path().join("back.ext4")).expect("the image"),
        bytes
    );
    assert!(scene.is_admitted("./back.ext4"));
}

#[test]
fn keys_are_for_their_owner_and_never_overwritten() {
    let scene = Scene::new();
    let mode = |name: &str| {
        let found = fs::metadata(scene.home.path().join(name)).expect("it is there");
        found.permissions().mode() & 0o777
    };
    scene.ok(&["store", "keygen", "--seal", "images.key"]);
    assert_eq!((mode("team"), mode("images.key")), (0o600, 0o600));
    let before = fs::read(scene.home.path().join("team")).expect("a key");
    for again in [["--sign", "team"], ["--seal", "team"], ["--sign", "absent/key"]] {
        scene.refused(
            &[&["store", "keygen"][..], &again].concat(),
            &["cannot write the key"],
        );
    }
    // Nor is half a pair left.
    fs::remove_file(scene.home.path().join("other.pub")).expect("it is there");
    scene.refused(&["store", "keygen", "--sign", "other"], &["cannot write the key"]);
    assert!(!scene.home.path().join("other.pub").exists());
    assert_eq!(fs::read(scene.home.path().join("team")).expect("a key"), before);
    scene.refused(&["store", "keygen"], &["--sign"]);
}

#[test]
fn a_registry_keeps_signatures_of_keys_that_openssl_made() {
    if !have_tools() {
        return;
    }
    let mut scene = Scene::new();
    let registry = DockerRegistry::start(&Setup::default());
    scene.store = format!("oci://{}/images", registry.host);
    let at = |name: &str| scene.home.path().join(name).to_str().expect("text").to_owned();
    let (key, public) = (at("ssl.key"), at("ssl.pub"));
    oracle::run_ok("openssl", ["genpkey", "-algorithm", "ed25519", "-out", &key]).expect("a key");
    oracle::run_ok("openssl", ["pkey", "-in", &key, "-pubout", "-out", &public]).expect("its public half");
    scene.policy(&format!("[[rule]]\nname = \"*\"\nkeys = [{public:?}]\n"));
    scene.ok(&["rootfs", "upload", "-l", "app", "--plain-http"]);
    let fetch = [
        "rootfs",
        "download",
        "-l",
        "app",
        "-o",
        "back.ext4",
        "--plain-http",
    ];
    scene.refused(&fetch, &["needs a signature", "and has none that counts"]);
    scene.ok(&["rootfs", "sign", "app", "--sign", "ssl.key", "--plain-http"]);
    let by = scene.ok(&["rootfs", "verify", "app", "--public", "ssl.pub", "--plain-http"]);
    assert_eq!(by, format!("{} ssl.pub\n", id_of(&scene, "ssl")));
    scene.ok(&fetch);
    assert!(scene.is_admitted("./back.ext4"));
    // Whoever may push gives another image the name; its signature does not go along.
    scene.ok(&["rootfs", "edit", "app", "--set-hostname", "other"]);
    scene.ok(&["rootfs", "upload", "-l", "app", "--plain-http"]);
    scene.refused(&fetch, &["needs a signature"]);
    assert!(scene.is_admitted("./back.ext4"));
}
