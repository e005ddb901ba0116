//! Load on an agent that is PID 1 of a VM: many jobs, many clients, a fork bomb, long output, large files, ends before their
//! time. Its memory stays small, and nothing is left of all that.
//!
//! `FIREBRICK_LOAD=full` makes it 10,000 jobs, 100 clients, 1 GiB of output and a file of 2 GiB; `scripts/agent-load` does that.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use firebrick_protocol::agent::{Exec, JobOptions, MAX_OUTPUT_BYTES, TRUNCATED};
use firebrick_protocol::files::{Get, Place, Put};
use firebrick_vmm::{BootSpec, Booted, boot};
use serde_json::json;

use crate::common;
use crate::host::{exec, host, output};
use crate::images;

/// So long anything may take on the busiest machine.
const LIMIT: Duration = Duration::from_secs(600);
const AGENT_KIB: u64 = 16 * 1024;

struct Sizes {
    jobs: usize,
    clients: usize,
    output_mib: u64,
    file_mib: u64,
}

#[expect(clippy::print_stderr, reason = "the figures are worth seeing")]
fn told(what: &str, booted: &mut Booted, work: impl FnOnce(&mut Booted)) {
    let start = Instant::now();
    work(booted);
    let took = start.elapsed().as_secs_f64();
    let peak: u64 = output(&mut booted.client, "awk '/VmHWM/ { print $2 }' /proc/1/status")
        .trim()
        .parse()
        .expect("a number");
    eprintln!("{what}: {took:.1} s, agent at most {peak} KiB");
    assert!(peak <= AGENT_KIB, "{what}: {peak} KiB");
}

/// What there is of processes (of programs: threads of the kernel come and go), of zombies, in /tmp and of PID 1's descriptors.
const LEFT: &str = "ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c -e '->'; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; ls -A /tmp | wc -l; ls /proc/1/fd | wc -l";

#[test]
fn load_leaves_nothing_and_takes_little() {
    let is_full = std::env::var_os("FIREBRICK_LOAD").is_some_and(|size| size == "full");
    let sizes = if is_full {
        Sizes {
            jobs: 10_000,
            clients: 100,
            output_mib: 1024,
            file_mib: 2049,
        }
    } else {
        Sizes {
            jobs: 300,
            clients: 100,
            output_mib: 24,
            file_mib: 24,
        }
    };
    let Some(image) = images::alpine(json!({}), &[]) else {
        return;
    };
    let Some(host) = host() else { return };
    let spec = BootSpec {
        memory_mib: if is_full { 4096 } else { 512 },
        overlay_mib: if is_full { 3072 } else { 256 },
        ..host.spec(&image.path)
    };
    let mut booted =
        boot(&host.qemu, &spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    let before = output(&mut booted.client, LEFT);
    told(&format!("{} jobs", sizes.jobs), &mut booted, |booted| {
        jobs(booted, sizes.jobs)
    });
    told(&format!("{} clients", sizes.clients), &mut booted, |booted| {
        clients(booted, sizes.clients)
    });
    told("a fork bomb", &mut booted, bomb);
    told(
        &format!("{} MiB of output", sizes.output_mib),
        &mut booted,
        |booted| long_output(booted, sizes.output_mib),
    );
    told(
        &format!("{} MiB in and out", sizes.file_mib),
        &mut booted,
        |booted| file(booted, sizes.file_mib << 20),
    );
    told("ends before their time", &mut booted, early_ends);
    let mut left = String::new();
    for _ in 0..50 {
        left = output(&mut booted.client, LEFT);
        if left == before {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(left, before, "processes, zombies, entries of /tmp, descriptors");
}

fn jobs(booted: &mut Booted, count: usize) {
    for _ in 0..count {
        let argv = Some(vec!["/bin/true".to_owned()]);
        let exec = Exec {
            argv,
            ..Exec::default()
        };
        assert_eq!(booted.client.exec(exec, LIMIT).expect("an answer").exit_code, 0);
    }
}

fn clients(booted: &Booted, count: usize) {
    std::thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                let mut client = booted
                    .connect(LIMIT)
                    .unwrap_or_else(|error| panic!("client {number}: {}", common::chain(&error)));
                let cmd = format!("sleep 0.5; echo {number}");
                let exec = Exec {
                    cmd: Some(cmd),
                    ..Exec::default()
                };
                let result = client.exec(exec, LIMIT).expect("an answer");
                let wanted = Some(format!("{number}\n"));
                assert_eq!((result.exit_code, &result.stdout), (0, &wanted), "{result:?}");
            });
        }
    });
}

