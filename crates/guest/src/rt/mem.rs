//! The memory functions that compiled code calls by name.
//!
//! They move words, four at a time where there are that many. x86_64's string instructions would do as well on a processor, but
//! where there is none, under QEMU's software emulation, they go byte by byte. `#[no_mangle]` functions here must not be
//! compiled into calls of themselves: `#![no_builtins]`, set for the crate, sees to that.
#![expect(unsafe_code, reason = "memory functions work on raw pointers")]

use core::ffi::c_int;

const WORD: usize = size_of::<usize>();

/// So many words are moved at a time.
const BLOCK: usize = 4 * WORD;

/// Copies forward. Overlap is allowed when `to` is below `from`.
#[inline(always)]
unsafe fn copy_forward(to: *mut u8, from: *const u8, count: usize) {
    let mut done = 0;
    // SAFETY: the caller says that both ranges are valid. What is read is read before anything at or above its address is
    // written, so overlap with `to` below `from` is read first.
    unsafe {
        while count - done >= BLOCK {
            let block = from.add(done).cast::<[usize; 4]>().read_unaligned();
            to.add(done).cast::<[usize; 4]>().write_unaligned(block);
            done += BLOCK;
        }
        while count - done >= WORD {
            let word = from.add(done).cast::<usize>().read_unaligned();
            to.add(done).cast::<usize>().write_unaligned(word);
            done += WORD;
        }
        while done < count {
            *to.add(done) = *from.add(done);
            done += 1;
        }
    }
}

/// Copies `count` bytes between ranges that do not overlap.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: by the caller's contract.
    unsafe { copy_forward(to, from, count) };
    to
}

/// Copies `count` bytes between ranges that may overlap.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: `to` is below `from`, or behind its end.
        unsafe { copy_forward(to, from, count) };
        return to;
    }
    let mut left = count;
    // SAFETY: both ranges are valid by the caller's contract; going down reads each byte before it is overwritten.
    unsafe {
        while left >= WORD {
            left -= WORD;
            let word = from.add(left).cast::<usize>().read_unaligned();
            to.add(left).cast::<usize>().write_unaligned(word);
        }
        while left > 0 {
            left -= 1;
            *to.add(left) = *from.add(left);
        }
    }
    to
}

/// Fills `count` bytes with the low byte of `value`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memset(to: *mut u8, value: c_int, count: usize) -> *mut u8 {
    let byte = value as u8;
    let word = usize::from_ne_bytes([byte; WORD]);
    let mut done = 0;
    // SAFETY: the range is valid by the caller's contract.
    unsafe {
        while count - done >= BLOCK {
            to.add(done).cast::<[usize; 4]>().write_unaligned([word; 4]);
            done += BLOCK;
        }
        while count - done >= WORD {
            to.add(done).cast::<usize>().write_unaligned(word);
            done += WORD;
        }
        while done < count {
            *to.add(done) = byte;
            done += 1;
        }
    }
    to
}

/// Compares `count` bytes.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> c_int {
    let mut done = 0;
    // SAFETY: both ranges are valid by the caller's contract.
    unsafe {
        while count - done >= WORD
            && a.add(done).cast::<usize>().read_unaligned() == b.add(done).cast::<usize>().read_unaligned()
        {
            done += WORD;
        }
        while done < count {
            let (left, right) = (*a.add(done), *b.add(done));
            if left != right {
                return c_int::from(left) - c_int::from(right);
            }
            done += 1;
        }
    }
    0
}

/// Tells whether `count` bytes differ.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> c_int {
    // SAFETY: by the caller's contract.
    unsafe { memcmp(a, b, count) }
}

/// Counts the bytes before the first zero.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut count = 0;
    // SAFETY: by the caller's contract there is a zero.
    while unsafe { *text.add(count) } != 0 {
        count += 1;
    }
    count
}
