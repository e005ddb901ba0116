//! SQLite, as far as it takes to read the rows of one table: the schema, the table's B-tree, and records with their overflow pages.
//!
//! Nothing is trusted: a page is visited once, a row is no longer than it may be, and where something does not fit, that part is
//! left out. What a journal beside the file holds is not seen.
//!
//! Format: <https://www.sqlite.org/fileformat2.html>

/// Longest row, in bytes.
const ROW_MAX: usize = 16 << 20;

/// What a database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes in front of the first page's own header.
const HEADER: usize = 100;

/// Types of pages of a table.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// A database in memory.
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    page_len: usize,
    /// Bytes of a page that are in use: some keep a few for themselves.
    usable: usize,
}

/// A value of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Null, and floating point numbers, which nobody here asks for.
    Other,
    Integer(i64),
    /// A text or a blob.
    Bytes(Vec<u8>),
}

impl<'a> Database<'a> {
    /// `None` where it is no database.
    pub(super) fn open(bytes: &'a [u8]) -> Option<Database<'a>> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let page_len = match number(bytes, 16, 2)? {
            1 => 65_536,
            len => len,
        };
        let kept = number(bytes, 20, 1)?;
        let usable = page_len.checked_sub(kept)?;
        (page_len.is_power_of_two() && page_len >= 512 && usable >= 480).then_some(Database {
            bytes,
            page_len,
            usable,
        })
    }

    /// Gives every row of a table; `false` where there is no such table.
    pub(super) fn each_row(&self, table: &str, each: &mut dyn FnMut(&[Value])) -> bool {
        let mut root = None;
        self.walk(1, &mut |row| {
            if let [
                Value::Bytes(kind),
                Value::Bytes(name),
                _,
                Value::Integer(page),
                ..,
            ] = row
                && kind == b"table"
                && name == table.as_bytes()
            {
                root = usize::try_from(*page).ok();
            }
        });
        root.inspect(|root| self.walk(*root, each)).is_some()
    }

