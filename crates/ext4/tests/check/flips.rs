//! Bytes of structures change at random: our verdict is that of `e2fsck`, and nothing panics or goes on for ever.
//!
//! More rounds, or others: `FIREBRICK_FLIPS=1000 FIREBRICK_SEED=7 cargo test -p firebrick-ext4 --test check flips`.

use firebrick_ext4::check::check;
use firebrick_ext4::read::ReadError;

use crate::image::Image;
use crate::made::{self, FILLING};
use crate::random::Random;

/// A piece of an image that is content, structures or nothing as a whole.
const PIECE: usize = 1024;

/// What `e2fsck` passes over, and readers do not: the level that a node of an extent tree says it has.
const STRICTER: &str = "eh_depth";

fn images() -> Vec<(&'static str, Image)> {
    let source = made::source();
    let by_mke2fs = [
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -g 1024 -N 512",
        "-t ext4 -b 4096 -N 512",
        "-t ext2 -b 1024 -N 512 -g 1024",
        "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^flex_bg,^resize_inode,^has_journal,sparse_super2 -I 128 -N 512",
    ];
    by_mke2fs
        .into_iter()
        .map(|arguments| (arguments, made::foreign(arguments, source.path())))
        .chain([("ours", made::ours())])
        .collect()
}

/// Bytes that are in structures, by their offset: not content, and not far from something that is not zero.
fn structures(image: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    for (index, piece) in image.chunks(PIECE).enumerate() {
        let content = piece.iter().filter(|byte| **byte == FILLING).count();
        if content >= 90 || piece.iter().all(|byte| *byte == 0) {
            continue;
        }
        let near = |at: usize| {
            let around = &piece[at.saturating_sub(8)..(at + 8).min(piece.len())];
            around.iter().any(|byte| !matches!(byte, 0 | 0xff))
        };
        offsets.extend(
            (0..piece.len())
                .filter(|at| near(*at) || at % 64 == 0)
                .map(|at| index * PIECE + at),
        );
    }
    offsets
}

fn change(bytes: &mut [u8], at: usize, random: &mut Random) {
    bytes[at] = match random.below(4) {
        0 => bytes[at] ^ (1 << random.below(8)),
        1 => random.byte(),
        2 => bytes[at].wrapping_add(1),
        _ => 0,
    };
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn one_byte_is_judged_as_e2fsck_does() {
    let rounds = setting("FIREBRICK_FLIPS", 40);
    let mut wrong = Vec::new();
    for (what, image) in images() {
        let good = image.bytes();
        let offsets = structures(&good);
        let mut random = Random::new(setting("FIREBRICK_SEED", 1));
        let path = image.beside("bad");
        for _ in 0..rounds {
            let mut bad = good.clone();
            let at = offsets[random.below(offsets.len())];
            change(&mut bad, at, &mut random);
            std::fs::write(&path, &bad).unwrap();
            let (code, said) = made::e2fsck(&path);
            let ours = check(&bad);
            let clean = ours.as_ref().is_ok_and(|report| report.is_clean());
            let text = ours.as_ref().map_or_else(ToString::to_string, |report| {
                let findings = report.findings.iter().map(ToString::to_string);
                findings.collect::<Vec<_>>().join("; ")
            });
            let case = || {
                let (block, byte) = (at / PIECE, at % PIECE);
                format!(
                    "{what}: KiB {block}, byte {byte}: {} became {}: e2fsck gave {code}: {said}\nours: {text}",
                    good[at], bad[at]
                )
            };
            // It does not always count what it would put right.
            let told = said.contains("Fix? no") || text.contains(STRICTER);
            if clean != (code == 0) && (clean || !told) {
                wrong.push(case());
            }
            let Some(report) = ours
                .ok()
                .filter(|report| !report.is_clean() && report.is_repairable())
            else {
                continue;
            };
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            report.repair(&file).unwrap();
            let (code, said) = made::e2fsck(&path);
            if code != 0 {
                wrong.push(format!("{}\nafter the repair: {said}", case()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn many_bytes_cost_no_more_than_findings() {
    for (_, image) in images() {
        let good = image.bytes();
        let offsets = structures(&good);
        let mut random = Random::new(3);
        for round in 0..400 {
            let mut bad = good.clone();
            for _ in 0..=random.below(40) {
                let at = offsets[random.below(offsets.len())];
                change(&mut bad, at, &mut random);
            }
            if round % 8 == 0 {
                bad.truncate(random.below(bad.len()));
            }
            match check(&bad) {
                Ok(report) if report.is_repairable() => {
                    let file = tempfile::tempfile().unwrap();
                    report.repair(&file).unwrap();
                }
                Ok(_) | Err(ReadError::Unsupported { .. } | ReadError::NeedsRecovery) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
