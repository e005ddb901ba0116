//! Our own checker beside `e2fsck -fn`: what passes there passes here, and what is found there is found here.

#[path = "../read/image.rs"]
#[expect(dead_code, reason = "made for more than these tests need")]
mod image;

mod clean;
mod damage;
mod flips;
mod made;
mod random;
