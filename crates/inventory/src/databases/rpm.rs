//! RPM: the newer database, which is SQLite with one header for each package. Those before it are seen, and not read.
//!
//! Formats: <https://rpm-software-management.github.io/rpm/manual/format_header.html>,
//! <https://rpm-software-management.github.io/rpm/manual/tags.html>

use super::Collector;
use super::sqlite::{Database, Value};
use crate::text::{field, some_field};
use crate::{Ecosystem, InventoryError, NodeId, Package, printable};

/// Where databases that are read lie, in the newer and the older place.
const SQLITE: [&str; 2] = ["usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"];

/// Where others lie: ndb and Berkeley DB.
const OTHERS: [&str; 4] = [
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
];

/// Tags of a header.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const OLD_FILENAMES: u32 = 1027;
const SOURCE_RPM: u32 = 1044;
const DIR_INDEXES: u32 = 1116;
const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;

/// Longest folder that is looked for, in bytes: no path is longer.
const PATH_MAX: usize = 4096;

/// Types of what a tag has.
const INT32: u32 = 4;
const STRINGS: [u32; 3] = [6, 8, 9];

pub(super) fn collect(collector: &mut Collector<'_>) -> Result<(), InventoryError> {
    let find = |paths: &[&str]| paths.iter().find_map(|path| collector.find_file(path.as_bytes()));
    let (sqlite, other) = (find(&SQLITE), find(&OTHERS));
    let Some(node) = sqlite else {
        if let Some(node) = other {
            not_read(collector, node, "is not SQLite");
        }
        return Ok(());
    };
    let bytes = collector.read(node)?.unwrap_or_default();
    let mut headers = Vec::new();
    let found = Database::open(&bytes).is_some_and(|database| {
        database.each_row("Packages", &mut |row| {
            if let [_, Value::Bytes(header), ..] = row {
                headers.push(header.clone());
            }
        })
    });
    if !found {
        not_read(collector, node, "has no table of packages");
    }
    let log = [collector.listing.path(node), b"-wal".to_vec()].concat();
    if let Some(log) = collector.find_file(&log)
        && collector.listing.entry(log).size > 0
    {
        let path = printable(&collector.listing.path(log));
        collector.remark(format!(
            "/{path} holds the latest changes of RPM's database, which are not read"
        ));
    }
    for header in headers {
        if let Some(header) = Header::parse(&header) {
            add(collector, &header, node);
        }
    }
    Ok(())
}

fn not_read(collector: &mut Collector<'_>, node: NodeId, why: &str) {
    let path = printable(&collector.listing.path(node));
    collector.remark(format!(
        "/{path} is an RPM database that {why}, so firebrick does not read it: its packages are left out"
    ));
}

fn add(collector: &mut Collector<'_>, header: &Header<'_>, found_in: NodeId) {
    let first = |tag| header.strings(tag).next();
    let (Some(name), Some(version)) = (first(NAME), first(VERSION)) else {
        return;
    };
    // Keys of signatures are kept as packages.
    if name == b"gpg-pubkey" {
        return;
    }
    let release = first(RELEASE).unwrap_or_default();
    let epoch = header.numbers(EPOCH).next().filter(|epoch| *epoch != 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let package = Package {
        architecture: first(ARCH).and_then(some_field),
        source: first(SOURCE_RPM).and_then(source),
        licences: first(LICENSE).and_then(some_field).into_iter().collect(),
        supplier: first(VENDOR).and_then(some_field),
        homepage: first(URL)
            .and_then(some_field)
            .filter(|url| url.starts_with("http")),
        ..Package::new(
            Ecosystem::Rpm,
            field(name),
            format!("{epoch}{}-{}", field(version), field(release)),
            found_in,
        )
    };
    let Some(id) = collector.add(package) else {
        return;
    };
    let folders: Vec<&[u8]> = header.strings(DIRNAMES).collect();
    let names = header.strings(BASENAMES).zip(header.numbers(DIR_INDEXES));
    let whole = header.strings(OLD_FILENAMES).map(<[u8]>::to_vec);
    let paths = names.filter_map(|(name, folder)| {
        let folder = folders.get(usize::try_from(folder).ok()?)?;
        (folder.len() <= PATH_MAX).then(|| [folder, name].concat())
    });
    for path in paths.chain(whole) {
        if let Some(node) = collector.listing.find(&path) {
            collector.claim(node, id);
        }
    }
}

/// `glibc-2.39-6.fc40.src.rpm`.
fn source(file: &[u8]) -> Option<(String, Option<String>)> {
    let text = some_field(file)?;
    let bare = text
        .strip_suffix(".src.rpm")
        .or_else(|| text.strip_suffix(".nosrc.rpm"))?;
    let (rest, release) = bare.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name.to_owned(), Some(format!("{version}-{release}"))))
}

/// What is told of one package: an index of tags, and their data behind it.
struct Header<'a> {
    index: &'a [[u8; 16]],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Header<'a>> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        let (index, data) = rest.split_at_checked(count.checked_mul(16)?)?;
        let data = data.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        let index = index.as_chunks::<16>().0;
        Some(Header { index, data })
    }

    /// The data of a tag that has one of these types, and how many values they are.
    fn find(&self, wanted: u32, types: &[u32]) -> Option<(&'a [u8], usize)> {
        self.index.iter().find_map(|entry| {
            let [tag, kind, offset, count] = words(entry);
            let is_it = tag == wanted && types.contains(&kind);
            let data = self.data.get(usize::try_from(offset).ok()?..)?;
            is_it.then_some((data, usize::try_from(count).ok()?))
        })
    }

    fn strings(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        let (data, count) = self.find(tag, &STRINGS).unwrap_or_default();
        // What lies behind the last zero is nobody's.
        let end = data.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        let ended = data.get(..end).filter(|_| count > 0).unwrap_or_default();
        ended.split(|byte| *byte == 0).take(count)
    }

    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> {
        let (data, count) = self.find(tag, &[INT32]).unwrap_or_default();
        let words = data.as_chunks::<4>().0.iter();
        words.take(count).map(|word| u32::from_be_bytes(*word))
    }
}

