//! PAX extended headers: `LEN KEYWORD=VALUE\n` records that override or add to the next header.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use base64::Engine as _;
use firebrick_tree::{Timestamp, Xattrs};

use super::acl;
use super::header::readable;
use crate::error::TarError;

/// Longest name of an extended attribute, with its namespace (`XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;

/// What an extended header says about the entry that follows it.
#[derive(Default, Debug)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link_path: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) device: (Option<u32>, Option<u32>),
    pub(crate) xattrs: Xattrs,
    /// The permission bits that an access control list given as text asks for.
    pub(crate) acl_mode: Option<u16>,
    /// The vendor record by which our own tars mark a socket, for which tar has no type.
    pub(crate) is_socket: bool,
    pub(crate) sparse: PaxSparse,
}

/// The `GNU.sparse.…` records of the three PAX sparse formats.
#[derive(Default, Debug)]
pub(crate) struct PaxSparse {
    /// Format 1.0 and above: the map stands in front of the data.
    pub(crate) major: Option<u64>,
    /// The file's real name in formats 0.1 and 1.0.
    pub(crate) name: Option<Vec<u8>>,
    /// The file's real length.
    pub(crate) real_size: Option<u64>,
    /// Format 0.0 and 0.1: offset and length of each part, as text in order.
    pub(crate) map: Option<Vec<u64>>,
}

impl Pax {
    /// Adds the records of one extended header.
    pub(crate) fn parse(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        // Some tars pad the records with NULs.
        while records.first().is_some_and(|&byte| byte != 0) {
            let error = || TarError::Pax {
                near: readable(records),
            };
            let space = records
                .iter()
                .take(20)
                .position(|&byte| byte == b' ')
                .ok_or_else(error)?;
            let (digits, _) = records.split_at_checked(space).ok_or_else(error)?;
            let len = decimal("record length", digits)?;
            let len = usize::try_from(len).map_err(|_| error())?;
            let (record, rest) = records.split_at_checked(len).ok_or_else(error)?;
            let body = record.get(space.saturating_add(1)..).ok_or_else(error)?;
            let body = body.strip_suffix(b"\n").ok_or_else(error)?;
            let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(error)?;
            let (keyword, value) = body.split_at_checked(equals).ok_or_else(error)?;
            self.take(keyword, value.get(1..).unwrap_or_default())?;
            records = rest;
        }
        Ok(())
    }

    /// An empty value means: as if the record were not there.
    fn take(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), TarError> {
        let some = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
        let number = |field| (!value.is_empty()).then(|| decimal(field, value)).transpose();
        let narrow = |field| match number(field)?.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(TarError::Number {
                field,
                value: readable(value),
            }),
        };
        match keyword {
            b"path" => self.path = some(value),
            b"linkpath" => self.link_path = some(value),
            b"size" => self.size = number("size")?,
            b"uid" => self.uid = narrow("uid")?,
            b"gid" => self.gid = narrow("gid")?,
            b"mtime" => self.mtime = (!value.is_empty()).then(|| timestamp(value)).transpose()?,
            b"SCHILY.devmajor" => self.device.0 = narrow("SCHILY.devmajor")?,
            b"SCHILY.devminor" => self.device.1 = narrow("SCHILY.devminor")?,
            b"FIREBRICK.type" => self.is_socket = value == b"socket",
            b"SCHILY.acl.access" => self.acl_mode = self.take_acl(b"system.posix_acl_access", value)?,
            b"SCHILY.acl.default" => {
                self.take_acl(b"system.posix_acl_default", value)?;
            }
            b"GNU.sparse.major" => self.sparse.major = number("GNU.sparse.major")?,
            b"GNU.sparse.name" => self.sparse.name = some(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = number("GNU.sparse.realsize")?
            }
            b"GNU.sparse.map" => {
                let parts = value.split(|&byte| byte == b',').filter(|text| !text.is_empty());
                self.sparse.map = Some(
                    parts
                        .map(|text| decimal("GNU.sparse.map", text))
                        .collect::<Result<_, _>>()?,
                );
            }
            // Format 0.0 repeats these two for each part.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let value = decimal("GNU.sparse.offset", value)?;
                self.sparse.map.get_or_insert_default().push(value);
            }
            _ => self.take_xattr(keyword, value)?,
        }
        Ok(())
    }

    fn take_xattr(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), TarError> {
        let (name, value) = if let Some(name) = keyword.strip_prefix(b"SCHILY.xattr.") {
            (name.to_vec(), value.to_vec())
        } else if let Some(name) = keyword.strip_prefix(b"LIBARCHIVE.xattr.") {
            let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
            let bare: Vec<u8> = value
                .iter()
                .copied()
                .filter(|&byte| byte != b'=' && !byte.is_ascii_whitespace())
                .collect();
            let value = engine.decode(bare).map_err(|_| TarError::Pax {
                near: readable(keyword),
            })?;
            (percent_decoded(name), value)
        } else {
            return Ok(());
        };
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return Err(TarError::XattrName {
                name: readable(&name),
            });
        }
        // libarchive writes both spellings; the values are the same.
        self.xattrs.insert(name.into(), value.into());
        Ok(())
    }

    /// Yields the permission bits that the list asks for.
    fn take_acl(&mut self, name: &[u8], value: &[u8]) -> Result<Option<u16>, TarError> {
        if value.is_empty() {
            return Ok(None);
        }
        let list = acl::from_text(value)?;
        // For a folder's default list, three entries are a list all the same.
        if !list.is_minimal || name == b"system.posix_acl_default" {
            self.xattrs.insert(name.into(), list.xattr.into());
        }
        Ok(list.mode)
    }

    /// How many bytes this holds in memory, roughly.
    pub(crate) fn metadata_len(&self) -> usize {
        let xattrs: usize = self
            .xattrs
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()))
            .sum();
        xattrs.saturating_add(self.path.as_ref().map_or(0, Vec::len))
    }
}

