//! A small allocator over `mmap`, for a program with one thread that runs as long as the machine.
//!
//! Blocks up to 16 KiB lie in *slabs* of 64 KiB, each of blocks of one *class*: a power of two, or a half between two of them.
//! Larger blocks are mappings of their own, and growing one moves pages, not bytes. Both go back to the kernel when nothing in
//! them is used any more, so a burst of blocks of one size leaves nothing behind for a burst of another to come on top of. That
//! matters more here than a tight packing.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::Layout;
use core::ptr;

use crate::kernel;

/// The smallest block, and the alignment of every block.
const MIN_BYTES: usize = 16;
/// Blocks above this are mappings of their own.
const LARGE_BYTES: usize = 16 * 1024;
/// Length of a slab, and its alignment: so a block's address tells where its slab begins.
const SLAB_BYTES: usize = 64 * 1024;
/// What a slab begins with, before its blocks.
const HEADER_BYTES: usize = 64;
/// Alignments above this are not served.
const PAGE_BYTES: usize = 4096;
/// 16, 32, 48, 64, 96, 128, … 16,384: two for each doubling (one number, between 16 and 32, stays unused).
const CLASSES: usize = 21;

/// A slab's header. Slabs with room are in the list of their class.
#[derive(Debug)]
struct Slab {
    class: usize,
    /// Length of its blocks.
    block_bytes: usize,
    /// How many are in use.
    used: usize,
    /// Those that were in use, each holding the address of the next.
    free: *mut u8,
    /// Where those begin that were never in use, from the slab's beginning.
    fresh: usize,
    before: *mut Slab,
    behind: *mut Slab,
}

const _: () = assert!(size_of::<Slab>() <= HEADER_BYTES && HEADER_BYTES.is_multiple_of(MIN_BYTES));

/// The allocator's state. Not for several threads at once.
#[derive(Debug)]
pub struct Heap {
    /// The first slab of each class that has room.
    roomy: [*mut Slab; CLASSES],
    /// One without any block in use, kept for who comes next.
    spare: *mut Slab,
}

/// The class of blocks that hold `bytes`, and their size. `bytes` is at most [`LARGE_BYTES`].
fn class_of(bytes: usize) -> (usize, usize) {
    let bytes = bytes.max(MIN_BYTES);
    let power = bytes.next_power_of_two();
    let doublings = (power / MIN_BYTES).trailing_zeros() as usize;
    // Three quarters of a power of two are a multiple of 16 from 48 on.
    let middle = power / 4 * 3;
    if power >= 4 * MIN_BYTES && bytes <= middle {
        (2 * doublings - 1, middle)
    } else {
        (2 * doublings, power)
    }
}

fn pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}

/// Whether a block is a mapping of its own. Blocks in slabs are aligned to 16; a multiple of a higher alignment is met by a mapping.
fn is_large(layout: Layout) -> bool {
    layout.size() > LARGE_BYTES || layout.align() > MIN_BYTES
}

/// Maps a slab; null when there is no memory.
fn map_slab() -> *mut Slab {
    let mapped = kernel::map_memory(2 * SLAB_BYTES);
    if mapped.is_null() {
        return ptr::null_mut();
    }
    let before = mapped.addr().next_multiple_of(SLAB_BYTES) - mapped.addr();
    let behind = SLAB_BYTES - before;
    // SAFETY: the slab's bytes are within the mapping, those before and behind it too, and nobody has either yet.
    unsafe {
        let slab = mapped.add(before);
        if before > 0 {
            kernel::unmap_memory(mapped, before);
        }
        if behind > 0 {
            kernel::unmap_memory(slab.add(SLAB_BYTES), behind);
        }
        slab.cast()
    }
}

impl Slab {
    fn has_room(&self) -> bool {
        !self.free.is_null() || self.fresh + self.block_bytes <= SLAB_BYTES
    }

    /// A block of it; there is room.
    fn take(&mut self) -> *mut u8 {
        self.used += 1;
        let block = self.free;
        if !block.is_null() {
            // SAFETY: a free block holds the next one's address, written by `Heap::free`, and is at least 16 bytes.
            self.free = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        let at = ptr::from_mut(self).expose_provenance() + self.fresh;
        self.fresh += self.block_bytes;
        ptr::with_exposed_provenance_mut(at)
    }
}

impl Heap {
    /// An empty heap; nothing is mapped yet.
    pub const fn new() -> Heap {
        Heap {
            roomy: [ptr::null_mut(); CLASSES],
            spare: ptr::null_mut(),
        }
    }

