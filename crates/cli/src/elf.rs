//! As much of an ELF program as tells where it can start: its processor, and the loader that it asks for (`elf(5)`).
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

/// How many bytes from the start of a program hold all that is looked at, in practice.
pub(crate) const HEAD_LEN: u64 = 64 << 10;

/// Processors whose programs of either byte order have the same number; those of the big one have no image any more.
const ARM: [u16; 2] = [40, 183];

/// What the start of a program says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// The path of the loader that the kernel starts in its place; `None` for a static program.
    pub(crate) interpreter: Option<Vec<u8>>,
}

impl Elf {
    /// Reads the start of a program; `None` if it is none, or is damaged.
    pub(crate) fn parse(head: &[u8]) -> Option<Elf> {
        const PT_INTERP: u32 = 3;
        let is_64 = match head.get(..5)? {
            b"\x7fELF\x02" => true,
            b"\x7fELF\x01" => false,
            _ => return None,
        };
        let fields = match head.get(5)? {
            1 => Fields { head, little: true },
            2 => Fields { head, little: false },
            _ => return None,
        };
        let machine = fields.half(18)?;
        if !fields.little && ARM.contains(&machine) {
            return None;
        }
        let word = |at: usize| match is_64 {
            true => fields.long(at),
            false => usize::try_from(fields.word(at)?).ok(),
        };
        // Where the program headers are, their size and number, and in one of them the segment's place and length.
        let (phoff, phentsize, phnum, p_offset, p_filesz) = match is_64 {
            true => (32, 54, 56, 8, 32),
            false => (28, 42, 44, 4, 16),
        };
        let table = word(phoff)?;
        let size = usize::from(fields.half(phentsize)?);
        let count = usize::from(fields.half(phnum)?);
        let mut interpreter = None;
        for number in 0..count {
            let at = table.checked_add(size.checked_mul(number)?)?;
            if fields.word(at)? == PT_INTERP {
                let start = word(at.checked_add(p_offset)?)?;
                let end = start.checked_add(word(at.checked_add(p_filesz)?)?)?;
                let path = head.get(start..end)?;
                interpreter = path.split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
            }
        }
        Some(Elf { machine, interpreter })
    }
}

/// Numbers in the byte order of the processor that the program is for.
struct Fields<'a> {
    head: &'a [u8],
    little: bool,
}

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.head.get(at..)?.first_chunk().copied()
    }

    fn half(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes(at)?;
        Some(match self.little {
            true => u16::from_le_bytes(bytes),
            false => u16::from_be_bytes(bytes),
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes(at)?;
        Some(match self.little {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes(at)?;
        let long = match self.little {
            true => u64::from_le_bytes(bytes),
            false => u64::from_be_bytes(bytes),
        };
        usize::try_from(long).ok()
    }
}

/// The usual name of an `e_machine`.
pub(crate) fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86 (32-bit)".to_owned(),
        8 => "mips".to_owned(),
        20 | 21 => "powerpc".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm (32-bit)".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loongarch64".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_programs_tell_what_they_are() {
        let test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::parse(&test).unwrap();
        assert_eq!(elf.machine, firebrick_vmm::Arch::HOST.elf_machine());
        let loader =
            String::from_utf8(elf.interpreter.expect("test programs are linked dynamically")).unwrap();
        assert!(std::path::Path::new(&loader).is_file(), "{loader}");
        let guest = Elf::parse(crate::guest::BYTES).unwrap();
        assert_eq!(guest.interpreter, None);
        // Nothing but the start is needed.
        assert_eq!(Elf::parse(&test[..65536]), Elf::parse(&test));
    }

    /// A program of one segment, which names its loader, for s390x.
    fn big_endian() -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x02\x01".to_vec();
        bytes.resize(120, 0);
        bytes[18..20].copy_from_slice(&22_u16.to_be_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_be_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_be_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_be_bytes());
        bytes[64..68].copy_from_slice(&3_u32.to_be_bytes());
        bytes[72..80].copy_from_slice(&120_u64.to_be_bytes());
        bytes[96..104].copy_from_slice(&15_u64.to_be_bytes());
        bytes.extend_from_slice(b"/lib/ld64.so.1\0");
        bytes
    }

    #[test]
    fn programs_of_the_other_byte_order_tell_what_they_are() {
        let bytes = big_endian();
        let elf = Elf::parse(&bytes).unwrap();
        assert_eq!(machine_name(elf.machine), "s390x");
        assert_eq!(elf.interpreter.as_deref(), Some(&b"/lib/ld64.so.1"[..]));
        for len in 0..bytes.len() {
            let _ = Elf::parse(&bytes[..len]);
        }
        // One that would be taken for what this processor runs; and neither order.
        let mut bytes = bytes;
        bytes[18..20].copy_from_slice(&183_u16.to_be_bytes());
        assert_eq!(Elf::parse(&bytes), None);
        bytes[5] = 3;
        assert_eq!(Elf::parse(&bytes), None);
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics() {
        let mut head = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        head.truncate(1024);
        for len in 0..head.len() {
            let _ = Elf::parse(&head[..len]);
        }
        for at in 0..head.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = head.clone();
                bytes[at] = value;
                let _ = Elf::parse(&bytes);
            }
        }
        assert_eq!(Elf::parse(b"#!/bin/sh\n"), None);
    }
}
