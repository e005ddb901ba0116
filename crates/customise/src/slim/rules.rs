//! The rules: which paths each of them means.

use std::fmt;
use std::str::FromStr;

/// A rule of slimming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `/usr/share/doc` and its like, without licences.
    Docs,
    /// Manual pages.
    Man,
    /// GNU info pages.
    Info,
    /// Translations into languages other than English.
    Locale,
    /// What package managers and programs have downloaded or computed and can again.
    Cache,
    /// Logs: rotated ones go, others become empty.
    Logs,
    /// `/tmp` and `/var/tmp`.
    Tmp,
    /// Python's compiled modules.
    Pyc,
}

/// A text that names no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no rule: expected docs, man, info, locale, cache, logs, tmp, pyc or all")]
pub struct UnknownRule {
    text: String,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 8] = [
        Rule::Docs,
        Rule::Man,
        Rule::Info,
        Rule::Locale,
        Rule::Cache,
        Rule::Logs,
        Rule::Tmp,
        Rule::Pyc,
    ];

    /// The rules of a list with commas between; `all` is all of them.
    ///
    /// # Errors
    /// [`UnknownRule`] for the first that is none.
    pub fn parse_list(text: &str) -> Result<std::collections::BTreeSet<Rule>, UnknownRule> {
        let mut rules = std::collections::BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            match word {
                "all" => rules.extend(Rule::ALL),
                word => {
                    rules.insert(word.parse()?);
                }
            }
        }
        Ok(rules)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Docs => "docs",
            Rule::Man => "man",
            Rule::Info => "info",
            Rule::Locale => "locale",
            Rule::Cache => "cache",
            Rule::Logs => "logs",
            Rule::Tmp => "tmp",
            Rule::Pyc => "pyc",
        }
    }

    /// Lines for dpkg's configuration that keep out what the rule takes away; none for what packages do not bring.
    pub(super) fn dpkg_excludes(self) -> Option<&'static str> {
        match self {
            Rule::Docs => Some(
                "path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/copyright*\n\
                 path-exclude=/usr/share/doc-base/*\npath-exclude=/usr/share/gtk-doc/*\npath-exclude=/usr/share/lintian/*\n",
            ),
            Rule::Man => Some("path-exclude=/usr/share/man/*\n"),
            Rule::Info => Some("path-exclude=/usr/share/info/*\n"),
            Rule::Locale => Some(
                "path-exclude=/usr/share/locale/*\npath-include=/usr/share/locale/locale.alias\n\
                 path-include=/usr/share/locale/en*\npath-include=/usr/share/locale/C*\n",
            ),
            Rule::Cache | Rule::Logs | Rule::Tmp | Rule::Pyc => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Rule, UnknownRule> {
        let found = Rule::ALL.into_iter().find(|rule| rule.name() == text);
        found.ok_or_else(|| UnknownRule {
            text: text.to_owned(),
        })
    }
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes.
    Removed,
    /// Its content goes.
    Emptied,
}

/// The first of `rules` that means a path, and what becomes of it.
pub(super) fn fate(path: &[u8], rules: impl Iterator<Item = Rule>) -> Option<(Rule, Fate)> {
    let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let mut found = rules.filter_map(|rule| Some((rule, of_rule(rule, &names)?)));
    found.next()
}

fn of_rule(rule: Rule, names: &[&[u8]]) -> Option<Fate> {
    let last = *names.last()?;
    let means = match rule {
        Rule::Docs => {
            let below = share(names, &[b"doc", b"doc-base", b"gtk-doc", b"lintian"]);
            below.is_some_and(|rest| !rest.is_empty()) && !is_licence(last)
        }
        Rule::Man => share(names, &[b"man"]).is_some_and(|rest| !rest.is_empty()),
        Rule::Info => share(names, &[b"info"]).is_some_and(|rest| !rest.is_empty()),
        Rule::Locale => share(names, &[b"locale"]).is_some_and(is_foreign),
        Rule::Cache => is_cache(names),
        Rule::Logs => return log_fate(names),
        Rule::Tmp => matches!(names, [b"tmp", _, ..] | [b"var", b"tmp", _, ..]),
        Rule::Pyc => {
            let compiled = last.ends_with(b".pyc") || last.ends_with(b".pyo");
            compiled && names.len() > 1 && names.get(names.len() - 2) == Some(&&b"__pycache__"[..])
        }
    };
    means.then_some(Fate::Removed)
}

