//! Where this host itself takes its packages from.
//!
//! A host that is Debian or Ubuntu already knows a mirror that works, maybe behind a wall that hides all others. It stands in
//! `sources.list` and the files of `sources.list.d`, in one of two forms (`sources.list(5)`): lines, or paragraphs of fields.

use std::path::Path;

use crate::set::Base;

/// The addresses of the archive's two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    pub(crate) main: String,
    pub(crate) security: Option<String>,
}

/// One place that packages come from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entry {
    is_deb: bool,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    enabled: bool,
}

/// The mirrors of this host, whose `/` is `root`, if it is of that base.
pub(crate) fn mirrors(root: &Path, base: Base) -> Option<Mirrors> {
    let release = std::fs::read_to_string(root.join("etc/os-release")).ok()?;
    let codename = field(&release, "VERSION_CODENAME")?;
    if field(&release, "ID")? != base.name() {
        return None;
    }
    let folder = root.join("etc/apt");
    let mut files: Vec<_> = std::fs::read_dir(folder.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.ok()?.path()))
        .collect();
    files.sort();
    files.insert(0, folder.join("sources.list"));
    let entries: Vec<Entry> = files
        .iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "list" => Some(lines(&text)),
                "sources" => Some(paragraphs(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect();
    of_entries(&entries, &codename)
}

fn of_entries(entries: &[Entry], codename: &str) -> Option<Mirrors> {
    let of_suite = |suite: &str| {
        entries
            .iter()
            .filter(|entry| entry.enabled && entry.is_deb && entry.suites.iter().any(|s| s == suite))
            .filter(|entry| entry.components.iter().any(|component| component == "main"))
            .flat_map(|entry| &entry.uris)
            // Others (`mirror+file:`, `cdrom:`) name things that are on this host only.
            .find(|uri| uri.starts_with("http://") || uri.starts_with("https://"))
            .map(|uri| uri.trim_end_matches('/').to_owned())
    };
    Some(Mirrors {
        main: of_suite(codename)?,
        security: of_suite(&format!("{codename}-security")),
    })
}

/// `deb [options] URI SUITE COMPONENT…`, one a line.
fn lines(text: &str) -> Vec<Entry> {
    let line = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (kind, rest) = line.split_once(char::is_whitespace)?;
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Entry {
            is_deb: kind == "deb",
            uris: vec![words.next()?],
            suites: vec![words.next()?],
            components: words.collect(),
            enabled: true,
        })
    };
    text.lines().filter_map(line).collect()
}

/// `Types:`, `URIs:`, `Suites:`, `Components:`, in paragraphs; a line that begins with a space goes on.
fn paragraphs(text: &str) -> Vec<Entry> {
    let mut entries = vec![Entry::default()];
    let mut name = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(entry) = entries.last_mut() else { break };
        if line.trim().is_empty() {
            entries.push(Entry::default());
            continue;
        }
        let value = match line.split_once(':') {
            Some((field, value)) if !line.starts_with([' ', '\t']) => {
                name = field.to_ascii_lowercase();
                value
            }
            _ => line,
        };
        let words = value.split_whitespace().map(str::to_owned);
        match name.as_str() {
            "types" => {
                entry.is_deb = words.into_iter().any(|word| word == "deb");
                entry.enabled = true;
            }
            "uris" => entry.uris.extend(words),
            "suites" => entry.suites.extend(words),
            "components" => entry.components.extend(words),
            _ => {}
        }
    }
    // The field may stand anywhere in its paragraph.
    let disabled = text.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .any(|line| line.to_ascii_lowercase().replace(' ', "") == "enabled:no")
    });
    for (entry, disabled) in entries.iter_mut().zip(disabled) {
        entry.enabled &= !disabled;
    }
    entries
}

/// A value of `os-release(5)`.
fn field(release: &str, name: &str) -> Option<String> {
    release.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    const BOOKWORM: (&str, &str) = ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");

    fn found(files: &[(&str, &str)], base: Base) -> Option<(String, Option<String>)> {
        let mirrors = mirrors(host(files).path(), base)?;
        Some((mirrors.main, mirrors.security))
    }

    #[test]
    fn paragraphs_name_a_mirror() {
        let sources = (
            "etc/apt/sources.list.d/debian.sources",
            "# ours\nTypes: deb deb-src\nURIs: http://mirror.example/debian/\nSuites: bookworm\n bookworm-updates\nComponents: main\n\n\
             Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
        );
        let both = Some((
            "http://mirror.example/debian".to_owned(),
            Some("http://mirror.example/debian-security".to_owned()),
        ));
        assert_eq!(found(&[BOOKWORM, sources], Base::Debian), both);
        assert_eq!(found(&[BOOKWORM, sources], Base::Ubuntu), None, "it is no Ubuntu");
        let disabled = (
            sources.0,
            "Enabled: no\nTypes: deb\nURIs: http://x/\nSuites: bookworm\nComponents: main\n",
        );
        assert_eq!(found(&[BOOKWORM, disabled], Base::Debian), None);
    }

    #[test]
    fn lines_name_a_mirror_and_others_are_passed_over() {
        let list = (
            "etc/apt/sources.list",
            "deb-src http://source.example/debian bookworm main\n#deb http://off.example/debian bookworm main\n\
             deb [arch=amd64] https://third.example/apt cloud-sdk-bookworm main\n\
             deb mirror+file:/etc/apt/mirrors.list bookworm main\n\
             deb [ arch=amd64 signed-by=/k.gpg ] https://mirror.example/debian bookworm main contrib # near\n",
        );
        assert_eq!(
            found(&[BOOKWORM, list], Base::Debian),
            Some(("https://mirror.example/debian".to_owned(), None))
        );
        assert_eq!(found(&[BOOKWORM], Base::Debian), None);
        assert_eq!(found(&[list], Base::Debian), None);
    }
}
