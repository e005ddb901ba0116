//! What is planned for images of all kinds.

use super::*;
use crate::lower::tests::lower;

fn planned(lines: &[&str], init: Init) -> Result<Vec<String>, CustomiseError> {
    let image_json = ImageJson::default();
    listed(&Request::new(Some(b"guest"), &image_json, init), lines)
}

fn listed(request: &Request<'_>, lines: &[&str]) -> Result<Vec<String>, CustomiseError> {
    let entries = plan(request, &lower(lines))?;
    Ok(entries
        .iter()
        .map(|entry| {
            let path = String::from_utf8_lossy(&entry.path);
            match &entry.kind {
                EntryKind::Dir => format!("d {:o} {path}", entry.mode),
                EntryKind::File(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    format!("f {:o} {path} {text:?}", entry.mode)
                }
                EntryKind::Symlink(target) => {
                    format!("l {path} -> {}", String::from_utf8_lossy(target))
                }
                EntryKind::Whiteout => format!("w {path}"),
            }
        })
        .collect())
}

#[test]
fn empty_image_gets_everything() {
    assert_eq!(
        planned(&[], Init::Auto).unwrap(),
        [
            "d 755 proc",
            "d 755 sys",
            "d 755 dev",
            "d 755 run",
            "d 1777 tmp",
            "d 755 etc",
            "d 755 etc/firebrick",
            "f 644 etc/firebrick/image.json \"{}\\n\"",
            "d 755 usr",
            "d 755 usr/lib",
            "d 755 usr/lib/firebrick",
            "f 755 usr/lib/firebrick/firebrick-guest \"guest\"",
            "d 755 usr/bin",
            "l usr/bin/firebrick -> /usr/lib/firebrick/firebrick-guest",
            "d 755 sbin",
            "l sbin/overlay-init -> /usr/lib/firebrick/firebrick-guest",
            "l sbin/init -> /usr/lib/firebrick/firebrick-guest",
        ]
    );
}

const DEBIAN: [&str; 13] = [
    "proc/",
    "sys/",
    "dev/",
    "run/",
    "tmp/",
    "etc/",
    "usr/",
    "usr/lib/",
    "usr/sbin/",
    "sbin -> usr/sbin",
    "usr/lib/systemd/",
    "usr/lib/systemd/systemd",
    "usr/sbin/init -> ../lib/systemd/systemd",
];

#[test]
fn existing_directories_and_symlinked_parents_are_kept() {
    let files = [
        "d 755 etc/firebrick",
        "f 644 etc/firebrick/image.json \"{}\\n\"",
        "d 755 usr/lib/firebrick",
        "f 755 usr/lib/firebrick/firebrick-guest \"guest\"",
        "d 755 usr/bin",
        "l usr/bin/firebrick -> /usr/lib/firebrick/firebrick-guest",
    ];
    let overlay = "l usr/sbin/overlay-init -> /usr/lib/firebrick/firebrick-guest";
    let link = "l usr/sbin/init -> /usr/lib/firebrick/firebrick-guest";
    assert_eq!(planned(&DEBIAN, Init::None).unwrap(), files);
    assert_eq!(
        planned(&DEBIAN, Init::Firebrick).unwrap(),
        [&files[..], &[overlay, link]].concat()
    );
    let without_systemd = &DEBIAN[..10];
    assert_eq!(
        planned(without_systemd, Init::Auto).unwrap(),
        [&files[..], &[overlay, link]].concat()
    );
}

#[test]
fn the_command_takes_nobodys_place() {
    for odd in [
        &["usr/", "usr/bin/", "usr/bin/firebrick"][..],
        &["usr/", "usr/bin"],
    ] {
        let entries = planned(odd, Init::None).unwrap();
        assert!(
            !entries.iter().any(|entry| entry.contains("bin/firebrick")),
            "{entries:?}"
        );
    }
}

/// The paths that an init adds, after those of every image.
fn added(lines: &[&str], init: Init) -> Vec<String> {
    let entries = planned(lines, init).unwrap();
    let at = entries
        .iter()
        .position(|entry| entry.contains("overlay-init"))
        .unwrap();
    let short = |entry: &String| entry.split(" \"").next().unwrap().to_owned();
    entries[at + 1..]
        .iter()
        .filter(|entry| !entry.starts_with("d "))
        .map(short)
        .collect()
}

#[test]
fn systemd_gets_a_unit_and_a_link() {
    let unit = [
        "f 644 etc/systemd/system/firebrick-agent.service",
        "l etc/systemd/system/multi-user.target.wants/firebrick-agent.service -> ../firebrick-agent.service",
    ];
    assert_eq!(added(&DEBIAN, Init::Auto), unit);
    let words = "f 644 etc/firebrick/cmdline";
    assert_eq!(added(&DEBIAN, Init::Systemd), [unit[0], unit[1], words]);
    // Debian's package systemd alone makes no /sbin/init.
    let init = "l usr/sbin/init -> /usr/lib/systemd/systemd";
    assert_eq!(
        added(&DEBIAN[..12], Init::Systemd),
        [init, unit[0], unit[1], words]
    );
}

