//! RFC 3339 times, as OCI configs write `created`, in seconds since 1970.

/// Parses `2024-05-22T18:18:11.0123Z` or `2024-05-22T18:18:11+02:00`, dropping fractions of seconds. `None` if it is
/// no such time. A leap second counts as the second before it.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let separators = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if separators
        .iter()
        .any(|(at, set)| !bytes.get(*at).is_some_and(|byte| set.as_bytes().contains(byte)))
    {
        return None;
    }
    let number = |from: usize, to: usize| digits(bytes.get(from..to)?);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => 31,
    };
    let in_range = (1..=12).contains(&month)
        && (1..=month_days).contains(&day)
        && (hour, minute) <= (23, 59)
        && minute <= 59
        && second <= 60;
    let mut rest = bytes.get(19..)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = fraction.get(len..).filter(|_| len > 0)?;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let day_seconds = hour * 3600 + minute * 60 + second.min(59);
    in_range.then(|| days_since_1970(year, month, day) * 86_400 + day_seconds - offset)
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Days of the proleptic Gregorian calendar. Years are counted from March, so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse_rfc3339;

    #[test]
    fn times_of_real_configs() {
        // Expected values from `date -u -d TEXT +%s`.
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-05-22T18:18:11.012345678Z", 1_716_401_891),
            ("2024-02-29T23:59:60Z", 1_709_251_199),
            ("2000-03-01T00:00:00+02:00", 951_861_600),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
            ("1969-12-31T18:00:00-05:30", -1800),
        ] {
            assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2024-05-22",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+0200",
            "２024-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