/// What of a path is below one of `folders` of `share`, of the system, of `/usr/local`, or of one of rustup's toolchains.
fn share<'a, 'b>(names: &'b [&'a [u8]], folders: &[&[u8]]) -> Option<&'b [&'a [u8]]> {
    let rest = match names {
        [b"usr", b"share", rest @ ..] | [b"usr", b"local", b"share", rest @ ..] => rest,
        [b"usr", b"local", b"rustup", b"toolchains", _, b"share", rest @ ..]
        | [b"root", b".rustup", b"toolchains", _, b"share", rest @ ..] => rest,
        [b"usr", b"local", rest @ ..] if rest.first().is_some_and(|name| *name == b"man") => rest,
        _ => return None,
    };
    let (first, rest) = rest.split_first()?;
    folders.contains(first).then_some(rest)
}

/// Whether a file says under which terms its program may be had; such files go along with it.
fn is_licence(name: &[u8]) -> bool {
    let upper = name.to_ascii_uppercase();
    ["COPYRIGHT", "LICENSE", "LICENCE", "COPYING", "NOTICE"]
        .iter()
        .any(|word| upper.starts_with(word.as_bytes()))
}

/// Whether what is below `locale` is for another language than English.
fn is_foreign(rest: &[&[u8]]) -> bool {
    match rest {
        [language, _, ..] => !(language.starts_with(b"en") || language.starts_with(b"C")),
        _ => false, // locale.alias
    }
}

fn is_cache(names: &[&[u8]]) -> bool {
    let home = match names {
        [b"root", rest @ ..] | [b"home", _, rest @ ..] => Some(rest),
        _ => None,
    };
    if let Some(rest) = home {
        return matches!(rest, [b".cache", _, ..] | [b".npm", b"_cacache" | b"_logs", ..]);
    }
    match names {
        // debconf keeps there what was answered; only its older copies can go.
        [b"var", b"cache", b"debconf", file] => file.ends_with(b"-old"),
        [b"var", b"cache", _, ..] => true,
        [b"var", b"lib", b"apt", b"lists", _, ..] => true,
        [b"usr", b"local", b"share", b".cache", _, ..] => true,
        _ => false,
    }
}

fn log_fate(names: &[&[u8]]) -> Option<Fate> {
    let [b"var", b"log", .., last] = names else {
        return None;
    };
    if names.len() < 3 {
        return None;
    }
    let digits_end = last.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let numbered =
        digits_end > 0 && last.len() > digits_end && last.get(last.len() - digits_end - 1) == Some(&b'.');
    let rotated = [&b".gz"[..], b".xz", b".old", b".zst"]
        .iter()
        .any(|end| last.ends_with(end));
    match rotated || numbered {
        true => Some(Fate::Removed),
        false => Some(Fate::Emptied),
    }
}

/// Whether a folder that became empty may go: those of translations, of one package's documentation, and of compiled modules.
/// Others are expected by programs: package scripts put links into `/usr/share/man/man1`, apt its downloads into its cache.
pub(super) fn folder_may_go(folder: &[u8]) -> bool {
    let names: Vec<&[u8]> = folder.split(|&byte| byte == b'/').collect();
    if names.last() == Some(&&b"__pycache__"[..]) {
        return true;
    }
    if let Some(rest) = share(&names, &[b"man"]) {
        // man/de and man/de/man1, not man/man1.
        return rest.first().is_some_and(|language| !language.starts_with(b"man"));
    }
    if let Some(rest) = share(&names, &[b"doc", b"locale", b"gtk-doc", b"lintian"]) {
        return !rest.is_empty();
    }
    let in_cache = matches!(
        &names[..],
        [b"root", b".cache" | b".npm", _, ..] | [b"home", _, b".cache" | b".npm", _, ..]
    );
    in_cache || matches!(&names[..], [b"tmp", _, ..] | [b"var", b"tmp", _, ..])
}
