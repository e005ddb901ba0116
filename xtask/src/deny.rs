//! The rules of `deny.toml` about other people's crates, checked over `cargo metadata`.
//!
//! `deny.toml` is written for cargo-deny, which reads it too. Building cargo-deny takes nearly six CPU minutes
//! (measured in 2026) and its advisories need a network; the rules that matter at every commit are few, so this module reads the same file:
//! `licenses.allow`, `bans.deny` (by name), and that every crate comes from the registry. Advisories stay with
//! `cargo deny check advisories`, where there is a network.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What `deny.toml` asks.
#[derive(Debug, Default)]
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
}

/// Checks every crate that `Cargo.lock` names, prints the findings, and tells whether there was none.
///
/// # Errors
/// When `deny.toml` cannot be read, or cargo cannot be asked.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules = rules(&text)?;
    let metadata = crate::metadata(root, &["--locked"])?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let findings: Vec<String> = packages
        .iter()
        .flat_map(|package| check(package, &rules))
        .collect();
    for finding in &findings {
        println!("{finding}");
    }
    println!("deny: {} crates, {} findings", packages.len(), findings.len());
    Ok(findings.is_empty())
}

fn rules(text: &str) -> Result<Rules> {
    let table: toml::Table = text.parse().context("deny.toml is not TOML")?;
    let list = |section: &str, key: &str| -> Result<Vec<toml::Value>> {
        let found = table
            .get(section)
            .and_then(|section| section.get(key))
            .and_then(toml::Value::as_array);
        found
            .cloned()
            .with_context(|| format!("deny.toml has no {section}.{key}"))
    };
    let name = |value: &toml::Value| {
        value
            .as_str()
            .or_else(|| value.get("crate")?.as_str())
            .map(str::to_owned)
    };
    let licences: BTreeSet<String> = list("licenses", "allow")?.iter().filter_map(name).collect();
    let banned = list("bans", "deny")?.iter().filter_map(name).collect();
    ensure!(!licences.is_empty(), "deny.toml allows no licence");
    Ok(Rules { licences, banned })
}

/// The findings about one package of `cargo metadata`.
fn check(package: &Value, rules: &Rules) -> Vec<String> {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version, source, licence) = (text("name"), text("version"), text("source"), text("license"));
    let mut findings = Vec::new();
    if rules.banned.contains(name) {
        findings.push(format!("{name} {version}: is banned by deny.toml"));
    }
    let ours = package["source"].is_null();
    if !ours && !source.starts_with("registry+") {
        findings.push(format!(
            "{name} {version}: comes from {source}, not from the registry"
        ));
    }
    match expression(licence, &rules.licences) {
        Some(true) => {}
        Some(false) => findings.push(format!("{name} {version}: licence {licence} is not allowed")),
        None => findings.push(format!("{name} {version}: licence {licence:?} cannot be read")),
    }
    findings
}

/// Whether an SPDX expression can be met with the allowed licences; none when it is malformed.
///
/// `WITH` and its exception count as part of the licence's name; `/` is the old spelling of `OR`.
fn expression(text: &str, allowed: &BTreeSet<String>) -> Option<bool> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let value = any(&mut rest, allowed)?;
    rest.is_empty().then_some(value)
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut value = all(rest, allowed)?;
    while let ["OR", after @ ..] = rest {
        *rest = after;
        value |= all(rest, allowed)?;
    }
    Some(value)
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut value = one(rest, allowed)?;
    while let ["AND", after @ ..] = rest {
        *rest = after;
        value &= one(rest, allowed)?;
    }
    Some(value)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let value = any(rest, allowed)?;
            let [")", after @ ..] = *rest else { return None };
            *rest = after;
            Some(value)
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            Some(allowed.contains(&format!("{licence} WITH {exception}")) || allowed.contains(*licence))
        }
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [licence, after @ ..] => {
            *rest = after;
            Some(allowed.contains(*licence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Zlib\"]\n[bans]\ndeny = [{ crate = \"openssl-sys\" }]\n";

    fn findings(package: &str) -> Vec<String> {
        check(
            &serde_json::from_str(package).expect("the text is JSON"),
            &rules(TEXT).expect("the rules are whole"),
        )
    }

    #[test]
    fn expressions_are_judged() {
        let allowed = rules(TEXT).expect("the rules are whole").licences;
        for (text, expected) in [
            ("MIT", Some(true)),
            ("MIT/GPL-2.0", Some(true)),
            ("GPL-3.0-only", Some(false)),
            ("MIT OR GPL-3.0-only", Some(true)),
            ("MIT AND GPL-3.0-only", Some(false)),
            ("(MIT OR GPL-3.0-only) AND Zlib", Some(true)),
            ("GPL-3.0-only AND (MIT OR Zlib)", Some(false)),
            ("Apache-2.0 WITH LLVM-exception", Some(true)),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT Zlib", None),
            ("", None),
        ] {
            assert_eq!(expression(text, &allowed), expected, "{text}");
        }
    }

    #[test]
    fn each_rule_is_seen_to_fail() {
        let package = |name: &str, source: &str, licence: &str| {
            findings(&format!(
                r#"{{"name": "{name}", "version": "1.0.0", "source": {source}, "license": "{licence}"}}"#
            ))
        };
        assert_eq!(package("a", "\"registry+index\"", "MIT"), Vec::<String>::new());
        assert_eq!(package("ours", "null", "MIT"), Vec::<String>::new());
        assert_eq!(
            package("openssl-sys", "\"registry+index\"", "MIT"),
            ["openssl-sys 1.0.0: is banned by deny.toml"]
        );
        assert_eq!(
            package("a", "\"git+place\"", "MIT"),
            ["a 1.0.0: comes from git+place, not from the registry"]
        );
        assert_eq!(
            package("a", "\"registry+index\"", "GPL-2.0"),
            ["a 1.0.0: licence GPL-2.0 is not allowed"]
        );
        assert_eq!(package("a", "\"registry+index\"", "").len(), 1);
    }

    #[test]
    fn rules_that_are_not_there_are_an_error() {
        assert!(rules("[bans]\ndeny = []\n").is_err());
        assert!(rules("[licenses]\nallow = []\n[bans]\ndeny = []\n").is_err());
    }
}
