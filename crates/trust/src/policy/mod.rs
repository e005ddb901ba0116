//! Which keys an image of a name needs, and whether it has them.
//!
//! A *rule* takes the names that its pattern fits; the first one that fits decides alone. Names without a rule are as the policy's
//! `unsigned` says. Judging is pure: the same policy, version and signatures give the same verdict.

mod parse;

use serde::Deserialize;

use crate::payload::{Claim, Version};
use crate::public::PublicKey;
use crate::signature::{Discounted, Signature};

/// Signatures of one version that are looked at.
const SIGNATURES_MAX: usize = 64;

/// What becomes of what no key speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// It may be used.
    Allow,
    /// It may not.
    Refuse,
}

/// A policy that makes sense, with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    unsigned: Stance,
    local: Stance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    /// Line of the policy, from 1.
    line: usize,
    needs: Needs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Needs {
    /// Signatures of so many of these keys, which claim this identity.
    Keys {
        keys: Vec<TrustedKey>,
        threshold: usize,
        identity: Identity,
    },
    Nothing(Stance),
}

/// Some names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

/// An identity with places for an image's name and tag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity(String);

/// A key that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the policy calls it: a path, or the beginning of its id if it stands in the policy itself.
    pub label: String,
    /// The key.
    pub key: PublicKey,
}

/// What a policy says of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be used.
    Allowed {
        /// The keys that signed it; none where none is needed.
        by: Vec<TrustedKey>,
    },
    /// It may not.
    Refused(Refusal),
}

impl Verdict {
    /// Whether it may be used.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Verdict::Allowed { .. })
    }
}

/// Why a version may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No rule with keys takes its name, and then nothing is allowed.
    #[error("the policy allows no image of the name {name:?}{}", line.map(|line| format!(" (rule in line {line})")).unwrap_or_default())]
    Name {
        /// Its name.
        name: String,
        /// Where the rule stands that says so; `None` if none takes the name.
        line: Option<usize>,
    },
    /// Too few keys signed it.
    #[error("{version} needs {} by the rule in line {line} of the policy, and {}{}", counted(*needed), has(by), shown(discounted))]
    TooFew {
        /// Its name and tag.
        version: String,
        /// Where the rule stands.
        line: usize,
        /// How many different keys must have signed it.
        needed: usize,
        /// Those that did.
        by: Vec<TrustedKey>,
        /// For each signature that says nothing for it: why.
        discounted: Vec<String>,
    },
    /// The file is not the one that was fetched any more.
    #[error("the file changed since it was fetched: {what}")]
    Changed {
        /// What of it changed.
        what: &'static str,
    },
}

fn counted(needed: usize) -> String {
    match needed {
        1 => "a signature".to_owned(),
        more => format!("signatures of {more} keys"),
    }
}

fn has(by: &[TrustedKey]) -> String {
    let labels: Vec<&str> = by.iter().map(|key| key.label.as_str()).collect();
    match labels.len() {
        0 => "has none that counts".to_owned(),
        _ => format!("has only those of {}", labels.join(", ")),
    }
}

fn shown(discounted: &[String]) -> String {
    match discounted.first() {
        None => String::new(),
        Some(first) => format!(" (of {} others the first: {first})", discounted.len()),
    }
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => name == exact,
            Pattern::Prefix(prefix) => name.starts_with(prefix),
        }
    }

    /// Whether it takes every name that `other` takes.
    fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (_, Pattern::Exact(name)) => self.fits(name),
            (Pattern::Prefix(short), Pattern::Prefix(long)) => long.starts_with(short),
            (Pattern::Exact(_), Pattern::Prefix(_)) => false,
        }
    }
}

impl Identity {
    fn of(&self, version: &Version) -> String {
        // Neither can hold a brace.
        self.0
            .replace("{name}", version.name())
            .replace("{tag}", version.tag())
    }
}

impl Policy {
    /// What becomes of images that were made on this host and came from no store.
    pub fn local(&self) -> Stance {
        self.local
    }

    /// The keys that the rule for a name has; none where no rule takes it, or one without keys.
    pub fn keys_for(&self, name: &str) -> &[TrustedKey] {
        let rule = self.rules.iter().find(|rule| rule.pattern.fits(name));
        match rule.map(|rule| &rule.needs) {
            Some(Needs::Keys { keys, .. }) => keys,
            _ => &[],
        }
    }

    /// Whether a version may be used, given the signatures that there are for it.
    pub fn judge(&self, version: &Version, signatures: &[Signature]) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.pattern.fits(version.name()));
        let (stance, line) = match rule {
            None => (self.unsigned, None),
            Some(rule) => match &rule.needs {
                Needs::Nothing(stance) => (*stance, Some(rule.line)),
                Needs::Keys {
                    keys,
                    threshold,
                    identity,
                } => return rule.judge(keys, *threshold, identity, version, signatures),
            },
        };
        match stance {
            Stance::Allow => Verdict::Allowed { by: Vec::new() },
            Stance::Refuse => Verdict::Refused(Refusal::Name {
                name: version.name().to_owned(),
                line,
            }),
        }
    }
}

impl Rule {
    fn judge(
        &self,
        keys: &[TrustedKey],
        threshold: usize,
        identity: &Identity,
        version: &Version,
        signatures: &[Signature],
    ) -> Verdict {
        let wanted = Claim {
            identity: identity.of(version),
            manifest: *version.manifest(),
        };
        // A key counts once, however often it signed.
        let mut signed = vec![false; keys.len()];
        let mut discounted = Vec::new();
        for signature in signatures.iter().take(SIGNATURES_MAX) {
            match signature.check(keys.iter().map(|key| &key.key), &wanted) {
                Ok(signer) => signed.iter_mut().skip(signer).take(1).for_each(|it| *it = true),
                Err(reason) => discounted.push(told(&reason)),
            }
        }
        let signers = keys.iter().zip(signed).filter(|(_, signed)| *signed);
        let by: Vec<TrustedKey> = signers.map(|(key, _)| key.clone()).collect();
        match by.len() >= threshold {
            true => Verdict::Allowed { by },
            false => Verdict::Refused(Refusal::TooFew {
                version: version.to_string(),
                line: self.line,
                needed: threshold,
                by,
                discounted,
            }),
        }
    }
}

fn told(reason: &Discounted) -> String {
    match std::error::Error::source(reason) {
        Some(source) => format!("{reason}: {source}"),
        None => reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
