//! House checks and chores.
fn main() {}
