//! Values that have no type of their own: numbers with units, paths, names of variables and packages.

/// `0644` or `755`, octal.
pub(crate) fn mode(text: &str) -> Result<u16, String> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let value = u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o7777);
    value.ok_or_else(|| format!("{text:?} is no mode: expected octal digits such as \"0644\""))
}

/// `512`, `512M`, `2GiB`: a number and a unit as `--size` takes them.
pub(crate) fn size(text: &str) -> Result<(), String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let units = [
        "", "b", "k", "kb", "kib", "m", "mb", "mib", "g", "gb", "gib", "t", "tb", "tib",
    ];
    match digits.parse::<u64>().is_ok() && units.contains(&unit.as_str()) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is no size: expected MiB, or a number with a unit such as \"2G\""
        )),
    }
}

/// `90`, `90s`, `5m`, `1h`, in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let value = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    value
        .filter(|seconds| (1..=86_400).contains(seconds))
        .ok_or_else(|| {
            format!("{text:?} is no time: expected seconds up to a day, or \"90s\", \"5m\", \"1h\"")
        })
}

/// A path from the root, whose leading slash is taken off.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let plain = !text.chars().any(char::is_control) && text.len() < 4096;
    let rest = text.strip_prefix('/').filter(|_| plain);
    let steps = |rest: &str| {
        rest.split('/')
            .any(|name| name == ".." || name == "." || name.len() > 255)
    };
    match rest {
        Some(rest) if !steps(rest) && !rest.trim_matches('/').is_empty() => {
            let folder = if rest.ends_with('/') { "/" } else { "" };
            let names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty()).collect();
            Ok(names.join("/") + folder)
        }
        _ => Err(format!(
            "{text:?} is no path in the image: expected one that begins with / and has no . or .. in it"
        )),
    }
}

/// The name of an environment variable.
pub(crate) fn variable(name: &str) -> Result<(), String> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match first
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no variable: expected letters, digits and _, a letter or _ first"
        )),
    }
}

/// A package's name, maybe with a version or architecture.
pub(crate) fn package(name: &str) -> Result<(), String> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.:_~=<>-".contains(&byte);
    // apt takes a minus behind a name for the wish that it be removed.
    match first && name.len() <= 128 && name.bytes().all(plain) && !name.ends_with('-') {
        true => Ok(()),
        false => Err(format!("{name:?} is no package")),
    }
}

/// `user`, `uid`, `user:group`.
pub(crate) fn owner(text: &str) -> Result<firebrick_customise::Owner, String> {
    let is_name = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && part.len() <= 32 && !part.starts_with('-') && part.bytes().all(plain)
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    match is_name(user) && group.is_none_or(is_name) {
        true => Ok(firebrick_customise::Owner {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        }),
        false => Err(format!(
            "{text:?} is no owner: expected USER, UID, USER:GROUP or UID:GID"
        )),
    }
}

/// A line of `/etc/fstab`.
pub(crate) fn fstab(line: &str) -> Result<(), String> {
    let fields = line.split_ascii_whitespace().count();
    let numbers = line
        .split_ascii_whitespace()
        .skip(4)
        .all(|field| field.parse::<u8>().is_ok());
    match (4..=6).contains(&fields) && numbers && !line.chars().any(|c| c.is_control() && c != '\t') {
        true => Ok(()),
        false => Err(format!(
            "{line:?} is no line of fstab: expected device, folder, type, options and two numbers, as \"/dev/vda / ext4 defaults 0 1\""
        )),
    }
}

/// The name of an image.
pub(crate) fn image_name(name: &str) -> Result<(), String> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match first && name.len() <= 100 && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name of an image: expected letters, digits, '.', '_' and '-'"
        )),
    }
}

/// Text without control characters.
pub(crate) fn plain(text: &str) -> Result<(), String> {
    match text.chars().any(char::is_control) {
        true => Err(format!("{text:?} has a control character in it")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_what_is_none() {
        assert_eq!(mode("0644"), Ok(0o644));
        assert_eq!(mode("4755"), Ok(0o4755));
        for text in ["", "648", "77777", "0o644", "+644", "-1"] {
            assert!(mode(text).is_err(), "{text}");
        }
        for text in ["512", "2G", "2GiB", "100mib"] {
            assert!(size(text).is_ok(), "{text}");
        }
        for text in ["", "G", "2X", "-1", "1.5G", "2 G"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            (seconds("90"), seconds("5m"), seconds("1h")),
            (Ok(90), Ok(300), Ok(3600))
        );
        for text in ["", "m", "0", "5x", "25h", "18446744073709551615h"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(path("/a//b/"), Ok("a/b/".to_owned()));
        for text in ["", "/", "a", "/a/../b", "/./a", "/a\n", "//"] {
            assert!(path(text).is_err(), "{text}");
        }
        for name in ["", "-x", "a b", "$(id)", "--allow-untrusted"] {
            assert!(package(name).is_err(), "{name}");
        }
        assert!(package("g++").is_ok() && package("libc6:arm64").is_ok() && package("py3-pip>1").is_ok());
        assert!(owner("app:app").is_ok() && owner("1000").is_ok());
        assert!(owner("a:").is_err() && owner("a b").is_err() && owner("-r").is_err());
        assert!(fstab("/dev/vda / ext4 defaults 0 1").is_ok());
        assert!(fstab("/dev/vda /").is_err() && fstab("/dev/vda / ext4 defaults 0 1\nx").is_err());
    }
}