const OPENRC: [&str; 5] = [
    "sbin/",
    "sbin/openrc-run",
    "sbin/supervise-daemon",
    "sbin/openrc-init",
    "sbin/init -> openrc-init",
];

#[test]
fn openrc_gets_a_service_in_its_runlevel() {
    let service = [
        "f 755 etc/init.d/firebrick-agent",
        "l etc/runlevels/default/firebrick-agent -> /etc/init.d/firebrick-agent",
    ];
    assert_eq!(added(&OPENRC, Init::Auto), service);
    let words = "f 644 etc/firebrick/cmdline";
    assert_eq!(added(&OPENRC, Init::OpenRc), [service[0], service[1], words]);
    assert_eq!(
        added(&OPENRC[..4], Init::OpenRc),
        ["l sbin/init -> /sbin/openrc-init", service[0], service[1], words]
    );
}

#[test]
fn busybox_gets_an_inittab_if_asked_and_the_guest_in_its_place_if_not() {
    let busybox = ["bin/", "bin/busybox", "sbin/", "sbin/init -> /bin/busybox"];
    let guest = "l sbin/init -> /usr/lib/firebrick/firebrick-guest";
    assert_eq!(added(&busybox, Init::Auto), [guest]);
    let files = ["f 644 etc/inittab", "f 644 etc/firebrick/cmdline"];
    assert_eq!(added(&busybox, Init::Busybox), files);
    let link = "l sbin/init -> /bin/busybox";
    assert_eq!(added(&busybox[..2], Init::Busybox), [link, files[0], files[1]]);
}

#[test]
fn an_init_that_is_not_there_is_refused_with_the_way_out() {
    for (init, told) in [
        (
            Init::Systemd,
            "no /lib/systemd/systemd, so its init cannot be systemd: install",
        ),
        (
            Init::OpenRc,
            "no /sbin/openrc-run, so its init cannot be openrc: install",
        ),
        (
            Init::Busybox,
            "no /bin/busybox, so its init cannot be busybox: install",
        ),
    ] {
        let error = planned(&[], init).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn what_only_services_have_is_refused_elsewhere() {
    let image_json = ImageJson::default();
    let mut request = Request::new(Some(b"guest"), &image_json, Init::Auto);
    request.service.user = Some("nex".parse().unwrap());
    let error = listed(&request, &[]).unwrap_err().to_string();
    let told =
        "--agent-user is for systemd, OpenRC and busybox, and in this image the guest is PID 1: choose";
    assert!(error.starts_with(told), "{error}");
    assert!(listed(&request, &DEBIAN).is_ok());
    request.service = Service {
        user: None,
        minimal: true,
    };
    let error = listed(&request, &OPENRC).unwrap_err().to_string();
    assert!(error.contains("in this image OpenRC starts the agent"), "{error}");
}

#[test]
fn containers_need_a_runc() {
    let image_json = ImageJson::default();
    let mut request = Request::new(Some(b"guest"), &image_json, Init::Auto);
    request.profile = Some(Profile::Containerd);
    assert_eq!(listed(&request, &DEBIAN).unwrap_err(), CustomiseError::NoRunc);
    let with_runc = [&DEBIAN[..], &["usr/sbin/runc"]].concat();
    let entries = listed(&request, &with_runc).unwrap();
    let target = "l etc/systemd/system/default.target -> firebrick.target".to_owned();
    assert!(entries.contains(&target), "{entries:?}");
    request.runc = Some(b"static");
    request.words = vec!["firebrick.cgroup=v1".to_owned()];
    let entries = listed(&request, &DEBIAN).unwrap();
    for entry in [
        "f 755 usr/local/bin/runc \"static\"",
        "f 644 etc/firebrick/cmdline \"firebrick.cgroup=v1\\n\"",
    ] {
        assert!(entries.iter().any(|found| found == entry), "{entries:?}");
    }
}

#[test]
fn file_in_the_way_is_named() {
    let error = planned(&["usr/", "usr/lib -> ../data", "data"], Init::Auto).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add \"/usr/lib/firebrick/firebrick-guest\" to the image: \"/data\" is not a directory there"
    );
    let error = planned(&["etc/", "etc/firebrick -> /tmp/x", "tmp/"], Init::Auto).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add \"/etc/firebrick/image.json\" to the image: its folder is \"/tmp/x\" there, which a mounted \
         filesystem hides"
    );
}