    /// A block for `layout`, or null.
    pub fn allocate(&mut self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            if layout.align() > PAGE_BYTES {
                return ptr::null_mut();
            }
            return pages(layout.size().max(1)).map_or(ptr::null_mut(), kernel::map_memory);
        }
        let (class, block_bytes) = class_of(layout.size());
        let mut slab = self.roomy[class];
        if slab.is_null() {
            slab = self.new_slab(class, block_bytes);
        }
        // SAFETY: slabs in the lists are mapped, begin with a header, and are referred to by nobody else meanwhile.
        let Some(header) = (unsafe { slab.as_mut() }) else {
            return ptr::null_mut();
        };
        let block = header.take();
        if !header.has_room() {
            self.unlink(slab);
        }
        block
    }

    /// An empty slab in the list of its class, or null.
    fn new_slab(&mut self, class: usize, block_bytes: usize) -> *mut Slab {
        let slab = match core::mem::replace(&mut self.spare, ptr::null_mut()) {
            spare if spare.is_null() => map_slab(),
            spare => spare,
        };
        if !slab.is_null() {
            let header = Slab {
                class,
                block_bytes,
                used: 0,
                free: ptr::null_mut(),
                fresh: HEADER_BYTES,
                before: ptr::null_mut(),
                behind: ptr::null_mut(),
            };
            // SAFETY: the slab is mapped, aligned, and has no block in use.
            unsafe { slab.write(header) };
            self.link(slab);
        }
        slab
    }

    /// Puts a slab, which has room, first into the list of its class.
    fn link(&mut self, slab: *mut Slab) {
        // SAFETY: the slab and those in the lists are mapped and begin with headers.
        unsafe {
            let first = &mut self.roomy[(*slab).class];
            (*slab).before = ptr::null_mut();
            (*slab).behind = *first;
            if let Some(second) = first.as_mut() {
                second.before = slab;
            }
            *first = slab;
        }
    }

    /// Takes a slab out of the list of its class.
    fn unlink(&mut self, slab: *mut Slab) {
        // SAFETY: as in `link`; the slab is in that list.
        unsafe {
            let (before, behind) = ((*slab).before, (*slab).behind);
            match before.as_mut() {
                Some(before) => before.behind = behind,
                None => self.roomy[(*slab).class] = behind,
            }
            if let Some(behind) = behind.as_mut() {
                behind.before = before;
            }
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must come from this heap, for this layout, and not be used any more.
    pub unsafe fn free(&mut self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            let bytes = pages(layout.size().max(1)).unwrap_or(0);
            // SAFETY: `allocate` mapped exactly these bytes for the block.
            unsafe { kernel::unmap_memory(block, bytes) };
            return;
        }
        let begin = block.expose_provenance() / SLAB_BYTES * SLAB_BYTES;
        let slab: *mut Slab = ptr::with_exposed_provenance_mut(begin);
        // SAFETY: the block is ours again, at least 16 bytes, and in a slab, which is mapped and begins with a header.
        let (had_room, is_empty) = unsafe {
            let header = &mut *slab;
            let had_room = header.has_room();
            block.cast::<*mut u8>().write(header.free);
            header.free = block;
            header.used -= 1;
            (had_room, header.used == 0)
        };
        match (had_room, is_empty) {
            (false, _) => self.link(slab),
            (true, true) => {
                self.unlink(slab);
                self.give_back(slab);
            }
            (true, false) => {}
        }
    }

    /// Keeps a slab without any block in use, which is in no list, or gives it back to the kernel.
    fn give_back(&mut self, slab: *mut Slab) {
        if self.spare.is_null() {
            self.spare = slab;
        } else {
            // SAFETY: `map_slab` left exactly these bytes, and nothing in them is used.
            unsafe { kernel::unmap_memory(slab.cast(), SLAB_BYTES) };
        }
    }

    /// A block of `size` bytes with the old one's content, or null and the old one stays.
    ///
    /// # Safety
    /// `block` must come from this heap, for this layout.
    pub unsafe fn resize(&mut self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        if !is_large(layout) && size <= LARGE_BYTES {
            if class_of(layout.size()).0 == class_of(size).0 {
                return block;
            }
        } else if layout.size() > LARGE_BYTES && size > LARGE_BYTES {
            let (Some(old), Some(new)) = (pages(layout.size()), pages(size)) else {
                return ptr::null_mut();
            };
            // SAFETY: the block is a mapping of `old` bytes.
            return unsafe { kernel::remap_memory(block, old, new) };
        }
        let other = self.allocate(wanted);
        if !other.is_null() {
            // SAFETY: both blocks are valid for the smaller size and distinct; the old one is given back after.
            unsafe {
                ptr::copy_nonoverlapping(block, other, layout.size().min(size));
                self.free(block, layout);
            }
        }
        other
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

#[cfg(test)]
#[path = "heap_tests.rs"]
mod tests;
