//! Proves that `rootfs inspect --html` and `--sbom` write whole, repeatable files that tell layers and packages; others judge the
//! bills of materials (`scripts/judge-sbom`), a browser the page (`scripts/look-report`).

use std::fs;
use std::path::Path;
use std::process::Command;

use firebrick_testkit::fixtures::{ALPINE, fixture};
use firebrick_testkit::oracle::say;
use serde_json::{Value, json};

use crate::support::{Home, folder, image, layout};

const LAYERS: [&str; 2] = [
    "d 0755 /etc\nf 0644 /etc/lower \"lower\\n\"\nf 0644 /etc/both \"1\"\nf 0755 /bin/tool @70000:1",
    "f 0644 /etc/both \"2\"\nf 0644 /srv/<b>evil</b> @5000:2\nf 0644 /srv/copy @5000:2",
];

fn made(layers: &[&str], more: &[&str]) -> Home {
    let home = layout::home_with(layers, json!({}));
    image::make(&home, "app", "oci:img", more);
    home
}

/// The data of a page's map.
fn map(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("data");
    let (json, _) = rest.split_once("</script>").expect("its end");
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn the_page_tells_which_layer_a_file_came_with() {
    let home = made(&LAYERS, &[]);
    let said = home.transcript(&["rootfs", "inspect", "app", "--html", "app.html"]);
    assert_eq!(said, "app.html\nexit code 0\n");
    let page = fs::read_to_string(home.path().join("app.html")).expect("a page");
    let data = map(&page);
    let layers = data["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 3);
    assert!(
        layers[0]
            .as_str()
            .is_some_and(|name| name.starts_with("layer 1 ("))
    );
    assert_eq!(layers[2], "firebrick and later changes");
    let layer_of = |name: &str| {
        let files = data["files"].as_array().expect("files");
        files
            .iter()
            .find(|file| file[1] == name)
            .map(|file| file[4].clone())
    };
    for (name, layer) in [
        ("lower", 0),
        ("both", 1),
        ("tool", 0),
        ("copy", 1),
        ("image.json", 2),
        ("firebrick-guest", 2),
    ] {
        assert_eq!(layer_of(name), Some(Value::from(layer)), "{name}");
    }
    assert!(page.contains("&lt;b&gt;evil&lt;/b&gt;") && !page.contains("<b>evil"));
    assert!(page.contains("/srv/copy"), "a duplicate");
    let (_, tree) = (
        0,
        home.firebrick(&["rootfs", "tree", "app", "/etc/both", "--json"])
            .output()
            .expect("it starts"),
    );
    let tree: Value = serde_json::from_slice(&tree.stdout).expect("JSON");
    assert_eq!(tree["layer"], layers[1]);
}

#[test]
fn a_page_without_layers_says_so_and_a_broken_drawing_leaves_nothing() {
    let home = made(&LAYERS, &["--format", "squashfs"]);
    fs::write(home.path().join("boot.svg"), "<svg xmlns=\"x\"/>").expect("a file");
    let args = [
        "rootfs",
        "inspect",
        "app",
        "--html",
        "app.html",
        "--timeline",
        "boot.svg",
    ];
    assert!(home.transcript(&args).ends_with("exit code 0\n"));
    let page = fs::read_to_string(home.path().join("app.html")).expect("a page");
    assert_eq!(map(&page)["layers"], Value::Null);
    assert!(page.contains("A squashfs does not tell which layer") && !page.contains("data-mode=\"layer\""));
    assert!(page.contains("src=\"data:image/svg+xml;base64,PHN2Zy"));

    fs::write(home.path().join("boot.svg"), "nothing").expect("a file");
    let said = home.transcript(&[
        "rootfs",
        "inspect",
        "app",
        "--html",
        "other.html",
        "--timeline",
        "boot.svg",
    ]);
    assert!(
        said.contains("it is no SVG") && said.ends_with("exit code 1\n"),
        "{said}"
    );
    let said = home.transcript(&["rootfs", "inspect", "app", "--html", "missing/other.html"]);
    assert!(
        said.contains("cannot write") && said.ends_with("exit code 1\n"),
        "{said}"
    );
    let left = folder::names_in(home.path());
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("other")),
        "{left:?}"
    );
}

#[test]
fn bills_of_materials_are_the_same_again() {
    let Some(tar) = fixture(ALPINE[1]) else { return };
    let home = Home::new();
    let reference = format!("tar:{}", tar.display());
    let args = ["rootfs", "from-docker", "-q", "-n", "alpine", "-i", &reference];
    assert!(
        home.firebrick(&args)
            .output()
            .expect("it starts")
            .status
            .success()
    );
    let print = |format: &str, epoch: &str| {
        let args = ["rootfs", "inspect", "alpine", "--sbom", format];
        let output = home
            .firebrick(&args)
            .env("SOURCE_DATE_EPOCH", epoch)
            .output()
            .expect("it starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    for format in ["spdx", "cyclonedx"] {
        let bytes = print(format, "7");
        assert_eq!(bytes, print(format, "7"), "{format}");
        assert_ne!(bytes, print(format, "8"), "{format}");
        let text = String::from_utf8(bytes).expect("text");
        for words in [
            "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.3",
            "1970-01-01T00:00:07Z",
            "GPL-2.0-only",
        ] {
            assert!(text.contains(words), "{format} {words}");
        }
        let file = home.path().join(format!("alpine.{format}.json"));
        let args = [
            "rootfs",
            "inspect",
            "alpine",
            "--sbom",
            format,
            "-o",
            file.to_str().expect("a plain path"),
        ];
        assert!(
            home.firebrick(&args)
                .env("SOURCE_DATE_EPOCH", "7")
                .output()
                .expect("it starts")
                .status
                .success()
        );
        assert_eq!(fs::read(file).expect("a file"), text.as_bytes());
    }
    judge(&home);
}

/// Where the judges are installed, or can be: a test must not need a registry.
fn judge(home: &Home) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/judge-sbom");
    if std::env::var_os("FIREBRICK_JUDGE_SBOM").is_none() {
        say("no judge of bills of materials: FIREBRICK_JUDGE_SBOM=1 lets scripts/judge-sbom install them");
        return;
    }
    let files = ["spdx", "cyclonedx"].map(|format| home.path().join(format!("alpine.{format}.json")));
    let output = Command::new(script)
        .args(files)
        .output()
        .expect("the script starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
