//! Which of our crates may know which others: the data flow of ARCHITECTURE.md, as a table.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Finding, Source};

/// A crate of the workspace and which of our crates it links (dev-dependencies are free).
#[derive(Debug)]
pub(crate) struct Crate {
    /// Name without the `firebrick-` prefix; the binary's is `cli`.
    name: String,
    /// Path of its manifest from the workspace root.
    manifest: String,
    links: Vec<String>,
}

/// Who may link whom. Formats never see layers or sources, the guest links the protocol alone.
const DIRECTIONS: [(&str, &[&str]); 25] = [
    ("digest", &[]),
    ("tree", &[]),
    ("protocol", &[]),
    ("trust", &["digest"]),
    ("store", &["digest", "registry", "trust"]),
    ("bucket", &["store"]),
    ("serve", &[]),
    ("layer", &["digest", "tree"]),
    ("registry", &["digest"]),
    ("source", &["digest", "registry", "layer", "tree"]),
    ("reader", &[]),
    ("ext4", &["digest", "reader", "tree"]),
    ("squashfs", &["reader", "tree"]),
    ("bootstrap", &["digest", "layer", "source", "tree"]),
    ("customise", &["digest", "layer", "tree"]),
    ("recipe", &["customise"]),
    (
        "build",
        &["digest", "tree", "layer", "source", "ext4", "squashfs"],
    ),
    ("sandbox", &["digest", "layer", "tree"]),
    ("inventory", &["digest", "reader"]),
    ("guest", &["protocol"]),
    ("embed", &[]),
    ("vmm", &["digest", "protocol"]),
    (
        "cli",
        &[
            "digest",
            "tree",
            "layer",
            "source",
            "reader",
            "ext4",
            "squashfs",
            "bootstrap",
            "customise",
            "recipe",
            "build",
            "sandbox",
            "inventory",
            "store",
            "registry",
            "bucket",
            "serve",
            "trust",
            "protocol",
            "embed",
            "guest",
            "vmm",
        ],
    ),
    (
        "testkit",
        &[
            "digest",
            "tree",
            "layer",
            "source",
            "reader",
            "ext4",
            "squashfs",
            "build",
            "inventory",
            "store",
            "serve",
            "trust",
            "protocol",
            "vmm",
        ],
    ),
    ("xtask", &["embed"]),
];

/// Reads the crates from what `cargo metadata --no-deps` wrote.
///
/// # Errors
/// When a field that cargo documents is not there.
pub(crate) fn crates(metadata: &Value) -> Result<Vec<Crate>> {
    let root = metadata["workspace_root"]
        .as_str()
        .context("cargo metadata has no workspace_root")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let mut crates = Vec::new();
    for package in packages {
        let text = |key: &str| {
            package[key]
                .as_str()
                .with_context(|| format!("a package has no {key}"))
        };
        let manifest = text("manifest_path")?
            .trim_start_matches(root)
            .trim_start_matches('/')
            .to_owned();
        let dependencies = package["dependencies"]
            .as_array()
            .context("a package has no dependencies")?;
        let links = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev") && dependency["path"].is_string())
            .filter_map(|dependency| dependency["name"].as_str().map(short))
            .collect();
        crates.push(Crate {
            name: short(text("name")?),
            manifest,
            links,
        });
    }
    Ok(crates)
}

fn short(package: &str) -> String {
    match package {
        "firebrick" => "cli".to_owned(),
        name => name.trim_start_matches("firebrick-").to_owned(),
    }
}

/// Dependencies point left in the data flow.
pub(crate) fn directions(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in crates {
        let at = |message: String| Finding {
            path: member.manifest.clone(),
            line: 0,
            message,
        };
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == member.name) else {
            let message = format!(
                "crate {} is in no row of DIRECTIONS in xtask/src/tidy/manifests.rs",
                member.name
            );
            findings.push(at(message));
            continue;
        };
        for link in member
            .links
            .iter()
            .filter(|link| !allowed.contains(&link.as_str()))
        {
            findings.push(at(format!("{} may not link {link}", member.name)));
        }
    }
    findings
}

/// ARCHITECTURE.md names every crate.
pub(crate) fn mapped(crates: &[Crate], sources: &[Source]) -> Vec<Finding> {
    let Some(map) = sources.iter().find(|source| source.path == "ARCHITECTURE.md") else {
        return vec![Finding {
            path: "ARCHITECTURE.md".to_owned(),
            line: 0,
            message: "is missing".to_owned(),
        }];
    };
    let folder = |member: &Crate| member.manifest.trim_end_matches("/Cargo.toml").to_owned();
    crates
        .iter()
        .map(folder)
        .filter(|folder| {
            !map.text.contains(&format!("`{folder}`")) && !map.text.contains(&format!("({folder})"))
        })
        .map(|folder| Finding::new(map, 0, format!("does not name `{folder}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, source};
    use super::*;

    fn member(name: &str, links: &[&str]) -> Crate {
        Crate {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            links: links.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn metadata_is_read() {
        let metadata = serde_json::from_str(
            r#"{"workspace_root": "/r", "packages": [{"name": "firebrick", "manifest_path": "/r/crates/cli/Cargo.toml",
            "dependencies": [{"name": "firebrick-tree", "kind": null, "path": "/r/crates/tree"},
            {"name": "firebrick-testkit", "kind": "dev", "path": "/r/crates/testkit"}, {"name": "clap", "kind": null}]}]}"#,
        )
        .expect("the text is JSON");
        let found = crates(&metadata).expect("every field is there");
        assert_eq!(
            (found[0].name.as_str(), found[0].manifest.as_str()),
            ("cli", "crates/cli/Cargo.toml")
        );
        assert_eq!(found[0].links, ["tree"]);
    }

    #[test]
    fn a_link_against_the_flow_is_found() {
        assert_eq!(directions(&[member("layer", &["tree", "digest"])]), []);
        assert_eq!(
            printed(&directions(&[
                member("ext4", &["tree", "layer"]),
                member("guest", &["protocol", "vmm"])
            ])),
            [
                "crates/ext4/Cargo.toml: ext4 may not link layer",
                "crates/guest/Cargo.toml: guest may not link vmm"
            ]
        );
        for leaf in ["tree", "protocol", "digest"] {
            assert_eq!(directions(&[member(leaf, &["digest"])]).len(), 1, "{leaf}");
        }
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(directions(&[member("new", &[])]).len(), 1);
    }

    #[test]
    fn a_crate_missing_from_the_map_is_found() {
        let map = source("ARCHITECTURE.md", "| `crates/tree` | the tree |");
        assert_eq!(mapped(&[member("tree", &[])], std::slice::from_ref(&map)), []);
        assert_eq!(
            printed(&mapped(&[member("layer", &[])], &[map])),
            ["ARCHITECTURE.md: does not name `crates/layer`"]
        );
        assert_eq!(mapped(&[], &[]).len(), 1);
    }
}