fn words(entry: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(entry.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::source;
    use crate::sample::Sample;

    /// A package for `rpmbuild`, with everything that is read of one.
    const SPEC: &str = "Name: tool\nVersion: 1.2\nRelease: 3\nEpoch: 4\nSummary: a tool\nLicense: MIT AND Zlib\n\
        URL: https://example.org/tool\nVendor: Somebody\nBuildArch: noarch\n%description\nA tool.\n%install\n\
        mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/tool\necho works > %{buildroot}/usr/bin/tool\n\
        for n in 1 2 3; do echo $n > %{buildroot}/usr/share/tool/$n; done\n%files\n/usr/bin/tool\n/usr/share/tool\n";

    fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env("HOME", folder)
            .env("LC_ALL", "C")
            .output()
            .unwrap_or_else(|error| panic!("{program} (apt-get install rpm): {error}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A package with so many files.
    fn make(folder: &Path, count: usize) {
        let files: Vec<String> = (0..count)
            .map(|n| format!("/usr/share/{count}-{n:040}\n"))
            .collect();
        let make: String = files
            .iter()
            .map(|file| format!("echo > %{{buildroot}}{file}"))
            .collect();
        let text = match count {
            0 => SPEC.to_owned(),
            _ => SPEC
                .replace("Name: tool", &format!("Name: tool{count}"))
                .replace("%files\n", &format!("{make}%files\n{}", files.concat())),
        };
        std::fs::write(folder.join("tool.spec"), text).unwrap();
        let topdir = format!("_topdir {}", folder.join("top").display());
        run(
            folder,
            "rpmbuild",
            &["-bb", "--quiet", "--define", &topdir, "tool.spec"],
        );
    }

    /// `rpm` itself says which packages a database has that it made, and which files they have.
    #[test]
    fn rpm_names_the_same_packages_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // The larger ones fill many pages of the database with one row.
        for count in [0, 5, 90, 1500] {
            make(folder, count);
        }
        let packages = std::fs::read_dir(folder.join("top/RPMS/noarch")).unwrap();
        let packages: Vec<String> = packages
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect();
        let database = folder.join("db").display().to_string();
        let rpm = |words: &[&str]| run(folder, "rpm", &[&["--dbpath", &database], words].concat());
        let words: Vec<&str> = packages.iter().map(String::as_str).collect();
        rpm(&[&["--justdb", "--nodeps", "-i"], words.as_slice()].concat());

        let path = "usr/lib/sysimage/rpm/rpmdb.sqlite";
        let bytes = std::fs::read(folder.join("db/rpmdb.sqlite")).unwrap();
        let files = rpm(&["-ql", "tool1500", "tool"]);
        let files = files.lines().filter(|path| *path != "/usr/share/tool");
        let files: BTreeSet<String> = files
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        let mut sample = Sample::new().file(path, &bytes);
        for file in &files {
            sample = sample.file(file, b"x");
        }
        let (listing, inventory) = sample.file("etc/other", b"x").inventory();
        assert_eq!(inventory.remarks(), [""; 0]);
        let told = |text: &Option<String>| text.clone().unwrap_or_default();
        let found = inventory.packages().iter().map(|package| {
            let (source, version) = package.source.clone().unwrap();
            format!(
                "{} {} {} {} {} {} {source}-{}.src.rpm",
                package.name,
                package.version,
                told(&package.architecture),
                package.licences.join("|"),
                told(&package.supplier),
                told(&package.homepage),
                told(&version),
            )
        });
        let form =
            "%{NAME} %{EPOCH}:%{VERSION}-%{RELEASE} %{ARCH} %{LICENSE} %{VENDOR} %{URL} %{SOURCERPM}\n";
        let said = rpm(&["-qa", "--qf", form]);
        let expected: BTreeSet<String> = said.lines().map(str::to_owned).collect();
        assert_eq!((found.collect::<BTreeSet<_>>(), expected.len()), (expected, 4));
        let owned = listing.ids().filter(|node| inventory.owner(*node).is_some());
        let owned = owned.map(|node| String::from_utf8(listing.path(node)).unwrap());
        assert_eq!(owned.collect::<BTreeSet<_>>(), files);
    }

    #[test]
    fn other_databases_are_told_of() {
        for (path, content, why) in [
            ("var/lib/rpm/Packages", &b"bdb"[..], "is not SQLite"),
            ("usr/lib/sysimage/rpm/Packages.db", b"ndb", "is not SQLite"),
            (
                "usr/lib/sysimage/rpm/rpmdb.sqlite",
                b"x",
                "has no table of packages",
            ),
        ] {
            let (_, inventory) = Sample::new().file(path, content).inventory();
            let [remark] = inventory.remarks() else {
                panic!("{:?}", inventory.remarks());
            };
            assert!(remark.contains(path) && remark.contains(why), "{remark}");
            assert!(remark.ends_with("its packages are left out") && inventory.packages().is_empty());
        }
    }

    #[test]
    fn sources_are_files() {
        let (name, version) = source(b"gcc-c++-14.0.1-0.15.fc40.src.rpm").unwrap();
        assert_eq!(
            (name.as_str(), version.as_deref()),
            ("gcc-c++", Some("14.0.1-0.15.fc40"))
        );
        assert_eq!(source(b"(none)"), None);
    }
}
