//! What a program without libc must bring itself: entry point, memory functions, allocator, panic handler.
//!
//! Only the binary compiles this (feature `bin`): these symbols would collide with libc's.

mod heap;
mod mem;
mod panic;
mod start;
