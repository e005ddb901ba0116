//! How fast chunks are named, beside SHA-256: `ids`.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::hint::black_box;
use std::time::Instant;

use firebrick_digest::Digest;
use firebrick_store::Id;

/// As long as chunks are on the average.
const CHUNK_LEN: usize = 35 << 10;

fn main() {
    let bytes: Vec<u8> = (0..64_u32 << 20)
        .map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()[0])
        .collect();
    let rate = |name: &dyn Fn(&[u8]) -> [u8; 32]| {
        let begun = Instant::now();
        for _ in 0..8 {
            bytes.chunks(CHUNK_LEN).for_each(|chunk| {
                black_box(name(chunk));
            });
        }
        8.0 * 0.067_108_864 / begun.elapsed().as_secs_f64()
    };
    for _ in 0..3 {
        let (blake3, sha256) = (
            rate(&|chunk| *Id::of(chunk).as_bytes()),
            rate(&|chunk| *Digest::of(chunk).as_bytes()),
        );
        println!(
            "BLAKE3 {blake3:.2} GB/s, SHA-256 {sha256:.2} GB/s, ratio {:.2}",
            blake3 / sha256
        );
    }
}
