//! The program's allocator: [`firebrick_guest::heap::Heap`] as the global one.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;

use firebrick_guest::heap::Heap;

struct OnlyThread(UnsafeCell<Heap>);

// SAFETY: the program never starts a second thread.
unsafe impl Sync for OnlyThread {}

#[global_allocator]
static HEAP: OnlyThread = OnlyThread(UnsafeCell::new(Heap::new()));

// SAFETY: `Heap` gives out blocks that are valid for the layout and do not overlap, until they come back. There is
// one thread, and the heap calls nothing that allocates, so the exclusive borrows never overlap.
unsafe impl GlobalAlloc for OnlyThread {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see the impl.
        unsafe { (*self.0.get()).allocate(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see the impl; the caller gives back what `alloc` gave.
        unsafe { (*self.0.get()).free(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see the impl; the caller gives back what `alloc` gave.
        unsafe { (*self.0.get()).resize(block, layout, size) }
    }
}
