//! `crypt(5)`'s sha512crypt, so that a password that a user types becomes what `/etc/shadow` holds.
//!
//! The method: <https://www.akkadia.org/drepper/SHA-crypt.txt>, with its 5,000 rounds.

use sha2::{Digest as _, Sha512};

use crate::settings::PasswordHash;

const ROUNDS: usize = 5000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Hashes a password. The salt is 16 letters of crypt's alphabet, made from these random bytes.
pub fn sha512_crypt(password: &[u8], random: [u8; 16]) -> PasswordHash {
    let salt = random.map(|byte| ALPHABET[usize::from(byte % 64)]);
    let text = format!("$6${}${}", String::from_utf8_lossy(&salt), hash(password, &salt));
    text.parse().expect("it has the form that a hash has")
}

fn hash(key: &[u8], salt: &[u8]) -> String {
    let alternate = Sha512::new()
        .chain_update(key)
        .chain_update(salt)
        .chain_update(key)
        .finalize();
    let mut first = Sha512::new().chain_update(key).chain_update(salt);
    first.update(stretched(&alternate, key.len()));
    let mut bits = key.len();
    while bits > 0 {
        match bits & 1 {
            1 => first.update(alternate),
            _ => first.update(key),
        }
        bits >>= 1;
    }
    let mut last = first.finalize();
    let of_key = Sha512::digest(key.repeat(key.len()));
    let of_key = stretched(&of_key, key.len());
    let of_salt = Sha512::digest(salt.repeat(16 + usize::from(last[0])));
    let of_salt = stretched(&of_salt, salt.len());
    for round in 0..ROUNDS {
        let is_odd = round % 2 == 1;
        let mut next = Sha512::new();
        match is_odd {
            true => next.update(&of_key),
            false => next.update(last),
        }
        if round % 3 != 0 {
            next.update(&of_salt);
        }
        if round % 7 != 0 {
            next.update(&of_key);
        }
        match is_odd {
            true => next.update(last),
            false => next.update(&of_key),
        }
        last = next.finalize();
    }
    encoded(&last)
}

/// The digest again and again, `len` bytes of it.
fn stretched(digest: &[u8], len: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(len).collect()
}

/// Three bytes at a time, 21 apart and in turn, then the last one, six bits a letter, lowest first.
fn encoded(digest: &[u8]) -> String {
    let mut text = String::new();
    let mut letters = |mut bits: u32, count: usize| {
        for _ in 0..count {
            text.push(char::from(
                ALPHABET[usize::try_from(bits % 64).expect("below 64")],
            ));
            bits /= 64;
        }
    };
    let byte = |at: usize| u32::from(digest[at]);
    let (mut a, mut b, mut c) = (0, 21, 42);
    for _ in 0..21 {
        letters(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
        (a, b, c) = (b + 1, c + 1, a + 1);
    }
    letters(byte(63), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `openssl passwd -6 -salt saltstring`.
    #[test]
    fn hashes_are_those_of_openssl() {
        let long = "a very much longer text to encrypt.  This one even stretches over morethan one line. And it is over sixty four.";
        for (password, expected) in [
            (
                "Hello world!",
                "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            ),
            (
                "a",
                "MO53nAXQUKXVLlsbiXyPgMsR6q10N7eF7sPvanwdXnEeCj5kE3eYaRvFv0wVW1UZ4SnNTzc1v4OCOq1ASDQZY0",
            ),
            (
                long,
                "DTjKfi3jR7Gg3wsyyx61Fmzxniy5Umn8TKbPPyeTbq5RwB6792hDs1PCqIKk1bpIhu4cV8dokLdf7I400nZ.O1",
            ),
        ] {
            assert_eq!(hash(password.as_bytes(), b"saltstring"), expected, "{password}");
        }
        let made = sha512_crypt(b"secret", *b"0123456789abcdef");
        assert!(made.as_str().starts_with("$6$"), "{made}");
        assert_eq!(made.as_str().len(), 3 + 16 + 1 + 86);
    }
}
