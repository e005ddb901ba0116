//! What goes, what stays, and what package databases say afterwards.

use super::*;
use crate::init::Init;
use crate::plan::{Request, customise};
use crate::settings::Settings;
use crate::settings::tests::image;

fn slimmed(lines: &[&str], rules: &str) -> (Vec<String>, Slimmed) {
    let settings = Settings {
        slim: Rule::parse_list(rules).unwrap(),
        ..Settings::default()
    };
    let fake = image(lines);
    let entries = fake.customised(&settings, Init::None).unwrap();
    let slimmed = fake.with(|image| {
        let json = crate::config::ImageJson::default();
        customise(&Request::new(None, &json, Init::None), &settings, image)
            .unwrap()
            .slimmed
    });
    (entries, slimmed)
}

const DEBIAN: [&str; 16] = [
    "var/lib/dpkg/info/less.list = /.\\n/usr\\n/usr/share/doc\\n/usr/share/doc/less\\n/usr/share/doc/less/copyright\\n/usr/share/doc/less/NEWS.gz\\n/usr/share/man/de\\n/usr/share/man/de/less.1\\n/usr/share/man/man1\\n/usr/share/man/man1/less.1\\n",
    "var/lib/dpkg/info/less.md5sums = 00  usr/share/doc/less/NEWS.gz\\n01  usr/share/doc/less/copyright\\n02  usr/share/man/man1/less.1\\n",
    "usr/share/doc/less/copyright = c",
    "usr/share/doc/less/NEWS.gz = news",
    "usr/share/doc/gone/README = readme",
    "usr/share/man/man1/less.1 = page",
    "usr/share/man/de/less.1 = Seite",
    "usr/share/locale/locale.alias = a",
    "usr/share/locale/de/LC_MESSAGES/x.mo = mo",
    "usr/share/locale/en_GB/LC_MESSAGES/x.mo = mo",
    "var/log/wtmp = log",
    "var/log/dpkg.log.1 = old",
    "var/log/empty = ",
    "var/cache/debconf/config.dat = d",
    "var/cache/debconf/config.dat-old = d",
    "usr/lib/x/__pycache__/m.cpython-311.pyc = code",
];

#[test]
fn what_goes_is_off_the_lists_too() {
    let (entries, slimmed) = slimmed(&DEBIAN, "docs,man");
    assert_eq!(
        entries,
        [
            "w usr/share/doc/gone",
            "w usr/share/doc/less/NEWS.gz",
            "w usr/share/man/de",
            "w usr/share/man/man1/less.1",
            "f var/lib/dpkg/info/less.list 644 0:0 \"/.\\n/usr\\n/usr/share/doc\\n/usr/share/doc/less\\n/usr/share/doc/less/copyright\\n/usr/share/man/man1\\n\"",
            "f var/lib/dpkg/info/less.md5sums 644 0:0 \"01  usr/share/doc/less/copyright\\n\"",
            "d etc/dpkg 755 0:0",
            "d etc/dpkg/dpkg.cfg.d 755 0:0",
            "f etc/dpkg/dpkg.cfg.d/firebrick-slim 644 0:0 \"# What was slimmed away stays away when packages are upgraded.\\npath-exclude=/usr/share/doc/*\\npath-include=/usr/share/doc/*/copyright*\\npath-exclude=/usr/share/doc-base/*\\npath-exclude=/usr/share/gtk-doc/*\\npath-exclude=/usr/share/lintian/*\\npath-exclude=/usr/share/man/*\\n\"",
        ]
    );
    let rows: Vec<_> = slimmed
        .rows
        .iter()
        .map(|row| (row.rule.name(), row.files, row.bytes))
        .collect();
    assert_eq!(rows, [("docs", 2, 10), ("man", 2, 9)]);
}

