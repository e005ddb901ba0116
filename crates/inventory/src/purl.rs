//! Package URLs: one line that says which package it is.
//!
//! Format: <https://github.com/package-url/purl-spec>

use crate::{Ecosystem, Package, Release};

/// The package URL of a package of an image with this `os-release`.
pub(crate) fn purl(package: &Package, release: Option<&Release>) -> String {
    let id = release.map_or("linux", |release| release.id.as_str());
    let distro = release.and_then(|release| Some(format!("{}-{}", release.id, release.version.as_ref()?)));
    let mut version = package.version.as_str();
    let mut epoch = None;
    let mut qualifiers: Vec<(&str, String)> = Vec::new();
    let of_system = matches!(
        package.ecosystem,
        Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm
    );
    let (namespace, name) = match package.ecosystem {
        Ecosystem::Deb | Ecosystem::Apk => (Some(id.to_lowercase()), package.name.to_lowercase()),
        Ecosystem::Rpm => {
            if let Some((before, rest)) = version.split_once(':') {
                (epoch, version) = (Some(before.to_owned()), rest);
            }
            (Some(id.to_lowercase()), package.name.clone())
        }
        Ecosystem::Pypi => (None, package.name.to_lowercase().replace('_', "-")),
        Ecosystem::Npm => match package.name.split_once('/') {
            Some((scope, name)) => (Some(scope.to_lowercase()), name.to_lowercase()),
            None => (None, package.name.to_lowercase()),
        },
        Ecosystem::Cargo => (None, package.name.clone()),
    };
    if of_system {
        let upstream = package.source.as_ref().map(|(name, version)| match version {
            Some(version) => format!("{name}@{version}"),
            None => name.clone(),
        });
        qualifiers.extend(package.architecture.clone().map(|value| ("arch", value)));
        qualifiers.extend(distro.map(|value| ("distro", value)));
        qualifiers.extend(epoch.map(|value| ("epoch", value)));
        qualifiers.extend(
            upstream
                .filter(|upstream| *upstream != package.name)
                .map(|value| ("upstream", value)),
        );
    }
    let mut text = format!("pkg:{}", package.ecosystem);
    for part in namespace.iter().chain([&name]) {
        text.push('/');
        text.push_str(&encode(part));
    }
    if !version.is_empty() {
        text.push('@');
        text.push_str(&encode(version));
    }
    for (index, (key, value)) in qualifiers.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(&format!("{key}={}", encode(value)));
    }
    text
}

/// Everything but letters, digits and `.-_~:` as percent and two digits.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn each_world_has_its_own_form() {
        let release = Release {
            id: "debian".to_owned(),
            version: Some("12".to_owned()),
            pretty_name: None,
        };
        let package = |ecosystem, name: &str, version: &str| {
            Package::new(ecosystem, name.to_owned(), version.to_owned(), NodeId::ROOT)
        };
        let deb = Package {
            architecture: Some("amd64".to_owned()),
            source: Some(("gcc-12".to_owned(), Some("12.2.0-14".to_owned()))),
            ..package(Ecosystem::Deb, "libstdc++6", "1:12.2.0-14+b1~x")
        };
        let rpm = Package {
            architecture: Some("x86_64".to_owned()),
            ..package(Ecosystem::Rpm, "Foo", "2:1.0-3.fc40")
        };
        for (package, expected) in [
            (
                deb,
                "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bb1~x?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
            ),
            (
                rpm,
                "pkg:rpm/debian/Foo@1.0-3.fc40?arch=x86_64&distro=debian-12&epoch=2",
            ),
            (
                package(Ecosystem::Pypi, "Foo_Bar", "1.0+local"),
                "pkg:pypi/foo-bar@1.0%2Blocal",
            ),
            (
                package(Ecosystem::Npm, "@types/node", "20.1.0"),
                "pkg:npm/%40types/node@20.1.0",
            ),
            (package(Ecosystem::Npm, "left-pad", ""), "pkg:npm/left-pad"),
            (
                package(Ecosystem::Cargo, "serde_json", "1.0.1"),
                "pkg:cargo/serde_json@1.0.1",
            ),
        ] {
            assert_eq!(purl(&package, Some(&release)), expected);
        }
        let apk = package(Ecosystem::Apk, "musl", "1.2.5-r0");
        assert_eq!(purl(&apk, None), "pkg:apk/linux/musl@1.2.5-r0");
    }
}
