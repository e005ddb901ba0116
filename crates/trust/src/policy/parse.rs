//! Reading a policy: TOML whose every word must be known, with the place of what is wrong.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Identity, Needs, Pattern, Policy, Rule, Stance, TrustedKey};
use crate::error::TrustError;
use crate::pem::PEM_MAX;
use crate::public::PublicKey;

/// A policy has at most so many bytes.
const POLICY_MAX: usize = 1 << 20;
const RULES_MAX: usize = 1000;
const KEYS_MAX: usize = 32;
/// What signatures of ours claim.
const IDENTITY: &str = "{name}:{tag}";
/// How a key that stands in the policy itself begins.
const INLINE: &str = "-----BEGIN ";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    unsigned: Option<Stance>,
    local: Option<Stance>,
    #[serde(default)]
    rule: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    keys: Option<Spanned<Vec<Spanned<String>>>>,
    threshold: Option<Spanned<i64>>,
    identity: Option<Spanned<String>>,
    unsigned: Option<Spanned<Stance>>,
}

impl Policy {
    /// Reads a policy. `read` gives the content of the file with a key, by the path that stands in the policy.
    ///
    /// # Errors
    /// [`TrustError::Policy`], with the first thing that is wrong.
    pub fn parse(text: &str, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Policy, TrustError> {
        let reading = Reading { text, read };
        if text.len() > POLICY_MAX {
            return Err(reading.wrong(0..0, "it has more than 1 MiB"));
        }
        let document: Document = toml::from_str(text).map_err(|error| {
            let message = error.message().trim_end().replace('\n', " ");
            reading.wrong(error.span().unwrap_or(0..0), message)
        })?;
        if let Some(rule) = document.rule.get(RULES_MAX) {
            return Err(reading.wrong(rule.span(), format!("there are more than {RULES_MAX} rules")));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for raw in &document.rule {
            let name = &raw.get_ref().name;
            let rule = reading.rule(raw.get_ref())?;
            if let Some(before) = rules.iter().find(|before| before.pattern.covers(&rule.pattern)) {
                let problem = format!(
                    "no name comes to this rule: the one in line {} takes them",
                    before.line
                );
                return Err(reading.wrong(name.span(), problem));
            }
            rules.push(rule);
        }
        Ok(Policy {
            rules,
            unsigned: document.unsigned.unwrap_or(Stance::Refuse),
            local: document.local.unwrap_or(Stance::Allow),
        })
    }

    /// Reads the policy in a file, and the keys that it names beside it.
    ///
    /// # Errors
    /// [`TrustError::File`] if it cannot be read, else as [`Policy::parse`].
    pub fn load(path: &Path) -> Result<Policy, TrustError> {
        let failed = |source| TrustError::File {
            path: path.to_owned(),
            source,
        };
        let text = read_up_to(path, POLICY_MAX).map_err(failed)?;
        let text = String::from_utf8(text)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Policy::parse(&text, &|key| read_up_to(&folder.join(key), PEM_MAX))
    }
}

/// A file's bytes, one more than `max` if it has more.
fn read_up_to(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Reading<'a> {
    text: &'a str,
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl Reading<'_> {
    /// Line and column of a byte, from 1.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let lines = before.matches('\n').count();
        (lines.saturating_add(1), line.chars().count().saturating_add(1))
    }

    fn wrong(&self, at: Range<usize>, problem: impl Into<String>) -> TrustError {
        let (line, column) = self.place(at.start);
        TrustError::Policy {
            line,
            column,
            problem: problem.into(),
            source: None,
        }
    }

    fn rule(&self, raw: &Raw) -> Result<Rule, TrustError> {
        let pattern = self.pattern(&raw.name)?;
        let needs = match (&raw.keys, &raw.unsigned) {
            (Some(keys), None) => self.needs(raw, keys)?,
            (None, Some(stance)) => {
                if let Some(at) = raw
                    .threshold
                    .as_ref()
                    .map(Spanned::span)
                    .or(raw.identity.as_ref().map(Spanned::span))
                {
                    return Err(self.wrong(at, "this is about signatures, and the rule has no keys"));
                }
                Needs::Nothing(*stance.get_ref())
            }
            (Some(_), Some(stance)) => {
                return Err(self.wrong(
                    stance.span(),
                    "a rule has keys or `unsigned`, not both: with keys, what is not signed is refused",
                ));
            }
            (None, None) => {
                return Err(self.wrong(
                    raw.name.span(),
                    "this rule says nothing: it needs `keys`, or `unsigned = \"allow\"` or \"refuse\"",
                ));
            }
        };
        Ok(Rule {
            pattern,
            line: self.place(raw.name.span().start).0,
            needs,
        })
    }

    fn pattern(&self, name: &Spanned<String>) -> Result<Pattern, TrustError> {
        let text = name.get_ref();
        let (fixed, open) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text.as_str(), false),
        };
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
        if fixed.contains(':') {
            let problem = "a rule is for all tags of a name: leave the colon and what follows it away";
            return Err(self.wrong(name.span(), problem));
        }
        if !fixed.bytes().all(good) || text.is_empty() || text.len() > 128 {
            let problem = "this is neither a name, nor the beginning of names with one * behind it, nor *";
            return Err(self.wrong(name.span(), problem));
        }
        Ok(match open {
            true => Pattern::Prefix(fixed.to_owned()),
            false => Pattern::Exact(fixed.to_owned()),
        })
    }

    fn needs(&self, raw: &Raw, list: &Spanned<Vec<Spanned<String>>>) -> Result<Needs, TrustError> {
        let mut keys: Vec<TrustedKey> = Vec::new();
        if !(1..=KEYS_MAX).contains(&list.get_ref().len()) {
            let problem = format!("a rule has from 1 to {KEYS_MAX} keys");
            return Err(self.wrong(list.span(), problem));
        }
        for named in list.get_ref() {
            let key = self.key(named)?;
            if let Some(same) = keys.iter().find(|other| other.key == key.key) {
                let problem = format!(
                    "this is the same key as {}, and would not count twice",
                    same.label
                );
                return Err(self.wrong(named.span(), problem));
            }
            keys.push(key);
        }
        let threshold = match &raw.threshold {
            None => 1,
            Some(asked) => usize::try_from(*asked.get_ref())
                .ok()
                .filter(|threshold| (1..=keys.len()).contains(threshold))
                .ok_or_else(|| {
                    let most = keys.len();
                    self.wrong(
                        asked.span(),
                        format!("the threshold is from 1 to {most}, the number of keys"),
                    )
                })?,
        };
        let identity = match &raw.identity {
            None => IDENTITY.to_owned(),
            Some(text) => self.identity(text)?,
        };
        Ok(Needs::Keys {
            keys,
            threshold,
            identity: Identity(identity),
        })
    }

    fn identity(&self, text: &Spanned<String>) -> Result<String, TrustError> {
        let fixed = text.get_ref().replace("{name}", "").replace("{tag}", "");
        if text.get_ref().is_empty() || fixed.contains(['{', '}']) || text.get_ref().len() > 1024 {
            let problem = "an identity has up to 1024 characters, and no other braces than {name} and {tag}";
            return Err(self.wrong(text.span(), problem));
        }
        Ok(text.get_ref().clone())
    }

    fn key(&self, named: &Spanned<String>) -> Result<TrustedKey, TrustError> {
        let text = named.get_ref();
        let failed = |problem: String, source| {
            let (line, column) = self.place(named.span().start);
            TrustError::Policy {
                line,
                column,
                problem,
                source: Some(Box::new(source)),
            }
        };
        if text.contains(INLINE) {
            let key = PublicKey::from_pem(text.as_bytes())
                .map_err(|source| failed("this key cannot be used".to_owned(), source))?;
            let label = format!("the key {}", key.id().short());
            return Ok(TrustedKey { label, key });
        }
        let path = Path::new(text);
        let bytes = (self.read)(path).map_err(|source| {
            let path = path.to_owned();
            failed(
                "this file with a key cannot be read".to_owned(),
                TrustError::File { path, source },
            )
        })?;
        let key = PublicKey::from_pem(&bytes)
            .map_err(|source| failed(format!("the key in {text:?} cannot be used"), source))?;
        Ok(TrustedKey {
            label: text.clone(),
            key,
        })
    }
}
