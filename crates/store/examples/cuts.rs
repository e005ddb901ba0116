//! What the second of two images costs, for several ways to cut: `cuts FIRST SECOND…`.
//!
//! Prints a line per second image and way: bytes of the image that is not a hole, chunks, new chunks, new bytes, new bytes
//! compressed, and what the changed part of a table of 48 bytes an entry takes.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::collections::HashSet;
use std::fs::File;
use std::io;

use firebrick_digest::Digest;
use firebrick_store::{Cuts, Piece, cut};

fn main() -> io::Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [first, seconds @ ..] = &paths[..] else {
        return Err(io::Error::other("usage: cuts FIRST SECOND…"));
    };
    let one = |min, one_in, max| Cuts {
        min,
        one_in,
        max,
        hole: 4,
    };
    let ways = [
        ("fixed 64 KiB", one(16, 0, 16)),
        ("fixed 512 KiB", one(128, 0, 128)),
        ("content 4/16/64 KiB", one(1, 4, 16)),
        ("content 8/16/128 KiB", one(2, 4, 32)),
        ("content 8/32/128 KiB", one(2, 8, 32)),
        ("content 16/64/256 KiB", one(4, 16, 64)),
        ("content 32/128/512 KiB", one(8, 32, 128)),
        ("content 64/256/1024 KiB", one(16, 64, 256)),
    ];
    println!(
        "{:<40} {:<24} {:>9} {:>8} {:>8} {:>10} {:>10} {:>9}",
        "image", "cuts", "data KiB", "chunks", "new", "new KiB", "sent KiB", "table KiB"
    );
    for (name, cuts) in ways {
        let mut known = HashSet::new();
        measure(first, name, cuts, &mut known)?;
        for second in seconds {
            measure(second, name, cuts, &mut known.clone())?;
        }
    }
    Ok(())
}

fn measure(path: &str, name: &str, cuts: Cuts, known: &mut HashSet<Digest>) -> io::Result<()> {
    let file = File::open(path)?;
    let (mut data, mut chunks, mut new, mut new_bytes, mut sent) = (0, 0, 0, 0, 0);
    let mut compressor = zstd::bulk::Compressor::new(3)?;
    let fixed = cuts.one_in == 0;
    let mut take = |piece: Piece<'_>| -> io::Result<()> {
        let Piece::Chunk(bytes) = piece else { return Ok(()) };
        data += bytes.len();
        chunks += 1;
        if known.insert(Digest::of(bytes)) {
            new += 1;
            new_bytes += bytes.len();
            sent += compressor.compress(bytes)?.len();
        }
        Ok(())
    };
    let len = file.metadata()?.len();
    if fixed {
        fixed_cut(&file, len, cuts.max * firebrick_store::BLOCK_LEN, &mut take)?;
    } else {
        cut(
            &file,
            len,
            cuts,
            || None,
            |window| window.pieces().try_for_each(&mut take),
        )?;
    }
    let short = path.rsplit('/').next().unwrap_or(path);
    println!(
        "{short:<40} {name:<24} {:>9} {chunks:>8} {new:>8} {:>10} {:>10} {:>9}",
        data >> 10,
        new_bytes >> 10,
        sent >> 10,
        (new * 48) >> 10
    );
    Ok(())
}

/// Chunks of one length from the image's start, as stores without cuts by content have them.
fn fixed_cut(
    file: &File,
    len: u64,
    chunk: usize,
    take: &mut impl FnMut(Piece<'_>) -> io::Result<()>,
) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut position = 0;
    while position < len {
        let want = usize::try_from(len - position).map_or(chunk, |left| left.min(chunk));
        let mut bytes = vec![0; want];
        file.read_exact_at(&mut bytes, position)?;
        if bytes.iter().any(|byte| *byte != 0) {
            take(Piece::Chunk(&bytes))?;
        }
        position += want as u64;
    }
    Ok(())
}
