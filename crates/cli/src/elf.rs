//! As much of an ELF program as tells where it can start: its processor, and the loader that it asks for (`elf(5)`).
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

/// How many bytes from the start of a program hold all that is looked at, in practice.
pub(crate) const HEAD_LEN: u64 = 64 << 10;

/// What the start of a program says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// The path of the loader that the kernel starts in its place; `None` for a static program.
    pub(crate) interpreter: Option<Vec<u8>>,
}

impl Elf {
    /// Reads the start of a little-endian program; `None` if it is none, or is damaged.
    pub(crate) fn parse(head: &[u8]) -> Option<Elf> {
        const PT_INTERP: u32 = 3;
        let is_64 = match head.get(..6)? {
            b"\x7fELF\x02\x01" => true,
            b"\x7fELF\x01\x01" => false,
            _ => return None,
        };
        let machine = u16::from_le_bytes(field(head, 18)?);
        let word = |at: usize| match is_64 {
            true => usize::try_from(u64::from_le_bytes(field(head, at)?)).ok(),
            false => usize::try_from(u32::from_le_bytes(field(head, at)?)).ok(),
        };
        // Where the program headers are, their size and number, and in one of them the segment's place and length.
        let (phoff, phentsize, phnum, p_offset, p_filesz) = match is_64 {
            true => (32, 54, 56, 8, 32),
            false => (28, 42, 44, 4, 16),
        };
        let table = word(phoff)?;
        let size = usize::from(u16::from_le_bytes(field(head, phentsize)?));
        let count = usize::from(u16::from_le_bytes(field(head, phnum)?));
        let mut interpreter = None;
        for number in 0..count {
            let at = table.checked_add(size.checked_mul(number)?)?;
            if u32::from_le_bytes(field(head, at)?) == PT_INTERP {
                let start = word(at.checked_add(p_offset)?)?;
                let end = start.checked_add(word(at.checked_add(p_filesz)?)?)?;
                let path = head.get(start..end)?;
                interpreter = path.split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
            }
        }
        Some(Elf { machine, interpreter })
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

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
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