/// A non-negative decimal number.
fn decimal(field: &'static str, text: &[u8]) -> Result<u64, TarError> {
    let error = || TarError::Number {
        field,
        value: readable(text),
    };
    let text = std::str::from_utf8(text).map_err(|_| error())?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

/// `-12.75` is 13 seconds before the epoch and 0.25 seconds on.
fn timestamp(text: &[u8]) -> Result<Timestamp, TarError> {
    let error = || TarError::Number {
        field: "mtime",
        value: readable(text),
    };
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut halves = digits.splitn(2, |&byte| byte == b'.');
    let whole = decimal("mtime", halves.next().unwrap_or_default())?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(error());
    }
    let nanoseconds = (0..9).fold(0_u32, |value, place| {
        let digit = fraction.get(place).map_or(0, |digit| digit.wrapping_sub(b'0'));
        value.wrapping_mul(10).wrapping_add(u32::from(digit))
    });
    let whole = i64::try_from(whole).map_err(|_| error())?;
    Ok(match (negative, nanoseconds) {
        (false, nanoseconds) => Timestamp {
            seconds: whole,
            nanoseconds,
        },
        (true, 0) => Timestamp {
            seconds: whole.wrapping_neg(),
            nanoseconds: 0,
        },
        (true, nanoseconds) => Timestamp {
            seconds: whole.wrapping_neg().checked_sub(1).ok_or_else(error)?,
            nanoseconds: 1_000_000_000_u32.wrapping_sub(nanoseconds),
        },
    })
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push((high << 4) | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
        let mut len = keyword.len() + value.len() + 3;
        while len.to_string().len() + keyword.len() + value.len() + 3 > len {
            len += 1;
        }
        [format!("{len} {keyword}=").as_bytes(), value, b"\n"].concat()
    }

    fn parsed(records: &[(&str, &[u8])]) -> Result<Pax, TarError> {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(keyword, value)| record(keyword, value))
            .collect();
        let mut pax = Pax::default();
        pax.parse(&bytes).map(|()| pax)
    }

    #[test]
    fn times_keep_nanoseconds_and_sign() {
        let time = |text: &str| timestamp(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(time("1350244992.023960108"), Ok((1_350_244_992, 23_960_108)));
        assert_eq!(time("-12.75"), Ok((-13, 250_000_000)));
        assert_eq!(time("-1"), Ok((-1, 0)));
        assert_eq!(time("5.1234567891"), Ok((5, 123_456_789)));
        assert!(time("1e9").is_err());
        assert!(time("99999999999999999999").is_err());
    }

    #[test]
    fn xattrs_of_both_spellings() {
        let pax = parsed(&[
            ("SCHILY.xattr.user.a", b"one\ntwo\0="),
            ("LIBARCHIVE.xattr.user.b%20c", b"aGk="),
            ("comment", b"ignored"),
        ])
        .unwrap();
        let shown: Vec<_> = pax.xattrs.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            shown,
            [(&b"user.a"[..], &b"one\ntwo\0="[..]), (b"user.b c", b"hi")]
        );
        assert!(parsed(&[("SCHILY.xattr.", b"x")]).is_err());
    }

    #[test]
    fn access_lists_decide_the_permission_bits() {
        let list = b"user::rwx,group::r-x,other::---";
        let pax = parsed(&[("SCHILY.acl.access", list), ("SCHILY.acl.default", list)]).unwrap();
        let names: Vec<_> = pax.xattrs.keys().map(|name| &**name).collect();
        assert_eq!(
            (pax.acl_mode, names),
            (Some(0o750), vec![&b"system.posix_acl_default"[..]])
        );
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            &b"5 a\n"[..],
            b"99 path=x\n",
            b"x path=x\n",
            b"0 path=x\n",
            b"9 path=xy",
            b"3 =\n",
        ] {
            assert!(Pax::default().parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(parsed(&[("size", b"-1")]).is_err());
        assert!(parsed(&[("uid", b"4294967296")]).is_err());
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let pax = parsed(&[("path", b"a"), ("path", b""), ("size", b"")]).unwrap();
        assert_eq!((pax.path, pax.size), (None, None));
    }
}
