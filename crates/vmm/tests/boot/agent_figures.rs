//! How long the agent takes to answer over a VM's channel, and how fast files move. `bench/agent` runs this; nothing here is judged.
//!
//! Lines: the channel, what was measured, how many, the median, the 99th of a hundred and the longest, in microseconds; then for
//! files: the channel, the way, bytes, seconds, MiB a second.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use firebrick_protocol::files::{Get, Place, Put};
use firebrick_vmm::{BootSpec, Booted, boot};
use serde_json::json;

use crate::common;
use crate::host::{ANSWER_LIMIT, host};
use crate::images;

const CALLS: usize = 10_000;
const FILE_BYTES: u64 = 1 << 30;

#[test]
#[ignore = "a measurement, which bench/agent runs"]
fn answers_and_files() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let calls = number("FIREBRICK_CALLS", CALLS);
    let bytes = u64::try_from(number("FIREBRICK_FILE_MIB", 1024)).expect("small") << 20;
    assert!(bytes <= FILE_BYTES);
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        panic!("an image, QEMU and a kernel")
    };
    let folder = tempfile::tempdir().expect("a folder");
    say("channel,what,count,p50_us,p99_us,max_us / channel,way,bytes,seconds,mib_s");
    let mut channels = vec![("virtio-serial", None)];
    if std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("vhost-device-vsock").exists()))
    {
        channels.push(("vsock", Some(folder.path().join("vsock"))));
    }
    for (channel, socket) in channels {
        let spec = BootSpec {
            memory_mib: 3072,
            overlay_mib: 2560,
            vsock_socket: socket,
            ..host.spec(&image.path)
        };
        let mut booted =
            boot(&host.qemu, &spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
        open_connection(channel, &mut booted, calls);
        dialled(channel, &booted, calls);
        files(channel, &mut booted, bytes);
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn say(line: &str) {
    println!("{line}");
}

fn tell(channel: &str, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
    say(&format!(
        "{channel},{what},{},{},{},{}",
        times.len(),
        at(50),
        at(99),
        at(100)
    ));
}

fn open_connection(channel: &str, booted: &mut Booted, calls: usize) {
    let times = (0..calls).map(|_| {
        let start = Instant::now();
        booted.client.ping(ANSWER_LIMIT).expect("an answer");
        start.elapsed()
    });
    let times = times.collect();
    tell(channel, "ping on an open connection", times);
}

fn dialled(channel: &str, booted: &Booted, calls: usize) {
    let times = (0..calls).map(|_| {
        let start = Instant::now();
        let mut client = booted.connect(ANSWER_LIMIT).expect("a connection");
        client.ping(ANSWER_LIMIT).expect("an answer");
        start.elapsed()
    });
    tell(channel, "ping from dial to answer", times.collect());
}

fn files(channel: &str, booted: &mut Booted, bytes: u64) {
    let place = Place::at("/root-of-bench");
    let start = Instant::now();
    let mut upload = booted.client.put(
        Put {
            place: place.clone(),
            ..Put::default()
        },
        ANSWER_LIMIT,
    );
    io::copy(&mut io::repeat(0x5a).take(bytes), &mut upload).expect("it is taken");
    assert_eq!(upload.finish().expect("a result").bytes, bytes);
    rate(channel, "put", bytes, start.elapsed());
    let start = Instant::now();
    let mut download = booted.client.get(
        Get {
            place,
            ..Get::default()
        },
        ANSWER_LIMIT,
    );
    assert_eq!(io::copy(&mut download, &mut io::sink()).expect("it comes"), bytes);
    download.finish().expect("a result");
    rate(channel, "get", bytes, start.elapsed());
}

fn rate(channel: &str, way: &str, bytes: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    let mib = u32::try_from(bytes >> 20).expect("small");
    say(&format!(
        "{channel},{way},{bytes},{seconds:.2},{:.1}",
        f64::from(mib) / seconds
    ));
}
