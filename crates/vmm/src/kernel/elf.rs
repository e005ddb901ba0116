//! As much of ELF64 as two questions need: a section's bytes (a module's `.modinfo`), and whether a kernel
//! has the note that lets QEMU start it directly (PVH).
//!
//! Names are those of `elf.h`; only little-endian 64-bit files are read.
//! Layout: <https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html>
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit entry point of a PVH kernel.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// A 64-bit little-endian ELF file.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a>(&'a [u8]);

impl<'a> Elf<'a> {
    /// Wraps `bytes` if they begin like a 64-bit little-endian ELF file.
    pub fn parse(bytes: &'a [u8]) -> Option<Elf<'a>> {
        // EI_CLASS 2: 64 bits; EI_DATA 1: little-endian.
        (bytes.starts_with(b"\x7fELF\x02\x01") && bytes.len() >= 64).then_some(Elf(bytes))
    }

    /// The bytes of the first section called `name`.
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.section_body(self.section_header(name)?)
    }

    fn section_body(&self, header: u64) -> Option<&'a [u8]> {
        self.slice(
            self.u64(header.checked_add(0x18)?)?,
            self.u64(header.checked_add(0x20)?)?,
        )
    }

    /// Where in the file the header of the first section called `name` begins.
    pub fn section_header(&self, name: &str) -> Option<u64> {
        let e_shoff = self.u64(0x28)?;
        let e_shentsize = u64::from(self.u16(0x3a)?);
        let e_shnum = u64::from(self.u16(0x3c)?);
        let e_shstrndx = u64::from(self.u16(0x3e)?);
        if e_shentsize < 64 {
            return None;
        }
        let header = |index: u64| e_shoff.checked_add(index.checked_mul(e_shentsize)?);
        let names = self.section_body(header(e_shstrndx)?)?;
        (0..e_shnum).find_map(|index| {
            let at = header(index)?;
            let sh_name = usize::try_from(self.u32(at)?).ok()?;
            let rest = names.get(sh_name..)?;
            let this = rest.get(..rest.iter().position(|&byte| byte == 0)?)?;
            (this == name.as_bytes()).then_some(at)
        })
    }

    /// Whether the kernel can be started through PVH, as QEMU starts an ELF kernel.
    pub fn has_pvh_entry(&self) -> bool {
        self.notes()
            .any(|notes| has_note(notes, b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY))
    }

    /// The bytes of each `PT_NOTE` segment.
    fn notes(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        const PT_NOTE: u32 = 4;
        let e_phoff = self.u64(0x20);
        let e_phentsize = self.u16(0x36).map(u64::from).filter(|&size| size >= 56);
        let e_phnum = self.u16(0x38).map(u64::from).unwrap_or(0);
        (0..e_phnum).filter_map(move |index| {
            let at = e_phoff?.checked_add(index.checked_mul(e_phentsize?)?)?;
            if self.u32(at)? != PT_NOTE {
                return None;
            }
            self.slice(self.u64(at.checked_add(0x08)?)?, self.u64(at.checked_add(0x20)?)?)
        })
    }

    fn slice(&self, offset: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.0.get(start..end)
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.slice(offset, 2)?.try_into().ok()?))
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.slice(offset, 4)?.try_into().ok()?))
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.slice(offset, 8)?.try_into().ok()?))
    }
}

/// Walks a note segment: name length, content length, type, then both texts padded to 4 bytes.
fn has_note(mut notes: &[u8], name: &[u8], kind: u32) -> bool {
    let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
    let mut step = || {
        let word = |at: usize| -> Option<u32> {
            let end = at.checked_add(4)?;
            Some(u32::from_le_bytes(notes.get(at..end)?.try_into().ok()?))
        };
        let (n_namesz, n_descsz, n_type) = (word(0)?, word(4)?, word(8)?);
        let body = notes.get(12..)?;
        let found = n_type == kind && body.get(..usize::try_from(n_namesz).ok()?)? == name;
        notes = body
            .get(padded(n_namesz)?.checked_add(padded(n_descsz)?)?..)
            .unwrap_or_default();
        Some(found)
    };
    while let Some(found) = step() {
        if found {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test data is ours"
)]
pub(crate) mod tests {
    use super::*;

    /// An ELF file with one section besides the table of names, and one note segment.
    pub(crate) fn sample(section: &str, body: &[u8], note_type: u32) -> Vec<u8> {
        let names = format!("\0.shstrtab\0{section}\0");
        let mut note = Vec::new();
        for word in [4_u32, 4, 1, 0, 0, 4, 4, note_type, 0, 0] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note[12..16].copy_from_slice(b"Xen\0");
        note[32..36].copy_from_slice(b"Xen\0");
        let mut file = vec![0; 64 + 56 + 3 * 64];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(0x20, &64_u64.to_le_bytes());
        put(0x28, &120_u64.to_le_bytes());
        put(0x36, &56_u16.to_le_bytes());
        put(0x38, &1_u16.to_le_bytes());
        put(0x3a, &64_u16.to_le_bytes());
        put(0x3c, &3_u16.to_le_bytes());
        put(0x3e, &1_u16.to_le_bytes());
        let (names_at, body_at) = (312_u64, 312 + names.len() as u64);
        let note_at = body_at + body.len() as u64;
        put(64, &4_u32.to_le_bytes());
        put(64 + 8, &note_at.to_le_bytes());
        put(64 + 0x20, &(note.len() as u64).to_le_bytes());
        for (index, name, at, len) in [
            (1, 1_u32, names_at, names.len() as u64),
            (2, 11, body_at, body.len() as u64),
        ] {
            let header = 120 + index * 64;
            put(header, &name.to_le_bytes());
            put(header + 0x18, &at.to_le_bytes());
            put(header + 0x20, &len.to_le_bytes());
        }
        file.extend_from_slice(names.as_bytes());
        file.extend_from_slice(body);
        file.extend_from_slice(&note);
        file
    }

    #[test]
    fn sections_are_found_by_name() {
        let file = sample(".modinfo", b"depends=a\0", 1);
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(elf.section(".modinfo"), Some(&b"depends=a\0"[..]));
        assert_eq!(elf.section(".text"), None);
    }

    #[test]
    fn the_pvh_note_may_be_the_second() {
        assert!(
            Elf::parse(&sample("x", b"", XEN_ELFNOTE_PHYS32_ENTRY))
                .unwrap()
                .has_pvh_entry()
        );
        assert!(!Elf::parse(&sample("x", b"", 17)).unwrap().has_pvh_entry());
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics_or_hangs() {
        let whole = sample(".modinfo", b"depends=a\0", 18);
        let look = |bytes: &[u8]| {
            if let Some(elf) = Elf::parse(bytes) {
                let _ = (elf.section(".modinfo"), elf.has_pvh_entry());
            }
        };
        for len in 0..whole.len() {
            look(&whole[..len]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                look(&bytes);
            }
        }
    }
}
