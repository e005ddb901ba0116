//! Licences as databases name them, as SPDX expressions where they are that, or Debian's names for the same.
//!
//! Format: <https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>

use spdx::{Expression, ParseMode};

/// Debian's short names that SPDX calls otherwise
/// (<https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/#license-specification>).
const DEBIAN: [(&str, &str); 30] = [
    ("expat", "MIT"),
    ("apache-2", "Apache-2.0"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("gpl-3.0+", "GPL-3.0-or-later"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.0+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("lgpl-3.0+", "LGPL-3.0-or-later"),
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("gfdl-1.3", "GFDL-1.3-only"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("gfdl-1.2+", "GFDL-1.2-or-later"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2", "MPL-2.0"),
    ("zlib/libpng", "zlib-acknowledgement"),
    ("psf-2", "PSF-2.0"),
    ("cc0", "CC0-1.0"),
];

/// The expression that a licence's name is, if it is one.
pub(crate) fn expression(text: &str) -> Option<String> {
    // Debian joins names in lower case, and with commas for a different precedence, which SPDX has not.
    if text.contains(',') || text.len() > 500 {
        return None;
    }
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let text = words.join(" ");
    // Only names of the list: "or later" is a name of its own there, where it makes sense.
    if words.iter().any(|word| word.trim_end_matches(')').ends_with('+')) {
        return None;
    }
    let parsed = Expression::parse_mode(&text, ParseMode::STRICT).ok()?;
    // Names of their own are not in the list that readers have.
    let known = parsed
        .requirements()
        .all(|part| part.req.license.id().is_some() && !text.contains("Ref-"));
    known.then_some(text)
}

/// Whether an expression is one licence alone.
pub(crate) fn is_one(expression: &str) -> bool {
    spdx::license_id(expression).is_some()
}

/// One word: an operator, or a name in the case that SPDX writes.
fn word(word: &str) -> String {
    let bare = word.trim_start_matches('(').trim_end_matches(')');
    let lower = bare.to_ascii_lowercase();
    let own = match lower.as_str() {
        "and" | "or" | "with" => lower.to_ascii_uppercase(),
        _ => {
            let debian = DEBIAN.iter().find(|(name, _)| *name == lower);
            let listed = || {
                spdx::identifiers::LICENSES
                    .iter()
                    .find(|licence| licence.name.eq_ignore_ascii_case(bare))
            };
            match debian {
                Some((_, name)) => (*name).to_owned(),
                None => listed().map_or_else(|| bare.to_owned(), |licence| licence.name.to_owned()),
            }
        }
    };
    word.replacen(bare, &own, 1)
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn names_become_expressions_or_nothing() {
        for (text, expected) in [
            ("MIT", Some("MIT")),
            ("Expat", Some("MIT")),
            ("bsd-3-clause", Some("BSD-3-Clause")),
            ("GPL-2+ or LGPL-3+", Some("GPL-2.0-or-later OR LGPL-3.0-or-later")),
            ("(MIT OR Apache-2.0)", Some("(MIT OR Apache-2.0)")),
            ("GPL-2.0-only AND MIT", Some("GPL-2.0-only AND MIT")),
            (
                "GPL-2.0-or-later WITH Classpath-exception-2.0",
                Some("GPL-2.0-or-later WITH Classpath-exception-2.0"),
            ),
            ("public-domain", None),
            ("GPL", None),
            ("MIT and GPL-2+, and BSD", None),
            ("SEE LICENSE IN x", None),
            ("LicenseRef-mine", None),
            ("MPL-2.0+", None),
            ("((MIT", None),
            ("", None),
        ] {
            assert_eq!(expression(text).as_deref(), expected, "{text}");
        }
    }
}
