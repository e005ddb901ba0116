//! As much of DER as tells what kind of key a document holds. The keys that we use are compared whole, not parsed.

/// DER that is left to read.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

impl<'a> Reader<'a> {
    /// The content of the next element, if it has this tag.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => {
                let (bytes, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*bytes)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        if tag != wanted {
            return None;
        }
        self.0 = rest;
        Some(content)
    }
}

/// Names of algorithms and curves by their object identifiers.
const KINDS: [(&str, &str); 14] = [
    ("1.3.101.112", "an ed25519 key"),
    ("1.3.101.113", "an ed448 key"),
    ("1.3.101.110", "an X25519 key, which cannot sign"),
    ("1.3.101.111", "an X448 key, which cannot sign"),
    ("1.2.840.113549.1.1.1", "an RSA key"),
    ("1.2.840.113549.1.1.10", "an RSA-PSS key"),
    ("1.2.840.10040.4.1", "a DSA key"),
    ("1.2.840.10045.3.1.7", "an ECDSA P-256 key"),
    ("1.3.132.0.34", "an ECDSA P-384 key"),
    ("1.3.132.0.35", "an ECDSA P-521 key"),
    ("1.3.132.0.10", "an ECDSA secp256k1 key"),
    ("2.16.840.1.101.3.4.3.17", "an ML-DSA-44 key"),
    ("2.16.840.1.101.3.4.3.18", "an ML-DSA-65 key"),
    ("2.16.840.1.101.3.4.3.19", "an ML-DSA-87 key"),
];
const ELLIPTIC: &str = "1.2.840.10045.2.1";

/// What kind of key a document holds, in words: a private key's (PKCS#8) or a public key's (SPKI). `None` if it is neither.
pub(crate) fn kind(document: &[u8]) -> Option<String> {
    let mut key = Reader(Reader(document).take(SEQUENCE)?);
    // A private key begins with the version of its format.
    let mut without_version = key;
    if without_version.take(INTEGER).is_some() {
        key = without_version;
    }
    let mut algorithm = Reader(key.take(SEQUENCE)?);
    let mut oid = dotted(algorithm.take(OBJECT)?)?;
    if oid == ELLIPTIC {
        match algorithm.take(OBJECT) {
            Some(curve) => oid = dotted(curve)?,
            None => return Some("an elliptic curve key without a named curve".to_owned()),
        }
    }
    let known = KINDS.iter().find(|(known, _)| *known == oid);
    Some(known.map_or_else(
        || format!("a key of the kind {oid}"),
        |(_, name)| (*name).to_owned(),
    ))
}

/// An object identifier as people write it; those that nobody uses for keys (long, or with large numbers) are none.
fn dotted(oid: &[u8]) -> Option<String> {
    const LEN_MAX: usize = 32;
    if oid.len() > LEN_MAX {
        return None;
    }
    let mut numbers = Vec::new();
    let mut number: u32 = 0;
    let mut open = false;
    for byte in oid {
        number = number.checked_mul(128)?.checked_add(u32::from(byte & 0x7f))?;
        open = byte & 0x80 != 0;
        if !open {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (&first, rest) = numbers.split_first()?;
    if open {
        return None;
    }
    // The first number holds two.
    let top = (first / 40).min(2);
    let second = first.checked_sub(top.checked_mul(40)?)?;
    let all = [top, second].into_iter().chain(rest.iter().copied());
    Some(all.map(|number| number.to_string()).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_written_with_dots() {
        for (bytes, text) in [
            (&[0x2b, 0x65, 0x70][..], Some("1.3.101.112")),
            (
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1],
                Some("1.2.840.113549.1.1.1"),
            ),
            (&[0x60, 0x86, 0x48], Some("2.16.840")),
            (&[0x88, 0x37], Some("2.999")),
            (&[], None),
            (&[0x2b, 0x80], None),
            (&[0xff, 0xff, 0xff, 0xff, 0x7f], None),
            (&[1; 33], None),
        ] {
            assert_eq!(dotted(bytes).as_deref(), text);
        }
    }

    #[test]
    fn lengths_that_lie_are_nothing() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81],
            &[0x30, 0x82, 0xff],
            &[0x30, 0x82, 0xff, 0xff, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 2, 0x30, 0],
            &[0x30, 4, 0x30, 2, 0x06, 0],
            &[0x31, 4, 0x30, 2, 0x06, 0],
        ] {
            assert_eq!(kind(bytes), None, "{bytes:?}");
        }
    }
}
