//! One tar header block: fixed fields, octal or base-256 numbers, a checksum.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use crate::error::TarError;

/// Length of a tar block, in bytes.
pub(crate) const TAR_BLOCK: usize = 512;

/// A header block whose checksum has been verified.
pub(crate) struct Header<'a>(&'a [u8; TAR_BLOCK]);

/// Which dialect a header is in: it decides what stands behind the fields of 1979.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// No magic.
    V7,
    /// POSIX: a path prefix of up to 155 bytes.
    Ustar,
    /// Schily's: a prefix of up to 131 bytes.
    Star,
    /// GNU: no prefix, sparse map instead.
    Gnu,
}

/// The bytes up to the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.get(..len).unwrap_or_default()
}

/// Bytes for an error message: escaped and cut.
pub(crate) fn readable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().chars().take(200).collect()
}

/// Reads a numeric field: octal text padded by spaces or NULs, or base-256 where the top bit is set.
pub(crate) fn number(field: &'static str, bytes: &[u8]) -> Result<i64, TarError> {
    let error = || TarError::Number {
        field,
        value: readable(bytes),
    };
    if let Some((&first, rest)) = bytes.split_first()
        && first & 0x80 != 0
    {
        // Two's complement, big endian, without the marking bit; the next bit is the sign.
        let negative = first & 0x40 != 0;
        let start = if negative {
            i128::from(first | 0x80).wrapping_sub(0x100)
        } else {
            i128::from(first & 0x7f)
        };
        let value = rest.iter().try_fold(start, |value, &byte| {
            value
                .checked_mul(256)
                .and_then(|shifted| shifted.checked_add(i128::from(byte)))
        });
        return value
            .and_then(|value| i64::try_from(value).ok())
            .ok_or_else(error);
    }
    let text = until_nul(bytes).trim_ascii();
    text.iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => {
            let shifted = value.checked_mul(8).ok_or_else(error)?;
            shifted
                .checked_add(i64::from(digit.wrapping_sub(b'0')))
                .ok_or_else(error)
        }
        _ => Err(error()),
    })
}

/// Reads a numeric field that cannot be negative.
pub(crate) fn unsigned(field: &'static str, bytes: &[u8]) -> Result<u64, TarError> {
    let value = number(field, bytes)?;
    u64::try_from(value).map_err(|_| TarError::Number {
        field,
        value: value.to_string(),
    })
}

/// Reads a numeric field of 32 bits: an owner, or a device number.
pub(crate) fn unsigned32(field: &'static str, bytes: &[u8]) -> Result<u32, TarError> {
    let value = number(field, bytes)?;
    u32::try_from(value).map_err(|_| TarError::Number {
        field,
        value: value.to_string(),
    })
}

impl<'a> Header<'a> {
    /// Checks the checksum. Some old tars summed signed bytes; both sums are taken.
    pub(crate) fn new(block: &'a [u8; TAR_BLOCK]) -> Result<Header<'a>, TarError> {
        let header = Header(block);
        let expected = unsigned("checksum", header.field(148, 8))?;
        let (mut sum, mut signed) = (0_u64, 0_i64);
        for (place, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&place) { b' ' } else { byte };
            sum = sum.wrapping_add(u64::from(byte));
            signed = signed.wrapping_add(i64::from(byte.cast_signed()));
        }
        if sum == expected || i64::try_from(expected).is_ok_and(|expected| expected == signed) {
            return Ok(header);
        }
        Err(TarError::Checksum {
            actual: sum,
            expected,
        })
    }

    /// `len` bytes from `offset`; both are constants within the block.
    fn field(&self, offset: usize, len: usize) -> &'a [u8] {
        let end = offset.saturating_add(len);
        self.0.get(offset..end).unwrap_or_default()
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match (self.field(257, 8), self.field(508, 4)) {
            (b"ustar  \0", _) => Dialect::Gnu,
            ([b'u', b's', b't', b'a', b'r', 0, ..], b"tar\0") => Dialect::Star,
            ([b'u', b's', b't', b'a', b'r', 0, ..], _) => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    /// The path, with the dialect's prefix before it.
    pub(crate) fn path(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Ustar => until_nul(self.field(345, 155)),
            Dialect::Star => until_nul(self.field(345, 131)),
            Dialect::Gnu | Dialect::V7 => b"",
        };
        let name = until_nul(self.field(0, 100));
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(crate) fn mode(&self) -> Result<u16, TarError> {
        let mode = unsigned("mode", self.field(100, 8))?;
        // Some tars keep the file type above the permission bits.
        u16::try_from(mode & 0o7777).map_err(|_| TarError::Number {
            field: "mode",
            value: mode.to_string(),
        })
    }

    pub(crate) fn uid(&self) -> Result<u32, TarError> {
        unsigned32("uid", self.field(108, 8))
    }

    pub(crate) fn gid(&self) -> Result<u32, TarError> {
        unsigned32("gid", self.field(116, 8))
    }

    pub(crate) fn size(&self) -> Result<u64, TarError> {
        unsigned("size", self.field(124, 12))
    }

    pub(crate) fn mtime(&self) -> Result<i64, TarError> {
        number("mtime", self.field(136, 12))
    }

    pub(crate) fn typeflag(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    pub(crate) fn link_path(&self) -> &'a [u8] {
        until_nul(self.field(157, 100))
    }

    /// Device numbers are empty in V7 headers.
    pub(crate) fn device(&self) -> Result<(u32, u32), TarError> {
        Ok((
            unsigned32("devmajor", self.field(329, 8))?,
            unsigned32("devminor", self.field(337, 8))?,
        ))
    }

    /// GNU sparse: the four entries that the header has room for, whether more follow, and the file's real size.
    pub(crate) fn gnu_sparse(&self) -> Result<(&'a [u8], bool, u64), TarError> {
        let extended = self.field(482, 1) != [0];
        Ok((
            self.field(386, 96),
            extended,
            unsigned("realsize", self.field(483, 12))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_reads_octal_and_base_256() {
        assert_eq!(number("t", b"0000644\0"), Ok(0o644));
        assert_eq!(number("t", b"   17 \0\0"), Ok(0o17));
        assert_eq!(number("t", b"\0\0\0"), Ok(0));
        assert_eq!(number("t", &[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(number("t", &[0xff; 12]), Ok(-1));
        assert_eq!(
            number("t", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
            Ok(-256)
        );
        assert!(number("t", b"12x").is_err());
        assert!(
            number(
                "t",
                &[
                    0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
                ]
            )
            .is_err()
        );
        assert!(unsigned("t", &[0xff; 12]).is_err());
        assert!(unsigned32("t", &[0x80, 0, 0, 1, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn header_refuses_a_wrong_checksum() {
        let block = [b'x'; TAR_BLOCK];
        assert!(Header::new(&block).is_err());
        let mut block = [0; TAR_BLOCK];
        block[..4].copy_from_slice(b"name");
        block[148..154].copy_from_slice(b"000001");
        assert!(matches!(
            Header::new(&block),
            Err(TarError::Checksum { expected: 1, .. })
        ));
    }
}
