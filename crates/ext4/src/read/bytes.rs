//! Looks into byte slices of unknown length without ever panicking.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The on-disk structure at `offset`, if it lies within `bytes`.
pub(crate) fn view<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &[u8],
    offset: usize,
) -> Option<&T> {
    T::ref_from_prefix(bytes.get(offset..)?)
        .ok()
        .map(|(view, _)| view)
}

/// `len` bytes at `offset`, if they lie within `bytes`.
pub(crate) fn part(bytes: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(len)?)
}

/// The little-endian number at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    part(bytes, offset, 2)?.try_into().ok().map(u16::from_le_bytes)
}

/// The little-endian number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    part(bytes, offset, 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Overwrites the part of `bytes` at `offset` with zeros, as far as there is one.
pub(crate) fn zero(bytes: &mut [u8], offset: usize, len: usize) {
    if let Some(part) = offset.checked_add(len).and_then(|end| bytes.get_mut(offset..end)) {
        part.fill(0);
    }
}

/// A number whose upper half lies elsewhere.
pub(crate) fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}

/// A number whose upper half lies elsewhere.
pub(crate) fn join16(low: u16, high: u16) -> u32 {
    u32::from(low) | (u32::from(high) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_beyond_the_end() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!(u16_at(&bytes, 3), Some(0x0504));
        assert_eq!(u16_at(&bytes, 4), None);
        assert_eq!(u32_at(&bytes, 1), Some(0x0504_0302));
        assert_eq!(u32_at(&bytes, usize::MAX), None);
        assert_eq!(part(&bytes, 5, 0), Some(&[][..]));
        assert!(view::<zerocopy::little_endian::U64>(&bytes, 0).is_none());
        let mut copy = bytes;
        zero(&mut copy, 3, 2);
        zero(&mut copy, 4, 2);
        assert_eq!(copy, [1, 2, 3, 0, 0]);
        assert_eq!((join(1, 2), join16(1, 2)), (0x2_0000_0001, 0x2_0001));
    }
}
