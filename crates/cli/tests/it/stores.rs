//! The same commands on every kind of store, each a real server: what goes there comes back, and other programs can read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::docker_registry::{DockerRegistry, PASSWORD, Setup, USER, have_tools};
use firebrick_testkit::stores::{self, Store};
use firebrick_testkit::tokens::Tokens;
use firebrick_testkit::{fault, oracle};
use serde_json::Value;

use crate::support::Home;
use crate::support::folder::names_in;
use crate::support::image::make;
use crate::support::layout::home_with;

/// A store, and what a client needs to get into it.
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) variables: Vec<(String, String)>,
    /// What `docker login` leaves in a home.
    login: Option<String>,
}

impl Place {
    pub(crate) fn of(store: &Store) -> Place {
        Place {
            address: format!("{}/images", store.address()),
            variables: store.variables(),
            login: None,
        }
    }

    fn folder(path: &Path) -> Place {
        Place {
            address: format!("file://{}", path.display()),
            variables: Vec::new(),
            login: None,
        }
    }

    fn registry(registry: &DockerRegistry, is_known: bool) -> Place {
        // joe:s3cret:x
        let login = format!(
            r#"{{"auths":{{"{}":{{"auth":"am9lOnMzY3JldDp4"}}}}}}"#,
            registry.host
        );
        assert_eq!((USER, PASSWORD), ("joe", "s3cret:x"));
        Place {
            address: format!("oci://{}/team/images", registry.host),
            variables: Vec::new(),
            login: is_known.then_some(login),
        }
    }

    /// The command in a home, with this store as the default.
    pub(crate) fn firebrick(&self, home: &Home, args: &[&str]) -> assert_cmd::Command {
        if let Some(login) = &self.login {
            fs::create_dir_all(home.path().join(".docker")).expect("a folder");
            fs::write(home.path().join(".docker/config.json"), login).expect("a file");
        }
        let mut command = home.firebrick(args);
        command
            .env("FIREBRICK_STORE", &self.address)
            .envs(self.variables.clone());
        command
    }

    /// What it says on stdout; it must succeed.
    pub(crate) fn run(&self, home: &Home, args: &[&str]) -> String {
        let output = self.firebrick(home, args).output().expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        assert!(
            output.status.success(),
            "{args:?} on {}: {}",
            self.address,
            text(output.stderr)
        );
        text(output.stdout)
    }

