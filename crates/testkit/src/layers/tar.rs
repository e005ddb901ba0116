//! A tar writer of our own, so that a misreading of the format in `firebrick-layer` cannot hide behind the same
//! misreading here.
//!
//! Formats: POSIX pax (`pax(1)`, "pax Interchange Format") and
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>. A header is 512 bytes:
//!
//! ```text
//! 0 name 100 mode 108 uid 116 gid 124 size 136 mtime 148 checksum 156 type 157 linkname
//! 257 magic 265 uname 297 gname 329 major 337 minor 345 prefix (GNU sparse: 386 map, 482 more, 483 real size) 500
//! ```

use std::io::{self, Write};

use super::content::SparseForm;
use super::text::format_time;
use super::{Content, Entry, EntryKind, Format, Layer};
use crate::listing::Time;

const BLOCK: usize = 512;
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The whole layer as a tar stream, with the two zero blocks at its end.
pub fn to_tar(layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(layer, &mut bytes).expect("writing to memory cannot fail");
    bytes
}

/// Writes the layer as a tar stream.
///
/// # Errors
/// What `out` fails with.
pub fn write(layer: &Layer, out: &mut dyn Write) -> io::Result<()> {
    layer
        .entries
        .iter()
        .try_for_each(|entry| write_entry(entry, out))?;
    out.write_all(&ZEROS)
}

/// Writes one entry, its extended headers in front.
///
/// # Errors
/// What `out` fails with.
///
/// # Panics
/// If the entry asks for ustar and does not fit into it: the test is wrong.
pub fn write_entry(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let mut name = stored_name(entry);
    let (mut typeflag, mut link) = type_and_link(entry);
    let mut records = xattr_records(entry);
    let mut data: Vec<&Content> = Vec::new();
    let map; // the sparse map in front of the data (form 1.0)
    let mut gnu_map = None;
    match &entry.kind {
        EntryKind::Socket => records.push((b"FIREBRICK.type".to_vec(), b"socket".to_vec())),
        EntryKind::File(Content::Sparse { len, form, segments }) => {
            records.extend(sparse_records(*form, *len, segments, &name));
            if *form == SparseForm::Gnu {
                typeflag = b'S';
                gnu_map = Some((*len, numbers(*len, segments)));
            } else if *form != SparseForm::Pax00 {
                name = [b"GNUSparseFile.0/", name.as_slice()].concat();
            }
            if *form == SparseForm::Pax10 {
                map = Content::Bytes(map_block(*len, segments));
                data.push(&map);
            }
            data.extend(segments.iter().map(|(_, content)| content));
        }
        EntryKind::File(content) => data.push(content),
        _ => {}
    }
    let size = data.iter().map(|content| content.len()).sum();
    let stored_size = entry.lie.unwrap_or(size);

    // The old sparse map has a place in GNU's header alone.
    let format = if gnu_map.is_some() {
        Format::Gnu
    } else {
        entry.format
    };
    let mut header = Header::new(format);
    name = long_name(format, b'L', b"path", name, &mut records, out)?;
    link = long_name(format, b'K', b"linkpath", link, &mut records, out)?;
    header.name(&name);
    header.bytes(157, 100, &link);
    header.number(100, 8, i64::from(entry.mode), b"mode", &mut records);
    header.number(108, 8, i64::from(entry.uid), b"uid", &mut records);
    header.number(116, 8, i64::from(entry.gid), b"gid", &mut records);
    header.number(124, 12, stored_size as i64, b"size", &mut records);
    header.mtime(entry.mtime, &mut records);
    header.block[156] = typeflag;
    if let EntryKind::Char(major, minor) | EntryKind::Block(major, minor) = entry.kind {
        header.number(329, 8, i64::from(major), b"SCHILY.devmajor", &mut records);
        header.number(337, 8, i64::from(minor), b"SCHILY.devminor", &mut records);
    }
    write_pax(&records, format, out)?;
    let more = gnu_map.map(|(len, numbers)| header.sparse_map(len, &numbers));
    out.write_all(&header.finish())?;
    out.write_all(&more.unwrap_or_default())?;
    data.iter().try_for_each(|content| content.write(out))?;
    pad(size, out)
}

/// The name as the tar has it: whiteouts spelt out, directories with a slash at the end.
fn stored_name(entry: &Entry) -> Vec<u8> {
    let split = entry
        .path
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |index| index + 1);
    let (parent, base) = entry.path.split_at(split);
    match entry.kind {
        EntryKind::Whiteout => [parent, b".wh.", base].concat(),
        EntryKind::Opaque if entry.path.is_empty() => b".wh..wh..opq".to_vec(),
        EntryKind::Opaque => [entry.path.as_slice(), b"/.wh..wh..opq"].concat(),
        EntryKind::Dir if entry.path.is_empty() => b"./".to_vec(),
        EntryKind::Dir => [entry.path.as_slice(), b"/"].concat(),
        // Empty would delete a PAX record instead of naming the root.
        _ if entry.path.is_empty() => b".".to_vec(),
        _ => entry.path.clone(),
    }
}

