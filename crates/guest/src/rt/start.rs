//! The entry point: the kernel's initial stack becomes arguments and environment.
#![expect(unsafe_code, reason = "the kernel hands over a raw stack")]

use alloc::vec::Vec;
use core::ffi::{CStr, c_char};

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call {start}",
    "ud2",
    start = sym start,
    options(att_syntax)
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "and sp, x0, #-16",
    "bl {start}",
    "brk #1",
    start = sym start
);

/// `stack` is what the kernel prepared: argc, argv, null, envp, null.
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel's contract for a new program's stack: argc pointers follow argc, then a null, then the
    // environment's pointers up to a null; each points at a string that lives as long as the process.
    let (arguments, environment) = unsafe {
        let count = *stack;
        let argv = stack.add(1).cast::<*const c_char>();
        (strings(argv), strings(argv.add(count).add(1)))
    };
    let code = firebrick_guest::run(&arguments, &environment);
    firebrick_guest::exit(code)
}

/// # Safety
/// `list` must be a null-terminated list of C strings that live for ever.
unsafe fn strings(list: *const *const c_char) -> Vec<&'static CStr> {
    let mut strings = Vec::new();
    let mut next = list;
    // SAFETY: by the caller's contract.
    unsafe {
        while !(*next).is_null() {
            strings.push(CStr::from_ptr(*next));
            next = next.add(1);
        }
    }
    strings
}
