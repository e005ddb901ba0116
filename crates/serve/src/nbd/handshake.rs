//! The handshake: options and their replies, until one of them begins the transmission.

use std::io::{self, Read, Write};

use super::options::{Talk, Then};
use super::stream::ending;
use super::wire::{INIT_MAGIC, OPTION_MAGIC, handshake};
use super::{OPTION_LEN_MAX, Violation};
use crate::Ending;

/// The most options in a handshake; real clients send fewer than ten.
const OPTIONS_MAX: usize = 1000;

/// What client and server have agreed upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Whether replies are structured.
    pub(super) structured: bool,
    /// Whether the client may ask for extents.
    pub(super) allocation: bool,
}

/// What there is to choose: one export, by its name or by none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    /// The export's name.
    pub(super) name: &'a str,
    /// Its size in bytes.
    pub(super) size_bytes: u64,
}

/// Greets the client and answers its options, until it begins the transmission.
///
/// # Errors
/// Why there is none.
pub(super) fn negotiate(
    reader: &mut impl Read,
    writer: &mut impl Write,
    offer: Offer<'_>,
) -> Result<Terms, Ending> {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    let greeting = [
        &INIT_MAGIC.to_be_bytes()[..],
        &OPTION_MAGIC.to_be_bytes(),
        &flags.to_be_bytes(),
    ];
    send(writer, &greeting.concat())?;
    let client_flags = u32::from_be_bytes(receive(reader)?);
    if client_flags & !u32::from(flags) != 0 {
        return Err(Ending::Broke(Violation::HandshakeFlags { flags: client_flags }));
    }
    let mut talk = Talk::new(offer, client_flags & u32::from(handshake::NO_ZEROES) == 0);
    for _ in 0..OPTIONS_MAX {
        let (kind, data) = next_option(reader)?;
        let said = talk.hear(kind, &data).map_err(Ending::Broke)?;
        match send(writer, &said.bytes) {
            // Whoever aborts need not wait for the answer.
            Err(_) if matches!(said.then, Then::Leave) => return Err(Ending::Disconnected),
            sent => sent?,
        }
        match said.then {
            Then::GoOn => {}
            Then::Leave => return Err(Ending::Disconnected),
            Then::Transmit(terms) => return Ok(terms),
        }
    }
    Err(Ending::Broke(Violation::TooManyOptions { limit: OPTIONS_MAX }))
}

fn send(writer: &mut impl Write, bytes: &[u8]) -> Result<(), Ending> {
    writer.write_all(bytes).map_err(ending)
}

fn receive<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], Ending> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(ending)?;
    Ok(bytes)
}

/// The number of an option, and what stands behind its header.
fn next_option(reader: &mut impl Read) -> Result<(u32, Vec<u8>), Ending> {
    let magic = u64::from_be_bytes(receive(reader)?);
    if magic != OPTION_MAGIC {
        return Err(Ending::Broke(Violation::OptionMagic { magic }));
    }
    let kind = u32::from_be_bytes(receive(reader)?);
    let len = u32::from_be_bytes(receive(reader)?);
    if len > OPTION_LEN_MAX {
        return Err(Ending::Broke(Violation::OptionTooLong {
            option: kind,
            len,
            limit: OPTION_LEN_MAX,
        }));
    }
    let mut data = Vec::new();
    let read = reader
        .take(u64::from(len))
        .read_to_end(&mut data)
        .map_err(ending)?;
    if u64::try_from(read) != Ok(u64::from(len)) {
        return Err(ending(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((kind, data))
}

#[cfg(test)]
mod tests;