fn type_and_link(entry: &Entry) -> (u8, Vec<u8>) {
    let typeflag = match &entry.kind {
        EntryKind::File(_) | EntryKind::Whiteout | EntryKind::Opaque => b'0',
        EntryKind::Hardlink(target) => return (b'1', target.clone()),
        EntryKind::Symlink(target) => return (b'2', target.clone()),
        EntryKind::Char(..) => b'3',
        EntryKind::Block(..) => b'4',
        EntryKind::Dir => b'5',
        EntryKind::Fifo | EntryKind::Socket => b'6',
    };
    (typeflag, Vec::new())
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn xattr_records(entry: &Entry) -> Records {
    let record = |(name, value): &(Vec<u8>, Vec<u8>)| {
        if entry.libarchive {
            let key = [b"LIBARCHIVE.xattr.", percent_encode(name).as_bytes()].concat();
            (key, base64(value))
        } else {
            ([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone())
        }
    };
    entry.xattrs.iter().map(record).collect()
}

/// libarchive's `url_encode`: printable ASCII but `%` and `=` stays.
fn percent_encode(name: &[u8]) -> String {
    let encode = |&byte: &u8| match byte {
        b'%' | b'=' | 0..=0x20 | 0x7f.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    name.iter().map(encode).collect()
}

/// RFC 4648 without padding, as libarchive writes it.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, index| {
            (word << 8) | u32::from(*chunk.get(index).unwrap_or(&0))
        });
        out.extend((0..=chunk.len()).map(|index| ALPHABET[(word >> (18 - 6 * index)) as usize & 63]));
    }
    out
}

/// Offsets and lengths of the data, closed by an empty stretch at the end where a hole ends the file.
fn numbers(len: u64, segments: &[(u64, Content)]) -> Vec<(u64, u64)> {
    let mut numbers: Vec<_> = segments
        .iter()
        .map(|(offset, data)| (*offset, data.len()))
        .collect();
    if numbers
        .last()
        .is_none_or(|&(offset, data_len)| offset + data_len < len)
    {
        numbers.push((len, 0));
    }
    numbers
}

fn sparse_records(form: SparseForm, len: u64, segments: &[(u64, Content)], name: &[u8]) -> Records {
    let record = |key: &str, value: String| (key.as_bytes().to_vec(), value.into_bytes());
    let numbers = numbers(len, segments);
    let mut records = match form {
        SparseForm::Gnu => return Vec::new(),
        SparseForm::Pax10 => vec![
            record("GNU.sparse.major", "1".to_owned()),
            record("GNU.sparse.minor", "0".to_owned()),
            record("GNU.sparse.realsize", len.to_string()),
        ],
        SparseForm::Pax00 | SparseForm::Pax01 => vec![
            record("GNU.sparse.size", len.to_string()),
            record("GNU.sparse.numblocks", numbers.len().to_string()),
        ],
    };
    match form {
        SparseForm::Pax00 => records.extend(numbers.iter().flat_map(|(offset, data_len)| {
            let at = record("GNU.sparse.offset", offset.to_string());
            [at, record("GNU.sparse.numbytes", data_len.to_string())]
        })),
        SparseForm::Pax01 => {
            let map: Vec<_> = numbers
                .iter()
                .map(|(offset, data_len)| format!("{offset},{data_len}"))
                .collect();
            records.push(record("GNU.sparse.map", map.join(",")));
        }
        _ => {}
    }
    if form != SparseForm::Pax00 {
        records.push((b"GNU.sparse.name".to_vec(), name.to_vec()));
    }
    records
}

/// The map of form 1.0: decimal numbers, one a line, padded to whole blocks.
fn map_block(len: u64, segments: &[(u64, Content)]) -> Vec<u8> {
    let numbers = numbers(len, segments);
    let mut text = format!("{}\n", numbers.len());
    numbers
        .iter()
        .for_each(|(offset, data_len)| text.push_str(&format!("{offset}\n{data_len}\n")));
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// What goes into the header's own field; the whole of a long name goes where the format has it.
fn long_name(
    format: Format,
    gnu_type: u8,
    pax_key: &[u8],
    name: Vec<u8>,
    records: &mut Records,
    out: &mut dyn Write,
) -> io::Result<Vec<u8>> {
    if name.len() <= 100 {
        return Ok(name);
    }
    match format {
        Format::Ustar => return Ok(name), // `Header::name` splits it
        Format::Pax => records.push((pax_key.to_vec(), name.clone())),
        Format::Gnu => {
            let mut header = Header::new(Format::Gnu);
            header.name(b"././@LongLink");
            header.plain(124, 12, name.len() as u64 + 1);
            header.block[156] = gnu_type;
            out.write_all(&header.finish())?;
            out.write_all(&name)?;
            out.write_all(&[0])?;
            pad(name.len() as u64 + 1, out)?;
        }
    }
    Ok(name[..100].to_vec())
}

fn write_pax(records: &Records, format: Format, out: &mut dyn Write) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    assert!(
        format != Format::Ustar,
        "ustar cannot say {:?}",
        String::from_utf8_lossy(&records[0].0)
    );
    let body: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| pax_record(key, value))
        .collect();
    let mut header = Header::new(Format::Pax);
    header.name(b"PaxHeaders/entry");
    header.plain(100, 8, 0o644);
    header.plain(124, 12, body.len() as u64);
    header.plain(136, 12, 0);
    header.block[156] = b'x';
    out.write_all(&header.finish())?;
    out.write_all(&body)?;
    pad(body.len() as u64, out)
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits.
pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn pad(size: u64, out: &mut dyn Write) -> io::Result<()> {
    let partial = (size % BLOCK as u64) as usize;
    out.write_all(&ZEROS[..(BLOCK - partial) % BLOCK])
}

