//! Proves that thousands of damaged inputs make no parser of outside bytes panic, hang or break its promises; the same
//! inputs on every run and every toolchain. `scripts/fuzz` goes further with libFuzzer.

use firebrick_testkit::layers::{Layer, oci::Compression, tar::to_tar};
use firebrick_testkit::oracle::say;
use firebrick_testkit::targets;
use firebrick_testkit::targets::mutate::{Random, mend_tar, mutate};

/// Layers that use every feature of tar that we read.
const LAYER: &str = r#"
    f 0644 /etc/motd "hello" uid=70000 mtime=-1.5 xattr:user.a=b acl=u::rwx,u:7:r--,g::r-x,m::r-x,o::---
    f 0644 /1 len=9000 seg=4096:@512:1 seg=8192:"x" sparse=1.0
    f 0644 /2 len=9000 seg=512:@512:1 seg=4096:"x" sparse=0.1
    f 0644 /3 len=9000 seg=512:@512:1 seg=4096:"x" sparse=0.0
    f 0644 /4 len=90000 seg=512:@512:1 seg=2048:@512:1 seg=4096:@512:1 seg=8192:@512:1 seg=16384:@512:1 sparse=gnu
    d 1777 /tmp libarchive xattr:user.k=v
    h /b /etc/motd
    format gnu
    l /a -> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    c 0600 /null 1 3 uid=3000000
    w /etc/motd
    opq /tmp
    p 0644 /p
    format pax
    s 0644 /s
"#;

fn seeds_of_tar() -> Vec<Vec<u8>> {
    let layer: Layer = LAYER.parse().unwrap();
    let single = layer.entries.iter().map(|entry| {
        let entries = vec![entry.clone()];
        to_tar(&Layer { entries })
    });
    let whole = to_tar(&layer);
    let compressed = [Compression::Gzip, Compression::Zstd].map(|compression| compression.compress(&whole));
    single.chain([whole.clone()]).chain(compressed).collect()
}

fn damage(seeds: &[Vec<u8>], count: u64, mend: fn(&mut [u8]), target: fn(&[u8])) {
    for seed in seeds {
        target(seed);
    }
    for round in 0..count {
        let mut random = Random::new(round);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        if random.below(4) != 0 {
            mend(&mut bytes);
        }
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        if let Err(panic) = outcome {
            let path = std::env::temp_dir().join(format!("firebrick-mutation-{round}"));
            std::fs::write(&path, &bytes).unwrap();
            say(&format!(
                "round {round} fails; its input is in {}",
                path.display()
            ));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn damaged_layers() {
    damage(&seeds_of_tar(), 6000, mend_tar, targets::tar);
}

fn seeds_of_protocol() -> Vec<Vec<u8>> {
    let lines =
        br#" {"jsonrpc":"2.0","id":1,"method":"exec","params":{"cmd":"true","env":{"A":"b"},"timeout_ms":5}}
{"jsonrpc":"2.0","id":"x","result":{"exit_code":0}}
{"jsonrpc":"2.0","method":"output","params":{}}
{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}
"#;
    let mut wire = vec![200_u8];
    wire.extend([0; 16_396]);
    wire.extend(b"FBMUX1H\n\x07\0\0\0\0\0\0\0");
    for kind in 0..12_u8 {
        wire.extend([kind, 0, 4, 0, 2, 0, 0, 0, 52, 0, 0, 0, 7, 0, 0, 0]);
    }
    let mut reply = vec![3_u8];
    reply.extend(b"FBMUX1G\n\x07\0\0\0\0\0\0\0");
    reply.extend_from_slice(&wire[wire.len() - 160..]);
    vec![lines.to_vec(), wire, reply]
}

#[test]
fn damaged_messages() {
    damage(&seeds_of_protocol(), 3000, |_| {}, targets::protocol);
}

/// Writes the seeds where `scripts/fuzz` wants them; without that, only makes sure that there are some.
#[test]
fn seeds() {
    let folder = std::env::var_os("FIREBRICK_FUZZ_SEEDS").map(std::path::PathBuf::from);
    for (target, seeds) in [("tar", seeds_of_tar()), ("protocol", seeds_of_protocol())] {
        assert!(seeds.iter().all(|seed| !seed.is_empty()), "{target}");
        let Some(folder) = &folder else { continue };
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
