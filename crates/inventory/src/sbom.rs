//! Bills of materials: an [`Inventory`] as [`spdx`] or [`cyclonedx`] document.
//!
//! The same image gives the same bytes: times are the [`Subject`]'s, identifiers are digests of what they identify.

mod cyclonedx;
mod spdx;

use firebrick_digest::{Digest, Hasher};

use crate::{Inventory, Package, Release, licence, printable, purl};

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;

/// What a document is about.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The image's name.
    pub name: &'a str,
    /// The digest of the OCI image that it was made of, if it tells.
    pub source: Option<&'a str>,
    /// Seconds since 1970: when it was made, which is the document's time, too.
    pub created: i64,
    /// The version of firebrick.
    pub tool_version: &'a str,
}

/// Digest of everything that a document says: documents with another content have another.
fn identity(subject: &Subject<'_>, inventory: &Inventory, form: &str) -> Digest {
    let mut hasher = Hasher::new();
    let mut fact = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(b"\n");
    };
    fact(form);
    fact(subject.name);
    fact(subject.source.unwrap_or_default());
    fact(&subject.created.to_string());
    fact(subject.tool_version);
    for package in inventory.packages() {
        fact(&url(package, inventory.release()));
        fact(&package.licences.join(" "));
    }
    hasher.finish()
}

fn url(package: &Package, release: Option<&Release>) -> String {
    purl::purl(package, release)
}

/// An identifier of a package in a document: two with one URL have different places.
fn package_key(package: &Package, release: Option<&Release>) -> String {
    Digest::of(format!("{} {}", url(package, release), package.name).as_bytes()).hex()
}

/// Where a package was found.
fn found_in(listing: &crate::Listing, package: &Package) -> String {
    format!("/{}", printable(&listing.path(package.found_in)))
}

/// What is known of a package's licences.
enum Licences {
    /// Nothing.
    Unknown,
    /// Each one, as an expression where it is one.
    Known(Vec<(String, Option<String>)>),
}

fn licences(package: &Package) -> Licences {
    if package.licences.is_empty() {
        return Licences::Unknown;
    }
    let each = package
        .licences
        .iter()
        .map(|text| (text.clone(), licence::expression(text)));
    Licences::Known(each.collect())
}

/// `2024-02-29T12:00:00Z`, of seconds since 1970.
fn rfc3339(seconds: i64) -> String {
    // Years beyond 9999 have no such form.
    let seconds = seconds.clamp(-62_135_596_800, 253_402_300_799);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second.div_euclid(3600),
        second.div_euclid(60).rem_euclid(60),
        second.rem_euclid(60)
    )
}

/// The date of a day counted from 1970-01-01. Every number here is small: days of years 1 to 9999.
fn civil(days: i64) -> (i64, i64, i64) {
    let leap =
        |year: i64| year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    // 400 years are 146,097 days; from there at most 400 steps.
    let mut year = days.div_euclid(146_097).saturating_mul(400).saturating_add(1970);
    let mut rest = days.rem_euclid(146_097);
    loop {
        let len = if leap(year) { 366 } else { 365 };
        if rest < len {
            break;
        }
        rest = rest.saturating_sub(len);
        year = year.saturating_add(1);
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < len {
            break;
        }
        rest = rest.saturating_sub(len);
        month = i64::saturating_add(month, 1);
    }
    (year, month, rest.saturating_add(1))
}

/// Indented JSON and a newline.
fn to_bytes(value: &serde_json::Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("text and numbers always have a JSON form");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests;
