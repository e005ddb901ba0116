//! The half-MD4 hash that orders large directories (`fs/ext4/hash.c`, `DX_HASH_HALF_MD4_UNSIGNED`).
//!
//! Three rounds of eight steps of MD4 (RFC 1320) over 32 bytes of the name at a time.

/// Hash of a name: the index's key, and what orders names of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `EXT4_HTREE_EOF_32BIT`: stands for the end of a directory, so no name may have it.
const HTREE_EOF: u32 = 0x7fff_ffff;

/// Bytes of a name that one round of the hash takes.
const CHUNK: usize = 32;

/// Whether a name's bytes count as signed numbers, as they did where the filesystem was made on such a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signs {
    Signed,
    Unsigned,
}

pub(crate) fn half_md4(name: &[u8], seed: [u32; 4], signs: Signs) -> NameHash {
    let mut state = if seed == [0; 4] {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]
    } else {
        seed
    };
    let mut rest = name;
    // An empty name still takes no round, as in the kernel.
    while !rest.is_empty() {
        transform(&mut state, &chunk_words(rest, signs));
        rest = rest.get(CHUNK..).unwrap_or_default();
    }
    let major = state[1] & !1;
    let major = if major == HTREE_EOF << 1 {
        (HTREE_EOF - 1) << 1
    } else {
        major
    };
    NameHash {
        major,
        minor: state[2],
    }
}

/// Eight words of the name, filled up with its remaining length in every byte.
fn chunk_words(rest: &[u8], signs: Signs) -> [u32; 8] {
    let len = u32::try_from(rest.len()).expect("names have at most 255 bytes");
    let pad = len | (len << 8);
    let pad = pad | (pad << 16);
    let number = |byte: u8| match signs {
        Signs::Unsigned => u32::from(byte),
        Signs::Signed => i32::from(byte.cast_signed()).cast_unsigned(),
    };
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest[..rest.len().min(CHUNK)].chunks(4)) {
        *word = bytes
            .iter()
            .fold(pad, |value, &byte| (value << 8).wrapping_add(number(byte)));
    }
    words
}

fn transform(state: &mut [u32; 4], input: &[u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    let choose = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let majority = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let mut words = *state;
    let mut round =
        |mix: &dyn Fn(u32, u32, u32) -> u32, constant: u32, order: [usize; 8], shifts: [u32; 4]| {
            for (step, place) in order.into_iter().enumerate() {
                let [a, b, c, d] = words;
                let sum = a
                    .wrapping_add(mix(b, c, d))
                    .wrapping_add(input[place])
                    .wrapping_add(constant);
                words = [d, sum.rotate_left(shifts[step % 4]), b, c];
            }
        };
    round(&choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]);
    round(&majority, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]);
    round(&parity, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]);
    for (value, word) in state.iter_mut().zip(words) {
        *value = value.wrapping_add(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are `debugfs -R "dx_hash -h half_md4 NAME"` (e2fsprogs 1.47.0); for ASCII both signs agree.
    #[test]
    fn hashes_are_those_of_debugfs() {
        for (name, major, minor) in include!("hash/vectors.in") {
            assert_eq!(
                half_md4(name.as_bytes(), [0; 4], Signs::Unsigned),
                NameHash { major, minor },
                "{name:?}"
            );
        }
    }
}