#[test]
fn languages_logs_caches_and_compiled_modules() {
    let (entries, slimmed) = slimmed(&DEBIAN, "locale,logs,cache,pyc");
    let (whiteouts, files): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.starts_with("w "));
    assert_eq!(
        whiteouts,
        [
            "w usr/lib/x/__pycache__",
            "w usr/share/locale/de",
            "w var/cache/debconf/config.dat-old",
            "w var/log/dpkg.log.1",
        ]
    );
    assert_eq!(files[0], "f var/log/wtmp 644 0:0 \"\"");
    let rows: Vec<_> = slimmed
        .rows
        .iter()
        .map(|row| (row.rule.name(), row.files, row.bytes))
        .collect();
    assert_eq!(
        rows,
        [("locale", 1, 2), ("cache", 1, 1), ("logs", 2, 6), ("pyc", 1, 4)]
    );
}

#[test]
fn apk_forgets_what_went_and_its_lines() {
    let (entries, _) = slimmed(
        &[
            "lib/apk/db/installed = C:Q1x\\nP:less\\nF:usr/share/man\\nF:usr/share/man/man1\\nM:0:0:755\\nR:less.1\\na:0:0:600\\nZ:Q1y\\nF:usr/bin\\nR:less\\nZ:Q1z\\n\\nP:other\\nF:usr/share/man/man1\\nR:less.1x\\n\\n",
            "usr/share/man/man1/less.1 = page",
            "usr/bin/less = program",
        ],
        "man",
    );
    assert_eq!(
        entries,
        [
            "w usr/share/man/man1/less.1",
            "f lib/apk/db/installed 644 0:0 \"C:Q1x\\nP:less\\nF:usr/share/man\\nF:usr/share/man/man1\\nM:0:0:755\\nF:usr/bin\\nR:less\\nZ:Q1z\\n\\nP:other\\nF:usr/share/man/man1\\nR:less.1x\\n\\n\"",
        ]
    );
}

#[test]
fn a_database_that_cannot_be_edited_keeps_its_files() {
    let lines = [
        "var/lib/rpm/rpmdb.sqlite = db",
        "usr/share/doc/x/README = r",
        "usr/local/share/doc/y = r",
        "tmp/x = t",
    ];
    let (entries, slimmed) = slimmed(&lines, "docs,tmp");
    assert_eq!(entries, ["w tmp/x", "w usr/local/share/doc/y"]);
    assert_eq!(slimmed.kept_for, ["RPM"]);
    assert_eq!(slimmed.rows[0].kept_files, 1);
}

#[test]
fn a_file_counts_once_its_last_name_goes() {
    let lines = [
        "usr/share/doc/a = text",
        "usr/share/doc/b -> hard:usr/share/doc/a",
        "usr/bin/kept = text",
        "usr/share/doc/c -> hard:usr/bin/kept",
    ];
    let (_, slimmed) = slimmed(&lines, "docs");
    assert_eq!((slimmed.rows[0].files, slimmed.rows[0].bytes), (3, 4));
}

#[test]
fn names_that_no_whiteout_can_have_stay() {
    let long = format!("usr/share/doc/{} = x", "n".repeat(252));
    let (entries, slimmed) = slimmed(&[&long], "docs");
    assert_eq!(entries, [""; 0]);
    assert_eq!(slimmed.rows[0].kept_files, 1);
}

#[test]
fn what_is_asked_for_is_not_slimmed_away() {
    let settings = Settings {
        slim: Rule::parse_list("all").unwrap(),
        files: vec![crate::settings::NewFile {
            path: "usr/share/doc/x/README".to_owned(),
            content: crate::settings::Content::File(b"mine".to_vec()),
            mode: None,
            owner: None,
        }],
        ..Settings::default()
    };
    let entries = image(&["usr/share/doc/x/README = r"])
        .customised(&settings, Init::None)
        .unwrap();
    assert_eq!(entries, ["f usr/share/doc/x/README 644 0:0 \"mine\""]);
    assert!(
        Rule::parse_list("docs,manual")
            .unwrap_err()
            .to_string()
            .contains("\"manual\" is no rule")
    );
}
