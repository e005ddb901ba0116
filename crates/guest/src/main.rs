//! `firebrick-guest`: see the library of the same name.
#![no_std]
#![no_main]
#![cfg_attr(not(test), no_builtins)]

extern crate alloc;

mod rt;
