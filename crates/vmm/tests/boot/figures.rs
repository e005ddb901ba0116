//! How long boots take, from the guest's own clock and the host's. `bench/boot` runs this; nothing here is judged.
//!
//! A line a boot: what booted, then seconds of the host's clock and of QEMU's processor time until the agent answered, then
//! milliseconds of the guest's clock: kernel start to stage 1, stage 1, start of the image's init to an agent that listens,
//! and to its first answer (for systemd also to `basic.target`). Before it, for `bench/timeline`, lines that begin with `stamp`: what
//! booted, what happened, and milliseconds of the host's clock from the start of QEMU.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_customise::Service;
use firebrick_protocol::agent::{Stamp, Status};
use firebrick_vmm::client::Client;
use firebrick_vmm::{BootSpec, Timeline};
use serde_json::json;

use crate::common;
use crate::host::{ANSWER_LIMIT, Host, host, output};
use crate::images::{self, Recipe, Root};

const ROUNDS: usize = 5;

#[test]
#[ignore = "a measurement, which bench/boot runs"]
fn boots() {
    let host = host().expect("QEMU and a kernel");
    let debian = images::debian(json!({}), &[]).expect("mmdebstrap");
    let minimal = Recipe {
        service: Service {
            minimal: true,
            user: None,
        },
        ..Recipe::default()
    };
    let minimal = minimal.of(Root::Debian).expect("mmdebstrap");
    let openrc = Recipe::default().of(Root::DebianOpenRc).expect("mmdebstrap");
    let alpine = images::alpine(json!({}), &[]);
    let rounds = std::env::var("FIREBRICK_BOOTS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    say("what,host_s,qemu_cpu_s,kernel_ms,stage1_ms,listening_ms,answer_ms,basic_target_ms");
    for _ in 0..rounds {
        if let Some(alpine) = &alpine {
            say(&boot("alpine", &host, host.spec(&alpine.path)));
        }
        say(&boot("debian", &host, host.spec(&debian.path)));
        for (what, image) in [
            ("debian with systemd", &debian),
            ("debian with systemd, minimal target", &minimal),
            ("debian with OpenRC", &openrc),
        ] {
            let mut spec = host.spec(&image.path);
            "init=/sbin/init".clone_into(&mut spec.append);
            say(&boot(what, &host, spec));
        }
        if rustix::process::geteuid().is_root() {
            say(&in_a_namespace(&host));
        }
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn say(line: &str) {
    println!("{line}");
}

fn boot(what: &str, host: &Host, spec: BootSpec<'_>) -> String {
    let started = Instant::now();
    let mut booted = firebrick_vmm::boot(&host.qemu, &spec, None)
        .unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    let cpu = cpu_seconds(booted.machine().process_id());
    let timeline = Timeline::ask(&mut booted.client, started, started.elapsed()).expect("a status");
    let stamp = |event: &str, at: Duration| say(&format!("stamp,{what},{event},{}", ms_of(at)));
    stamp("kernel_start", timeline.kernel_start);
    for (event, at) in &timeline.stamps {
        stamp(event, *at);
    }
    stamp("answered", timeline.answered);
    let status = booted.client.status(ANSWER_LIMIT).expect("a status");
    let basic = if output(&mut booted.client, "cat /proc/1/comm").trim() == "systemd" {
        let show = "systemctl show basic.target --property ActiveEnterTimestampMonotonic --value";
        let entered: u64 = output(&mut booted.client, show)
            .trim()
            .parse()
            .expect("microseconds");
        let since = entered.checked_sub(at(&status.boot, "root_mounted"));
        since.map(ms).unwrap_or_default()
    } else {
        String::new()
    };
    let took = booted.took.as_secs_f64();
    format!("{what},{took:.2},{cpu:.2},{}{basic}", times(&status))
}

/// Our init without a machine around it, as PID 1 of a namespace of this host: what it takes where nothing is emulated.
fn in_a_namespace(host: &Host) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("root");
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    std::fs::write(root.join("guest"), &host.guest).expect("the guest");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("it is bound")
        .port();
    let cmdline = dir.path().join("cmdline");
    std::fs::write(&cmdline, format!("firebrick.tcp=127.0.0.1:{port}\n")).expect("a file");
    let script = "chmod 755 $1/guest && mount -t proc proc $1/proc && mount --bind $2 $1/proc/cmdline \
                  && exec chroot $1 /guest --init";
    let mut init = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--uts",
            "--ipc",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([&root, &cmdline])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare");
    let mut client = connect(port);
    let status = client.status(ANSWER_LIMIT).expect("a status");
    let _ = client.shutdown(firebrick_protocol::agent::Shutdown::default(), ANSWER_LIMIT);
    init.wait().expect("it ends");
    format!("init alone,,,{}", times(&status))
}

fn connect(port: u16) -> Client {
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return Client::new(stream.into()).expect("a client"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Up to the column of `basic.target`.
fn times(status: &Status) -> String {
    let boot = &status.boot;
    let find = |event: &str| boot.iter().find(|stamp| stamp.event == event);
    // Another init than ours starts when stage 1 ends.
    let init = find("pid1_start").map_or_else(|| at(boot, "root_mounted"), |stamp| stamp.boottime_us);
    let stage1 = find("stage1_start").map(|stamp| stamp.boottime_us);
    let (kernel, stage1) = stage1.map_or_else(Default::default, |start| (ms(start), ms(init - start)));
    let (listening, answer) = (
        at(boot, "agent_listening") - init,
        at(boot, "first_answer") - init,
    );
    format!("{kernel},{stage1},{},{},", ms(listening), ms(answer))
}

fn ms_of(time: Duration) -> String {
    ms(u64::try_from(time.as_micros()).expect("a boot is short"))
}

fn at(stamps: &[Stamp], event: &str) -> u64 {
    let stamp = stamps.iter().find(|stamp| stamp.event == event);
    stamp
        .unwrap_or_else(|| panic!("no {event} in {stamps:?}"))
        .boottime_us
}

fn ms(microseconds: u64) -> String {
    format!("{}.{:03}", microseconds / 1000, microseconds % 1000)
}

fn cpu_seconds(process: u32) -> f64 {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u32 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().expect("ticks"))
        .sum();
    f64::from(ticks) / 100.0
}
