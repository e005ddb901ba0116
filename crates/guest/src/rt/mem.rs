//! The memory functions that compiled code calls by name.
//!
//! On x86_64 copying and filling are the string instructions, which current processors run at full width; elsewhere and for
//! comparing, plain loops. `#[no_mangle]` functions here must not be compiled into calls of themselves: the loops
//! use volatile-free byte access through `black_box`-less pointers under `#![no_builtins]`, set for the crate.
#![expect(unsafe_code, reason = "memory functions work on raw pointers")]

use core::ffi::c_int;

/// Copies forward. Overlap is allowed when `to` is below `from`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_forward(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller says that both ranges are valid; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}

/// Copies forward. Overlap is allowed when `to` is below `from`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn copy_forward(to: *mut u8, from: *const u8, count: usize) {
    const WORD: usize = size_of::<usize>();
    let mut done = 0;
    // SAFETY: the caller says that both ranges are valid. Words are read before the word at a higher address is
    // written, so overlap with `to` below `from` is read first.
    unsafe {
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
    const WORD: usize = size_of::<usize>();
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
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the range is valid by the caller's contract; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        const WORD: usize = size_of::<usize>();
        let word = usize::from_ne_bytes([byte; WORD]);
        let mut done = 0;
        // SAFETY: the range is valid by the caller's contract.
        unsafe {
            while count - done >= WORD {
                to.add(done).cast::<usize>().write_unaligned(word);
                done += WORD;
            }
            while done < count {
                *to.add(done) = byte;
                done += 1;
            }
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
    const WORD: usize = size_of::<usize>();
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
