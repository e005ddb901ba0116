//! Numbers and tables for people, and numbers from people.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// `512 B`, `9.4 KiB`, `12.0 MiB`, `1.3 GiB`, `2.0 TiB`.
pub(crate) fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..KIB => return format!("{count} B"),
        KIB..MIB => (KIB, "KiB"),
        MIB..GIB => (MIB, "MiB"),
        GIB..TIB => (GIB, "GiB"),
        _ => (TIB, "TiB"),
    };
    let tenths = (u128::from(count) * 10 + u128::from(unit) / 2) / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// As [`bytes`], of a length in memory.
pub(crate) fn bytes_of(len: usize) -> String {
    bytes(u64::try_from(len).unwrap_or(u64::MAX))
}

/// `32 ms`, `1.8 s`, `2 min 5 s`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        secs => format!("{} min {} s", secs / 60, secs % 60),
    }
}

/// `just now`, `12 min ago`, `3 h ago`, `40 days ago`.
pub(crate) fn ago(time: Duration) -> String {
    match time.as_secs() {
        0..60 => "just now".to_owned(),
        secs @ 60..3600 => format!("{} min ago", secs / 60),
        secs @ 3600..172_800 => format!("{} h ago", secs / 3600),
        secs => format!("{} days ago", secs / 86_400),
    }
}

/// Seconds since 1970, negative before.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
    }
}

/// `2024-02-29 12:00` in UTC, of seconds since 1970.
pub(crate) fn utc(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        second / 3600,
        second / 60 % 60
    )
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years here begin in March, so that the leap day is
/// their last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_400_YEARS: i64 = 146_097;
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(DAYS_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// `4,411`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 layer`, `3 layers`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Columns aligned with two spaces between them, no trailing blanks, one line a row.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ").expect("writing to a String cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Indented JSON and a newline.
pub(crate) fn json_line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("our values have string keys only");
    bytes.push(b'\n');
    bytes
}

/// A size from the command line: a bare number is MiB, and `K`, `M`, `G`, `T` (also as `KiB`…) and `B` are units of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits_len);
    let number: u64 = digits.parse().map_err(|_| expected(text))?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "m" | "mb" | "mib" => MIB,
        "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "g" | "gb" | "gib" => GIB,
        "t" | "tb" | "tib" => TIB,
        _ => return Err(expected(text)),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text} is too large"))
}

/// A path as a word of a command for a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&byte);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// What is UTF-8; the bytes of what is not.
pub(crate) fn utf8(value: OsString) -> Result<String, Vec<u8>> {
    value.into_string().map_err(OsString::into_encoded_bytes)
}

fn expected(text: &str) -> String {
    format!("{text:?} is no size: expected a number of MiB, or one with K, M, G or T behind it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_to_a_tenth() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12 * MIB + 52_000, "12.0 MiB"),
            (12 * MIB + 53_000, "12.1 MiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn grouped_sets_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (4411, "4,411"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn parse_size_takes_mib_and_units() {
        for (text, size) in [
            ("200", 200 * MIB),
            ("1G", GIB),
            ("512 MiB", 512 * MIB),
            ("64k", 64 * KIB),
            ("157286400B", 150 * MIB),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "auto", "-1", "1.5G", "12X", "99999999999T", "M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quoted_is_one_word_for_a_shell() {
        for (path, word) in [
            ("/a/b-c.key", "/a/b-c.key"),
            ("my key", "'my key'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("~/x", "'~/x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }

    #[test]
    fn utc_knows_leap_days_and_times_before_1970() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (1_709_208_000, "2024-02-29 12:00"),
            (4_107_542_400, "2100-03-01 00:00"),
            (-62_135_596_800, "0001-01-01 00:00"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn table_aligns_and_trims() {
        let rows =
            [["LANGUAGE", "SIZE", ""], ["go", "1.0 MiB", "x"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "LANGUAGE  SIZE\ngo        1.0 MiB  x\n");
    }
}