    pub(crate) fn json(&self, home: &Home, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(home, &[args, &["--json"]].concat())).expect("JSON")
    }

    /// What it says on stderr; it must fail.
    fn fail(&self, home: &Home, args: &[&str]) -> String {
        let output = self.firebrick(home, args).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

/// A home with an image `app`: some MB that do not compress, and something above them.
pub(crate) fn home_of(len: u64) -> Home {
    let layers = [
        format!("f 0644 /srv/big @{len}:7"),
        "d 0755 /etc\nf 0644 /etc/motd \"hello\"".to_owned(),
    ];
    let home = home_with(&[&layers[0], &layers[1]], serde_json::json!({}));
    make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
    home
}

pub(crate) fn image(home: &Home, name: &str) -> PathBuf {
    home.path().join(format!("fb/images/rootfs-{name}.ext4"))
}

pub(crate) fn read(home: &Home, name: &str) -> Vec<u8> {
    fs::read(image(home, name)).expect("an image")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// Current and older versions of a name, as digests.
fn history(place: &Place, home: &Home, name: &str) -> Vec<Value> {
    let list = place.json(home, &["rootfs", "list", "-r", "--history", "-l", name]);
    let list = list.as_array().expect("an array").iter();
    list.filter(|one| one["tag"] == "latest")
        .map(|one| one["digest"].clone())
        .collect()
}

/// Two versions go up, the second by what is new of it; both come down in another home; names come and go.
fn goes_and_comes_back(place: &Place, has_tags_apart: bool) {
    let here = home_of(3_000_000);
    let before = read(&here, "app");
    let first = place.json(&here, &["rootfs", "upload", "-l", "app"]);
    assert!(number(&first["sent_bytes"]) > 3_000_000, "{first}");
    place.run(&here, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    let after = read(&here, "app");
    assert!(before != after);
    let second = place.json(&here, &["rootfs", "upload", "-l", "app"]);
    assert!(number(&second["sent_bytes"]) < 200_000, "{second}");
    assert_eq!(second["previous"], first["digest"]);

    let there = Home::new();
    let listed = place.json(&there, &["rootfs", "list", "--remote"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["digest"], &listed[0]["size_bytes"]),
        (&Value::from("app"), &second["digest"], &Value::from(after.len())),
        "{listed}"
    );
    place.run(&there, &["rootfs", "download", "-l", "app"]);
    assert!(read(&there, "app") == after, "{}", place.address);
    let digests = [second["digest"].clone(), first["digest"].clone()];
    assert_eq!(history(place, &there, "app"), digests);

    let older = format!("app@{}", first["digest"].as_str().expect("a digest"));
    let fetched = place.json(&there, &["rootfs", "download", "-l", &older, "-o", "older.ext4"]);
    assert!(number(&fetched["fetched_bytes"]) < 200_000, "{fetched}");
    assert!(fs::read(there.path().join("older.ext4")).expect("an image") == before);
    place.run(&there, &["rootfs", "rm", "--remote", &older]);
    assert_eq!(history(place, &there, "app"), digests[..1]);

    place.run(&there, &["rootfs", "tag", "app", "tool:v1"]);
    let tool = place.json(
        &there,
        &[
            "rootfs",
            "download",
            "-l",
            "tool:v1",
            "-o",
            "tool.ext4",
            "--no-reuse",
        ],
    );
    assert_eq!(tool["digest"], second["digest"]);
    assert!(fs::read(there.path().join("tool.ext4")).expect("an image") == after);
    if has_tags_apart {
        place.run(&there, &["rootfs", "rm", "--remote", "tool:v1"]);
        let lost = place.fail(&there, &["rootfs", "download", "-l", "tool:v1"]);
        assert!(lost.contains("has no image tool:v1"), "{lost}");
    }
    place.run(&there, &["rootfs", "rm", "--remote", "app"]);
    assert_eq!(history(place, &there, "app"), [Value::Null; 0]);
    assert_eq!(names_in(&there.path().join("fb/images")), ["rootfs-app.ext4"]);
}

/// Whole files go and come, and are listed beside the others.
fn whole_files(place: &Place) {
    let here = home_of(300_000);
    let bytes = read(&here, "app");
    place.run(&here, &["rootfs", "upload", "--plain", "-l", "app"]);
    place.run(&here, &["rootfs", "upload", "-l", "app"]);
    let there = Home::new();
    let listed = place.json(&there, &["rootfs", "list", "-r"]);
    let kinds: Vec<&Value> = listed
        .as_array()
        .expect("an array")
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(kinds, ["chunks", "plain"]);
    place.run(&there, &["rootfs", "download", "--plain", "-l", "app"]);
    assert!(read(&there, "app") == bytes);
    place.run(&there, &["rootfs", "rm", "-r", "--plain", "app"]);
    let listed = place.json(&there, &["rootfs", "list", "-r"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    goes_and_comes_back(&Place::folder(&folder.path().join("a")), true);
    whole_files(&Place::folder(&folder.path().join("b")));
}

#[test]
fn a_bucket_of_s3() {
    let Some(store) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    goes_and_comes_back(&Place::of(&store), true);
    let other = Place {
        address: "s3://fbtest/whole/files".to_owned(),
        ..Place::of(&store)
    };
    whole_files(&other);
}

#[test]
fn a_container_of_azure() {
    let Some(store) = stores::azurite().expect("Azurite") else {
        return;
    };
    goes_and_comes_back(&Place::of(&store), true);
    let other = Place {
        address: "az://fbtest/whole/files".to_owned(),
        ..Place::of(&store)
    };
    whole_files(&other);
}

/// Its tags go with what they mean, so two names of one image do not go apart.
fn a_registry(setup: &Setup, is_known: bool) {
    let registry = DockerRegistry::start(&Setup {
        deletes: true,
        auth: setup.auth.clone(),
        ..*setup
    });
    let place = Place::registry(&registry, is_known);
    goes_and_comes_back(&place, false);
    names_of_one_image_go_together(&place, &home_of(1000));
    if is_known {
        let stranger = Place::registry(&registry, false);
        let refused = stranger.fail(&Home::new(), &["rootfs", "download", "-l", "tool:v1"]);
        assert!(
            refused.contains("hint:") && refused.contains("login"),
            "{refused}"
        );
    }
    // There is no place for files in a registry.
    let refused = place.fail(&home_of(1000), &["rootfs", "upload", "--plain", "-l", "app"]);
    assert!(refused.contains("cannot upload"), "{refused}");
}

/// docker-registry 2 cannot remove one name of an image: then it is said, nothing goes, and the command of the hint takes all.
fn names_of_one_image_go_together(place: &Place, home: &Home) {
    place.run(home, &["rootfs", "upload", "-l", "app:v1"]);
    place.run(home, &["rootfs", "tag", "app:v1", "app:v2"]);
    place.run(home, &["rootfs", "edit", "app", "--set-hostname", "third"]);
    place.run(home, &["rootfs", "upload", "-l", "app:v2"]);
    let listed = || place.json(home, &["rootfs", "list", "-r", "--history", "-l", "app"]);
    let before = listed();
    let versions = before.as_array().expect("an array");
    let v1 = versions
        .iter()
        .find(|one| one["tag"] == "v1")
        .expect("it was sent");
    let digest = v1["digest"].as_str().expect("a digest");
    for (name, other) in [
        ("app:v1", format!("app:v2@{digest}")),
        ("app:v2", "app:v1".to_owned()),
        (&format!("app:v2@{digest}"), "app:v1".to_owned()),
    ] {
        let refused = place.fail(home, &["rootfs", "rm", "-r", name]);
        for told in [
            format!("cannot delete {name} in {}", place.address),
            format!("each with all its names, and {other} is the same image"),
            format!("rootfs rm --remote -b {} {name} {other}\n", place.address),
        ] {
            assert!(refused.contains(&told), "{refused} has no {told}");
        }
        assert_eq!(listed(), before);
    }
    place.run(
        home,
        &["rootfs", "rm", "-r", "app:v1", &format!("app:v2@{digest}")],
    );
    assert_eq!(listed().as_array().map(Vec::len), Some(1));
    place.run(home, &["rootfs", "rm", "-r", "app:v2"]);
}

#[test]
fn a_registry_for_all() {
    if have_tools() {
        a_registry(&Setup::default(), false);
    }
}

#[test]
fn a_registry_with_passwords() {
    if have_tools() {
        let setup = Setup {
            htpasswd: true,
            ..Setup::default()
        };
        a_registry(&setup, true);
    }
}

#[test]
fn a_registry_with_tokens() {
    if have_tools() {
        let tokens = Tokens::start();
        let setup = Setup {
            auth: Some(tokens.config()),
            ..Setup::default()
        };
        a_registry(&setup, true);
        assert!(!tokens.server.requests().is_empty());
    }
}

/// What a bucket holds is an OCI layout: synchronised to a folder, `skopeo` reads it there, and so do we.
#[test]
fn a_bucket_as_a_folder() {
    if !oracle::have("aws").expect("an oracle") || !oracle::have("skopeo").expect("an oracle") {
        return;
    }
    let Some(store) = stores::seaweed().expect("SeaweedFS") else {
        return;
    };
    let place = Place::of(&store);
    let home = home_of(2_000_000);
    let first = read(&home, "app");
    place.run(&home, &["rootfs", "upload", "-l", "app:v1"]);
    place.run(&home, &["rootfs", "edit", "app", "--set-hostname", "other"]);
    place.run(&home, &["rootfs", "upload", "-l", "app"]);
    let folder = home.path().join("synced");
    let synced = Command::new("aws")
        .args(["s3", "sync", "--quiet", &place.address])
        .arg(&folder)
        .envs(place.variables.clone())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .expect("the AWS client starts");
    assert!(synced.status.success(), "{synced:?}");
    let other = home.path().join("other");
    let (from, to) = (
        format!("oci:{}:app:v1", folder.display()),
        format!("oci:{}:app:v1", other.display()),
    );
    oracle::run_ok("skopeo", ["copy", "--quiet", &from, &to]).expect("skopeo reads it");
    let there = Home::new();
    for (folder, name, bytes) in [
        (&folder, "app", read(&home, "app")),
        (&folder, "app:v1", first.clone()),
        (&other, "app:v1", first),
    ] {
        let place = Place::folder(folder);
        place.run(
            &there,
            &["rootfs", "download", "-l", name, "-o", "x.ext4", "--no-reuse"],
        );
        assert!(
            fs::read(there.path().join("x.ext4")).expect("an image") == bytes,
            "{name}"
        );
    }
}

/// A proxy before the store, and the store by way of it.
pub(crate) fn through(
    store: &Store,
    edit: impl Fn(&fault::Request, &dyn Fn() -> fault::Answer) -> fault::Answer + Send + Sync + 'static,
) -> (fault::Server, Place) {
    let proxy = fault::Server::before(&store.host(), edit).expect("a port");
    let place = Place {
        variables: store.variables_by(proxy.port()),
        ..Place::of(store)
    };
    (proxy, place)
}
