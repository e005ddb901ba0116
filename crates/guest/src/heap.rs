//! A small allocator over `mmap`, for a program with one thread that runs as long as the machine.
//!
//! Blocks up to 16 KiB come from free lists, one for each power of two and each half between two of them. Larger
//! blocks are mappings of their own: they go back to the kernel when they are freed, and growing one moves pages,
//! not bytes. So a burst of large answers leaves nothing behind, which matters more here than a tight packing.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::Layout;
use core::ptr;

use crate::kernel;

/// The smallest block, and the alignment of every block.
const MIN_BYTES: usize = 16;
/// Blocks above this are mappings of their own.
const LARGE_BYTES: usize = 16 * 1024;
/// How much is mapped at once for small blocks.
const CHUNK_BYTES: usize = 256 * 1024;
/// Alignments above this are not served.
const PAGE_BYTES: usize = 4096;
/// 16, 32, 48, 64, 96, 128, … 16,384: two for each doubling (one number, between 16 and 32, stays unused).
const CLASSES: usize = 21;

/// The allocator's state. Not for several threads at once.
#[derive(Debug)]
pub struct Heap {
    /// Free blocks by class, each holding the address of the next.
    free: [*mut u8; CLASSES],
    /// The rest of the newest chunk.
    fresh: *mut u8,
    fresh_bytes: usize,
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

impl Heap {
    /// An empty heap; nothing is mapped yet.
    pub const fn new() -> Heap {
        Heap {
            free: [ptr::null_mut(); CLASSES],
            fresh: ptr::null_mut(),
            fresh_bytes: 0,
        }
    }

    /// A block for `layout`, or null.
    pub fn allocate(&mut self, layout: Layout) -> *mut u8 {
        // Blocks are aligned to 16; a multiple of a higher alignment is met by a mapping.
        if layout.size() > LARGE_BYTES || layout.align() > MIN_BYTES {
            if layout.align() > PAGE_BYTES {
                return ptr::null_mut();
            }
            return pages(layout.size().max(1)).map_or(ptr::null_mut(), kernel::map_memory);
        }
        let (class, bytes) = class_of(layout.size());
        let block = self.free[class];
        if !block.is_null() {
            // SAFETY: a free block holds the next one's address, written by `free`, and is at least 16 bytes.
            self.free[class] = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        if self.fresh_bytes < bytes {
            let chunk = kernel::map_memory(CHUNK_BYTES);
            if chunk.is_null() {
                return chunk;
            }
            // The old chunk's rest is given up: it was never touched, so it costs no memory.
            self.fresh = chunk;
            self.fresh_bytes = CHUNK_BYTES;
        }
        let block = self.fresh;
        // SAFETY: the chunk has that many bytes left.
        self.fresh = unsafe { self.fresh.add(bytes) };
        self.fresh_bytes -= bytes;
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` must come from this heap, for this layout, and not be used any more.
    pub unsafe fn free(&mut self, block: *mut u8, layout: Layout) {
        if layout.size() > LARGE_BYTES || layout.align() > MIN_BYTES {
            let bytes = pages(layout.size().max(1)).unwrap_or(0);
            // SAFETY: `allocate` mapped exactly these bytes for the block.
            unsafe { kernel::unmap_memory(block, bytes) };
            return;
        }
        let (class, _) = class_of(layout.size());
        // SAFETY: the block is ours again and at least 16 bytes.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }

    /// A block of `size` bytes with the old one's content, or null and the old one stays.
    ///
    /// # Safety
    /// `block` must come from this heap, for this layout.
    pub unsafe fn resize(&mut self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        if layout.align() <= MIN_BYTES && layout.size() <= LARGE_BYTES && size <= LARGE_BYTES {
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
