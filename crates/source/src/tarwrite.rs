//! Tar headers in one canonical form: ustar, and PAX records where ustar does not suffice.
//!
//! Format: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>; extended attributes as
//! `SCHILY.xattr.NAME`; a socket, which tar cannot carry, as a FIFO with `FIREBRICK.type=socket`.

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Folder,
    /// A file of this many bytes.
    File(u64),
    /// Another name for the entry named so.
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    /// Major and minor number.
    CharDevice((u32, u32)),
    /// Major and minor number.
    BlockDevice((u32, u32)),
    Fifo,
    Socket,
}

/// Extended attributes: names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry without its content.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The whole name; folders end with a slash.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_seconds: i64,
    /// Added to `mtime_seconds`, also before 1970.
    pub(crate) mtime_nanos: u32,
    pub(crate) xattrs: Xattrs,
}

const NAME_LEN: usize = 100;
const OCTAL_7: u64 = 0o777_7777;
const OCTAL_11: u64 = 0o777_7777_7777;

impl Header {
    /// Appends the header's blocks.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let records = self.records();
        if !records.is_empty() {
            let extension = Header {
                name: b"PaxHeaders.0/x".to_vec(),
                kind: Kind::File(records.len() as u64),
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime_seconds: 0,
                mtime_nanos: 0,
                xattrs: Vec::new(),
            };
            extension.write_block(b'x', out);
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        let flag = match self.kind {
            Kind::File(_) => b'0',
            Kind::Hardlink(_) => b'1',
            Kind::Symlink(_) => b'2',
            Kind::CharDevice(_) => b'3',
            Kind::BlockDevice(_) => b'4',
            Kind::Folder => b'5',
            Kind::Fifo | Kind::Socket => b'6',
        };
        self.write_block(flag, out);
    }

    fn link(&self) -> &[u8] {
        match &self.kind {
            Kind::Hardlink(target) | Kind::Symlink(target) => target,
            _ => &[],
        }
    }

    fn size(&self) -> u64 {
        match self.kind {
            Kind::File(size) => size,
            _ => 0,
        }
    }

    /// The PAX records, sorted by key but for `hdrcharset`, which readers want first.
    fn records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (long_name, long_link) = (self.name.len() > NAME_LEN, self.link().len() > NAME_LEN);
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        if long_name && !is_text(&self.name) || long_link && !is_text(self.link()) {
            record(&mut out, b"hdrcharset", b"BINARY");
        }
        if matches!(self.kind, Kind::Socket) {
            record(&mut out, b"FIREBRICK.type", b"socket");
        }
        for (key, value) in &self.xattrs {
            record(&mut out, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        if u64::from(self.gid) > OCTAL_7 {
            record(&mut out, b"gid", self.gid.to_string().as_bytes());
        }
        if long_link {
            record(&mut out, b"linkpath", self.link());
        }
        if self.mtime_nanos != 0 || !(0..=OCTAL_11 as i64).contains(&self.mtime_seconds) {
            record(
                &mut out,
                b"mtime",
                decimal_time(self.mtime_seconds, self.mtime_nanos).as_bytes(),
            );
        }
        if long_name {
            record(&mut out, b"path", &self.name);
        }
        if self.size() > OCTAL_11 {
            record(&mut out, b"size", self.size().to_string().as_bytes());
        }
        if u64::from(self.uid) > OCTAL_7 {
            record(&mut out, b"uid", self.uid.to_string().as_bytes());
        }
        out
    }

    fn write_block(&self, flag: u8, out: &mut Vec<u8>) {
        let (major, minor) = match self.kind {
            Kind::CharDevice(device) | Kind::BlockDevice(device) => device,
            _ => (0, 0),
        };
        let fits = |value: u64, max: u64| if value > max { 0 } else { value };
        let mtime = u64::try_from(self.mtime_seconds).unwrap_or(0);
        let mut block = [0; 512];
        text(&mut block[..NAME_LEN], &self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], fits(u64::from(self.uid), OCTAL_7));
        octal(&mut block[116..124], fits(u64::from(self.gid), OCTAL_7));
        octal(&mut block[124..136], fits(self.size(), OCTAL_11));
        octal(&mut block[136..148], fits(mtime, OCTAL_11));
        block[148..156].fill(b' ');
        block[156] = flag;
        text(&mut block[157..157 + NAME_LEN], self.link());
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
    }
}

/// Copies as much as fits; where it does not, a PAX record holds the whole.
fn text(field: &mut [u8], value: &[u8]) {
    let len = value.len().min(field.len());
    field[..len].copy_from_slice(&value[..len]);
}

/// Octal digits with leading zeros and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}\0");
    field.copy_from_slice(&text.as_bytes()[..field.len()]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds with a fraction and no zeros at its end; before 1970 the fraction counts away from zero.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{}", format!("{fraction:09}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        // From the PAX specification's rule: the decimal length counts itself, the space, '=' and newline.
        for (value_len, expected) in [
            (1, "6 a=x"),
            (3, "8 a=xxx"),
            (4, "9 a=xxxx"),
            (5, "11 a=xxxxx"),
            (6, "12 a=xxxxxx"),
        ] {
            let mut out = Vec::new();
            record(&mut out, b"a", &vec![b'x'; value_len]);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        }
        for len in 1..2000 {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; len]);
            let said: usize = String::from_utf8(out.clone())
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, out.len());
        }
    }

    #[test]
    fn times_before_1970_count_away_from_zero() {
        for (seconds, nanos, expected) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (1, 1, "1.000000001"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(decimal_time(seconds, nanos), expected);
        }
    }
}
