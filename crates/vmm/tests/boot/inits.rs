//! Every root that we have, under firebrick's init and under its own, as ext4 and as squashfs: the agent answers, PID 1 is who it
//! should be, the root can be written and the image below it cannot, and an agent that dies comes back.

use std::time::{Duration, Instant};

use crate::images::Filesystem;
use firebrick_customise::{Init, Service};
use firebrick_protocol::agent::JobOptions;
use firebrick_vmm::Booted;
use firebrick_vmm::client::Client;

use crate::host::{ANSWER_LIMIT, Host, exec, host, output};
use crate::images::{Recipe, Root};

fn both_filesystems() -> [Filesystem; 2] {
    [Filesystem::Ext4, Filesystem::Squashfs]
}

/// Boots the root as both filesystems under firebrick's init and under `own`, whose program is called `name`.
fn matrix(root: Root, own: Init, name: &str) {
    let Some(host) = host() else { return };
    for filesystem in both_filesystems() {
        for (init, name) in [(Init::Firebrick, "firebrick-guest"), (own, name)] {
            let recipe = Recipe {
                init,
                filesystem: filesystem.clone(),
                ..Recipe::default()
            };
            if let Some(booted) = booted(&host, root, recipe) {
                check(booted, filesystem.name(), name);
            }
        }
    }
}

/// The booted image; `None` without what it is made from.
fn booted(host: &Host, root: Root, recipe: Recipe) -> Option<Booted> {
    let image = recipe.of(root)?;
    Some(host.boot(&image))
}

fn check(mut booted: Booted, filesystem: &str, name: &str) {
    let client = &mut booted.client;
    let shown = output(client, "cat /proc/1/comm");
    assert_eq!(shown.trim(), name);
    let is_ours = name == "firebrick-guest";
    let status = client.status(ANSWER_LIMIT).expect("a status");
    assert_eq!(status.pid1, is_ours);
    assert_eq!(status.warnings, [""; 0]);
    // The whole boot is known whoever is PID 1.
    let started = if is_ours { "pid1_start" } else { "agent_start" };
    let seen = |event: &&str| status.boot.iter().any(|stamp| stamp.event == *event);
    let events = [
        "stage1_start",
        "modules_loaded",
        "root_mounted",
        started,
        "agent_listening",
    ];
    assert!(
        events.iter().all(seen) && status.boot.is_sorted_by_key(|stamp| stamp.boottime_us),
        "{:?}",
        status.boot
    );
    let mounts = output(client, "cut -d' ' -f2,3 /proc/mounts");
    for mount in [
        "/ overlay",
        &format!("/rom {filesystem}"),
        "/overlay tmpfs",
        "/proc proc",
        "/sys sysfs",
    ] {
        assert!(
            mounts.lines().any(|line| line == mount),
            "no {mount} in\n{mounts}"
        );
    }
    assert_eq!(output(client, "echo x > /etc/new && cat /etc/new"), "x\n");
    let (code, ..) = exec(client, "echo x > /rom/etc/new", JobOptions::default());
    assert_ne!(code, 0, "the image can be written");
    if is_ours {
        ends_as_busybox_asks(booted);
    } else {
        comes_back(&booted);
    }
}

/// `poweroff` of busybox sends PID 1 this signal.
fn ends_as_busybox_asks(mut booted: Booted) {
    let poweroff = firebrick_protocol::agent::Exec {
        cmd: Some("kill -USR2 1".to_owned()),
        ..firebrick_protocol::agent::Exec::default()
    };
    let _ = booted.client.exec(poweroff, Duration::from_secs(5)); // whose answer may come too late
    let exit = booted.machine().wait(ANSWER_LIMIT).expect("it is waited for");
    assert!(exit.is_some(), "the machine goes on");
}

/// The process of the agent, which is the parent of what it starts.
fn agent(client: &mut Client) -> u32 {
    output(client, "echo $PPID").trim().parse().expect("a number")
}

/// Whoever supervises the agent starts it again.
fn comes_back(booted: &Booted) {
    let mut client = booted.connect(ANSWER_LIMIT).expect("a second connection");
    let first = agent(&mut client);
    assert_ne!(first, 1);
    // The answer may not come: it is the agent's own death.
    let options = JobOptions::default();
    let kill = firebrick_protocol::agent::Exec {
        cmd: Some(format!("kill -9 {first}")),
        options,
        ..firebrick_protocol::agent::Exec::default()
    };
    let _ = client.exec(kill, Duration::from_secs(5));
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        assert!(Instant::now() < deadline, "no new agent answers");
        let Ok(mut client) = booted.connect(Duration::from_secs(2)) else {
            continue;
        };
        if client.ping(Duration::from_secs(2)).is_ok() {
            assert_ne!(agent(&mut client), first);
            return;
        }
    }
}

#[test]
fn alpine_boots_under_every_init() {
    matrix(Root::Alpine, Init::Busybox, "init");
}

#[test]
fn busybox_boots_under_every_init() {
    matrix(Root::Busybox, Init::Busybox, "init");
}

#[test]
fn debian_boots_under_every_init() {
    matrix(Root::Debian, Init::Systemd, "systemd");
}

/// Debian has an init only where one is installed: its own is then OpenRC under System V's.
#[test]
fn debian_without_systemd_boots_under_every_init() {
    let Some(host) = host() else { return };
    for filesystem in both_filesystems() {
        let recipe = Recipe {
            filesystem: filesystem.clone(),
            ..Recipe::default() // `auto`, which must see that there is none
        };
        if let Some(booted) = booted(&host, Root::DebianWithoutInit, recipe) {
            check(booted, filesystem.name(), "firebrick-guest");
        }
        let recipe = Recipe {
            init: Init::OpenRc,
            filesystem: filesystem.clone(),
            ..Recipe::default()
        };
        if let Some(booted) = booted(&host, Root::DebianOpenRc, recipe) {
            check(booted, filesystem.name(), "init");
        }
    }
}

/// As Nex has it: a user of its own, by number or by name.
#[test]
fn openrc_supervises_an_agent_of_another_user() {
    let Some(host) = host() else { return };
    let passwd = "f 0644 /etc/passwd \"root:x:0:0::/root:/bin/sh\\nnex:x:1000:1000::/home/nex:/bin/sh\\n\"
                  f 0644 /etc/group \"root:x:0:\\nnex:x:1000:\\n\"";
    let recipe = Recipe {
        init: Init::OpenRc,
        service: Service {
            user: Some("nex".parse().expect("a user")),
            minimal: false,
        },
        more: vec![crate::images::layer(passwd)],
        ..Recipe::default()
    };
    let Some(mut booted) = booted(&host, Root::DebianOpenRc, recipe) else {
        return;
    };
    let client = &mut booted.client;
    assert_eq!(output(client, "id -u; id -g"), "1000\n1000\n");
    let agent = agent(client);
    let owner = output(client, &format!("stat -c %U:%G /proc/{agent}"));
    assert_eq!(owner, "nex:nex\n");
    let parent = output(client, &format!("cut -d' ' -f4 /proc/{agent}/stat"));
    let supervisor = output(client, &format!("cat /proc/{}/comm", parent.trim()));
    assert_eq!(supervisor, "supervise-daemo\n");
    let root = JobOptions {
        user: Some("root".to_owned()),
        ..JobOptions::default()
    };
    let call = firebrick_protocol::agent::Exec {
        cmd: Some("id".to_owned()),
        options: root,
        ..firebrick_protocol::agent::Exec::default()
    };
    client.exec(call, ANSWER_LIMIT).expect_err("it is not root");
}
