//! The time of a set: what its files are given that are made while it is installed.
//!
//! The Release file of an archive says when it was made, in the form of a mail's date (RFC 5322); snapshots say it in the basic
//! form of ISO 8601. Both are in UTC.

/// `20250520T000000Z` in seconds since 1970.
pub(crate) fn parse_basic(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (day, clock) = text.split_once('T')?;
    if day.len() != 8 || clock.len() != 6 || !text.is_ascii() {
        return None;
    }
    seconds(
        number(&day[..4])?,
        number(&day[4..6])?,
        number(&day[6..])?,
        [number(&clock[..2])?, number(&clock[2..4])?, number(&clock[4..])?],
    )
}

/// `Sat, 17 May 2025 09:25:17 UTC` in seconds since 1970.
pub(crate) fn parse_mail(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_whitespace().skip(1);
    let day = number(words.next()?)?;
    let name = words.next()?;
    let month = (1..).zip(MONTHS).find(|(_, month)| *month == name)?.0;
    let year = number(words.next()?)?;
    let mut clock = words.next()?.split(':').map(number);
    let clock = [clock.next()??, clock.next()??, clock.next()??];
    match words.next()? {
        "UTC" | "GMT" | "+0000" => seconds(year, month, day, clock),
        _ => None,
    }
}

/// What stands behind a field's name at the start of a Release file, signed inline or not.
pub(crate) fn release_date(release: &str) -> Option<i64> {
    let dates = release.lines().filter_map(|line| line.strip_prefix("Date:"));
    dates.map(str::trim).find_map(parse_mail)
}

/// Seconds since 1970 as RFC 3339 has them.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1 March of the year 0, so that the day that leap years add is a year's last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        year + era * 400 + next,
        clock / 3_600,
        clock / 60 % 60,
        clock % 60
    )
}

fn number(digits: &str) -> Option<i64> {
    let all = !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

/// Seconds since 1970 of a moment in the calendar, if there is one.
fn seconds(year: i64, month: i64, day: i64, [hour, minute, second]: [i64; 3]) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of = |month| match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(month)).contains(&day)
        && (hour, minute, second) <= (23, 59, 60)
        && minute <= 59
        && second <= 60;
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
        + (1..month).map(days_of).sum::<i64>()
        + day
        - 1;
    valid.then_some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_moment_and_come_back() {
        // The numbers are of `date -u -d … +%s`.
        for (basic, mail, rfc, seconds) in [
            (
                "20250517T092517Z",
                "Sat, 17 May 2025 09:25:17 UTC",
                "2025-05-17T09:25:17Z",
                1_747_473_917,
            ),
            (
                "19700101T000000Z",
                "Thu, 01 Jan 1970 00:00:00 UTC",
                "1970-01-01T00:00:00Z",
                0,
            ),
            (
                "20240229T235959Z",
                "Thu, 29 Feb 2024 23:59:59 +0000",
                "2024-02-29T23:59:59Z",
                1_709_251_199,
            ),
            (
                "21000301T000000Z",
                "Mon, 1 Mar 2100 00:00:00 GMT",
                "2100-03-01T00:00:00Z",
                4_107_542_400,
            ),
        ] {
            assert_eq!(parse_basic(basic), Some(seconds), "{basic}");
            assert_eq!(parse_mail(mail), Some(seconds), "{mail}");
            assert_eq!(rfc3339(seconds), rfc);
        }
        for bad in [
            "",
            "Z",
            "20250229T000000Z",
            "20250101T240000Z",
            "20250101T000000",
            "2025é101T00000Z",
        ] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
        for bad in [
            "",
            "Sat, 17 May 2025 09:25:17 CEST",
            "Sat, 17 Mai 2025 09:25:17 UTC",
            "17 May 2025",
        ] {
            assert_eq!(parse_mail(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_release_file_is_found_out_whether_signed_inline_or_not() {
        let release = "Origin: Debian\nSuite: stable\nDate: Sat, 17 May 2025 09:25:17 UTC\nMD5Sum:\n";
        assert_eq!(release_date(release), Some(1_747_473_917));
        let inline = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{release}");
        assert_eq!(release_date(&inline), Some(1_747_473_917));
        assert_eq!(release_date("<html>Date: never</html>"), None);
    }
}