/// One header block being filled in.
struct Header {
    block: [u8; BLOCK],
    format: Format,
}

impl Header {
    fn new(format: Format) -> Header {
        let mut header = Header {
            block: [0; BLOCK],
            format,
        };
        match format {
            Format::Gnu => header.bytes(257, 8, b"ustar  \0"),
            Format::Pax | Format::Ustar => header.bytes(257, 8, b"ustar\x0000"),
        }
        header
    }

    fn bytes(&mut self, at: usize, len: usize, bytes: &[u8]) {
        assert!(
            bytes.len() <= len,
            "{} bytes do not fit into a field of {len}",
            bytes.len()
        );
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A name of at most 100 bytes, or one that ustar can split at a slash.
    fn name(&mut self, name: &[u8]) {
        if name.len() <= 100 {
            return self.bytes(0, 100, name);
        }
        let fits = |&index: &usize| name[index] == b'/' && index <= 155 && name.len() - index - 1 <= 100;
        let split = (1..name.len() - 1)
            .find(fits)
            .expect("the name can be split for ustar");
        self.bytes(345, 155, &name[..split]);
        self.bytes(0, 100, &name[split + 1..]);
    }

    /// An octal number that is known to fit.
    fn plain(&mut self, at: usize, len: usize, number: u64) {
        self.bytes(
            at,
            len - 1,
            format!("{number:0width$o}", width = len - 1).as_bytes(),
        );
    }

    /// A number, octal where it fits and as the format says where it does not.
    fn number(&mut self, at: usize, len: usize, number: i64, pax_key: &[u8], records: &mut Records) {
        let limit = 1_i64 << (3 * (len - 1));
        if (0..limit).contains(&number) {
            return self.plain(at, len, number as u64);
        }
        match self.format {
            Format::Pax => {
                self.plain(at, len, 0);
                records.push((pax_key.to_vec(), number.to_string().into_bytes()));
            }
            Format::Gnu => {
                // Base 256: two's complement, the top bit set as a mark.
                let fill = if number < 0 { 0xff } else { 0 };
                self.block[at..at + len].fill(fill);
                let bytes = number.to_be_bytes();
                let used = len.min(8);
                self.block[at + len - used..at + len].copy_from_slice(&bytes[8 - used..]);
                self.block[at] |= 0x80;
            }
            Format::Ustar => panic!("ustar cannot hold {number} in {len} octal digits"),
        }
    }

    fn mtime(&mut self, mtime: Time, records: &mut Records) {
        if mtime.nanos == 0 {
            return self.number(136, 12, mtime.secs, b"mtime", records);
        }
        self.plain(136, 12, mtime.secs.clamp(0, 0o77_777_777_777) as u64);
        records.push((b"mtime".to_vec(), format_time(mtime).into_bytes()));
    }

    /// Fills in the old GNU sparse map; what does not fit into the header comes in blocks of 21 behind it.
    fn sparse_map(&mut self, len: u64, numbers: &[(u64, u64)]) -> Vec<u8> {
        let stretch =
            |&(offset, data_len): &(u64, u64)| format!("{offset:011o}\0{data_len:011o}\0").into_bytes();
        let (here, rest) = numbers.split_at(numbers.len().min(4));
        self.bytes(386, 96, &here.iter().flat_map(stretch).collect::<Vec<_>>());
        self.block[482] = u8::from(!rest.is_empty());
        self.plain(483, 12, len);
        let mut more = Vec::new();
        let mut chunks = rest.chunks(21).peekable();
        while let Some(chunk) = chunks.next() {
            let mut block: Vec<u8> = chunk.iter().flat_map(stretch).collect();
            block.resize(BLOCK, 0);
            block[504] = u8::from(chunks.peek().is_some());
            more.extend(block);
        }
        more
    }

    /// The block with its checksum: the sum of all bytes, the checksum's own taken as spaces.
    fn finish(mut self) -> [u8; BLOCK] {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.bytes(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}