    /// A page by its number, from 1.
    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_sub(1)?.checked_mul(self.page_len)?;
        self.bytes.get(start..start.checked_add(self.page_len)?)
    }

    /// Gives the rows of the tree at a page, in order.
    fn walk(&self, root: usize, each: &mut dyn FnMut(&[Value])) {
        let pages = self.bytes.len().checked_div(self.page_len).unwrap_or(0);
        let mut seen = vec![false; pages.saturating_add(1)];
        let mut todo = vec![root];
        // All rows together are no longer than the file, unless they lie over one another.
        let mut left = self.bytes.len();
        while let Some(number) = todo.pop() {
            match seen.get_mut(number) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            let Some(page) = self.page(number) else { continue };
            let start = if number == 1 { HEADER } else { 0 };
            match page.get(start) {
                Some(&INTERIOR) => todo.extend(self.below(page, start).into_iter().rev()),
                Some(&LEAF) => {
                    for cell in cells(page, start, 8) {
                        if let Some(row) = self.row(page, cell, &mut left) {
                            each(&row);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The pages below one, in order.
    fn below(&self, page: &[u8], start: usize) -> Vec<usize> {
        let mut pages: Vec<usize> = cells(page, start, 12)
            .filter_map(|cell| number(page, cell, 4))
            .collect();
        pages.extend(number(page, start.saturating_add(8), 4));
        pages
    }

    /// The row whose cell is at a place of a leaf.
    fn row(&self, page: &[u8], cell: usize, left: &mut usize) -> Option<Vec<Value>> {
        let mut at = cell;
        let len = usize::try_from(varint(page, &mut at)?)
            .ok()
            .filter(|len| *len <= ROW_MAX)?;
        *left = left.checked_sub(len)?;
        varint(page, &mut at)?;
        let local = self.local_len(len)?;
        let mut payload = page.get(at..at.checked_add(local)?)?.to_vec();
        let mut next = match local < len {
            true => number(page, at.checked_add(local)?, 4)?,
            false => 0,
        };
        while payload.len() < len {
            let page = self.page(next)?;
            next = number(page, 0, 4)?;
            let rest = len.saturating_sub(payload.len());
            let content = page.get(4..self.usable)?;
            payload.extend_from_slice(content.get(..rest).unwrap_or(content));
        }
        record(&payload)
    }

    /// How much of a row of this length lies in its leaf.
    fn local_len(&self, len: usize) -> Option<usize> {
        let most = self.usable.checked_sub(35)?;
        if len <= most {
            return Some(len);
        }
        let least = (self.usable.checked_sub(12)?.checked_mul(32)? / 255).checked_sub(23)?;
        let rest = len.checked_sub(least)?.checked_rem(self.usable.checked_sub(4)?)?;
        let fitting = least.checked_add(rest)?;
        Some(if fitting <= most { fitting } else { least })
    }
}

/// The places of a page's cells, whose list lies behind a header of this length.
fn cells(page: &[u8], start: usize, header_len: usize) -> impl Iterator<Item = usize> {
    let count = number(page, start.saturating_add(3), 2).unwrap_or(0);
    let list = page.get(start.saturating_add(header_len)..).unwrap_or_default();
    let places = list.as_chunks::<2>().0.iter();
    places.take(count).map(|place| u16::from_be_bytes(*place).into())
}

/// A big-endian number of up to four bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(len)?)?;
    let number = part.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    usize::try_from(number).ok()
}

/// A number of one to nine bytes; `at` goes behind it.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for index in 0..9 {
        let byte = *bytes.get(*at)?;
        *at = at.checked_add(1)?;
        if index == 8 {
            return Some((value << 8) | u64::from(byte));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// The values of a row.
fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    let header_len = usize::try_from(varint(payload, &mut at)?).ok()?;
    let (header, mut body) = payload.split_at_checked(header_len)?;
    let mut values = Vec::new();
    while at < header.len() {
        let kind = varint(header, &mut at)?;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => kind.checked_sub(12)? / 2,
        };
        let (bytes, rest) = body.split_at_checked(usize::try_from(len).ok()?)?;
        body = rest;
        values.push(match kind {
            0 | 7 => Value::Other,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => {
                let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
                let start = if negative { -1_i64 } else { 0 };
                Value::Integer(
                    bytes
                        .iter()
                        .fold(start, |sum, byte| (sum << 8) | i64::from(*byte)),
                )
            }
            _ => Value::Bytes(bytes.to_vec()),
        });
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A database that Python's SQLite makes.
    fn made(script: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let program =
            format!("import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n{script}");
        let output = Command::new("python3")
            .args(["-c", &program])
            .arg(&path)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::read(path).unwrap()
    }

    #[test]
    fn rows_are_those_that_sqlite_wrote() {
        for (page_len, count) in [(512, 3000), (4096, 500), (65_536, 40)] {
            let script = format!(
                "db.execute('pragma page_size={page_len}')\ndb.execute('begin')\ndb.execute('create table other (a)')\n\
                 db.execute('create table wanted (id integer primary key, number, text, data blob)')\n\
                 for n in range({count}): db.execute('insert into wanted values (?, ?, ?, ?)', \
                 (n, (-1) ** n * 3 ** (n % 39), 't' * (n % 7), bytes([n % 256]) * (n * 37 % 9000)))\n\
                 db.execute('commit')"
            );
            let bytes = made(&script);
            let mut rows = Vec::new();
            let database = Database::open(&bytes).unwrap();
            assert!(database.each_row("wanted", &mut |row| {
                let [_, Value::Integer(number), Value::Bytes(text), Value::Bytes(data)] = row else {
                    panic!("{row:?}");
                };
                rows.push((*number, text.len(), data.len(), data.first().copied()));
            }));
            let expected = (0..count).map(|n| {
                let sign = if n % 2 == 0 { 1 } else { -1 };
                let len = n * 37 % 9000;
                let first = (len > 0).then_some((n % 256) as u8);
                (sign * 3_i64.pow(n as u32 % 39), n % 7, len, first)
            });
            assert_eq!(rows, expected.collect::<Vec<_>>(), "pages of {page_len}");
            assert!(!database.each_row("absent", &mut |_| panic!("no rows")));
        }
    }

    #[test]
    fn damage_ends() {
        let sound = made(
            "db.execute('begin')\ndb.execute('create table wanted (data)')\n\
             for n in range(50): db.execute('insert into wanted values (?)', (bytes(n * 200),))\ndb.execute('commit')",
        );
        // Each page's first bytes, where its type and its counts are, in turn all ones, and every page number its own.
        for at in (0..sound.len()).filter(|at| at % 4096 < 24) {
            for value in [0xff, 1, 5, 13] {
                let mut bytes = sound.clone();
                bytes[at] = value;
                if let Some(database) = Database::open(&bytes) {
                    let mut rows = 0;
                    database.each_row("wanted", &mut |_| rows += 1);
                    assert!(rows <= 5000, "{rows} rows after byte {at}");
                }
            }
        }
        assert!(Database::open(b"SQLite format 3\0").is_none() && Database::open(b"").is_none());
    }
}
