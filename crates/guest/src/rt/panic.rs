//! What happens when our own code is wrong: say so, and end the machine instead of hanging it.
#![expect(unsafe_code, reason = "language hooks have fixed symbol names")]

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    firebrick_guest::die(format_args!("{info}"))
}

/// Named by the precompiled `core`, which can unwind; this program cannot, so it is never called.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    firebrick_guest::die(format_args!("unwinding"))
}
