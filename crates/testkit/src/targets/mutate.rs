//! Damage, the same on every run: what stands in for a fuzzer where there is none.

/// splitmix64; the same seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit` (which must not be 0).
    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit as u64) as usize
    }
}

/// Values at which arithmetic breaks.
const EDGES: [u64; 8] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Damages `bytes` in one to eight places: flips, edge values, copies of other places, cuts and insertions.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            bytes.push(random.draw() as u8);
        }
        let at = random.below(bytes.len());
        let len = (1 + random.below(16)).min(bytes.len() - at);
        match random.below(12) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 | 4 => bytes[at] = random.draw() as u8,
            5 | 6 => {
                let edge = EDGES[random.below(EDGES.len())];
                let edge = if random.below(2) == 0 {
                    edge.to_le_bytes()
                } else {
                    edge.to_be_bytes()
                };
                let width = [1, 2, 4, 8][random.below(4)].min(len);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            7 => bytes[at..at + len].fill([0, b'0', b'7', 0xff][random.below(4)]),
            8 => {
                let from = random.below(bytes.len() - len + 1);
                bytes.copy_within(from..from + len, at);
            }
            9 => drop(bytes.drain(at..at + len)),
            10 => {
                let copy = bytes[at..at + len].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Gives every 512-byte block of `bytes` that looks like a tar header the checksum that it needs, so that damage gets
/// past the first check.
pub fn mend_tar(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