fn bomb(booted: &mut Booted) {
    let mut other = booted.connect(LIMIT).expect("a connection");
    let bomb = "mkdir /sys/fs/cgroup/load && echo 60 > /sys/fs/cgroup/load/pids.max && echo $$ > /sys/fs/cgroup/load/cgroup.procs \
                && bomb() { bomb | bomb & }; bomb; sleep 100";
    let limited = JobOptions {
        timeout_ms: Some(4000),
        ..JobOptions::default()
    };
    let bombing = std::thread::spawn(move || exec(&mut other, bomb, limited));
    std::thread::sleep(Duration::from_secs(1));
    booted.client.ping(LIMIT).expect("an answer meanwhile");
    assert_eq!(bombing.join().expect("it ends").0, 137);
    let gone = "for i in 1 2 3 4 5 6 7 8 9 10; do rmdir /sys/fs/cgroup/load 2>/dev/null && break; sleep 0.5; done; ls -d /sys/fs/cgroup/load 2>/dev/null || true";
    assert_eq!(output(&mut booted.client, gone), "");
}

fn long_output(booted: &mut Booted, mib: u64) {
    // busybox's `head -c` goes byte by byte: emulated, a gigabyte of that takes longer than all the rest.
    let cmd = Some(format!("dd if=/dev/zero bs=64k count={} 2> /dev/null", mib * 16));
    let exec = Exec {
        cmd,
        ..Exec::default()
    };
    let result = booted.client.exec(exec, LIMIT).expect("an answer");
    assert_eq!(
        result.stdout.map(|text| text.len()),
        Some(MAX_OUTPUT_BYTES + TRUNCATED.len())
    );
}

/// Bytes that tell where they are: the number of each eight. To write is to compare.
#[derive(Default)]
struct Pattern {
    at: u64,
}

impl Pattern {
    fn next(&mut self) -> u8 {
        let byte = (self.at / 8).to_le_bytes()[usize::try_from(self.at % 8).expect("short")];
        self.at += 1;
        byte
    }
}

impl io::Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill_with(|| self.next());
        Ok(buffer.len())
    }
}

impl io::Write for Pattern {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = self.at;
        match bytes.iter().all(|byte| *byte == self.next()) {
            true => Ok(bytes.len()),
            false => Err(io::Error::other(format!("other bytes behind {start}"))),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn file(booted: &mut Booted, bytes: u64) {
    let place = Place::at("/load");
    let put = Put {
        place: place.clone(),
        ..Put::default()
    };
    let mut upload = booted.client.put(put, LIMIT);
    io::copy(&mut Pattern::default().take(bytes), &mut upload).expect("it is taken");
    assert_eq!(upload.finish().expect("a result").bytes, bytes);
    let mut download = booted.client.get(
        Get {
            place,
            ..Get::default()
        },
        LIMIT,
    );
    let mut expected = Pattern::default();
    assert_eq!(
        io::copy(&mut download, &mut expected).expect("it comes as it was"),
        bytes
    );
    download.finish().expect("a result");
    output(&mut booted.client, "rm /load");
}

/// A time-out, and a client that vanishes, of jobs that do not want to end.
fn early_ends(booted: &mut Booted) {
    let stubborn = "(trap '' HUP TERM; setsid sleep 1000 & sleep 1000) & sleep 1000";
    let limited = JobOptions {
        timeout_ms: Some(500),
        ..JobOptions::default()
    };
    assert_eq!(exec(&mut booted.client, stubborn, limited).0, 137);
    let mut vanishing = booted.connect(LIMIT).expect("a connection");
    let exec = Exec {
        cmd: Some(stubborn.to_owned()),
        ..Exec::default()
    };
    vanishing
        .exec(exec, Duration::from_secs(1))
        .expect_err("it goes on");
    drop(vanishing);
    let gone = "for i in 1 2 3 4 5 6 7 8 9 10; do pgrep -f 'sleep 100[0]' > /dev/null || break; sleep 0.5; done; pgrep -f 'sleep 100[0]' || true";
    assert_eq!(output(&mut booted.client, gone), "");
}
