//! Tests of [`super`].

use super::*;

#[test]
fn classes_hold_what_they_promise() {
    for bytes in 1..=LARGE_BYTES {
        let (class, size) = class_of(bytes);
        assert!(
            size >= bytes && size.is_multiple_of(MIN_BYTES) && class < CLASSES,
            "{bytes}: {class} {size}"
        );
        assert!(
            size <= (bytes + bytes / 2 + MIN_BYTES),
            "{bytes} wastes too much in {size}"
        );
        let (next, next_size) = class_of((size + 1).min(LARGE_BYTES));
        assert!(size == LARGE_BYTES || (next > class && next_size > size));
    }
}

#[test]
fn blocks_keep_their_bytes_and_never_overlap() {
    let mut heap = Heap::new();
    let mut live: std::vec::Vec<(*mut u8, Layout, u8)> = std::vec::Vec::new();
    let mut random = 12345u32;
    let mut next = |limit: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % limit
    };
    for step in 0..20_000u32 {
        let size = match next(10) {
            0 => next(300_000),
            1..4 => next(20_000),
            _ => next(200),
        } as usize
            + 1;
        let fill = step as u8;
        match next(3) {
            0 if !live.is_empty() => {
                let (block, layout, fill) = live.swap_remove(next(live.len() as u32) as usize);
                check(block, layout.size(), fill);
                // SAFETY: the block is live and of this layout.
                unsafe { heap.free(block, layout) };
            }
            1 if !live.is_empty() => {
                let index = next(live.len() as u32) as usize;
                let (block, layout, fill) = live[index];
                // SAFETY: the block is live and of this layout.
                let block = unsafe { heap.resize(block, layout, size) };
                assert!(!block.is_null());
                check(block, layout.size().min(size), fill);
                // SAFETY: the block is now `size` bytes long.
                unsafe { block.write_bytes(fill, size) };
                live[index] = (
                    block,
                    Layout::from_size_align(size, layout.align()).expect("a layout"),
                    fill,
                );
            }
            _ => {
                let align = if next(50) == 0 { 4096 } else { 1 << next(5) };
                let layout = Layout::from_size_align(size, align).expect("a layout");
                let block = heap.allocate(layout);
                assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                // SAFETY: the block is `size` bytes long.
                unsafe { block.write_bytes(fill, size) };
                live.push((block, layout, fill));
            }
        }
    }
    for (block, layout, fill) in live {
        check(block, layout.size(), fill);
        // SAFETY: the block is live and of this layout.
        unsafe { heap.free(block, layout) };
    }
    assert_holds_nothing(&heap);
}

/// All slabs have gone back, but one.
fn assert_holds_nothing(heap: &Heap) {
    assert!(heap.roomy.iter().all(|slab| slab.is_null()));
    assert!(!heap.spare.is_null());
}

#[test]
fn a_burst_of_one_size_leaves_nothing_for_the_next() {
    let mut heap = Heap::new();
    for size in [1, 16, 30, 48, 100, 1500, 4000, 12_000, LARGE_BYTES] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let blocks: std::vec::Vec<*mut u8> = (0..2000).map(|_| heap.allocate(layout)).collect();
        let of_slab = (SLAB_BYTES - HEADER_BYTES) / class_of(size).1;
        let slabs: std::collections::BTreeSet<usize> =
            blocks.iter().map(|block| block.addr() / SLAB_BYTES).collect();
        assert_eq!(slabs.len(), 2000usize.div_ceil(of_slab), "{size}");
        for block in blocks.iter().step_by(2).chain(blocks.iter().skip(1).step_by(2)) {
            // SAFETY: the block is live, of this layout, and given back once.
            unsafe { heap.free(*block, layout) };
        }
        assert_holds_nothing(&heap);
    }
}

fn check(block: *mut u8, size: usize, fill: u8) {
    // SAFETY: the caller's block is live and that long.
    let bytes = unsafe { core::slice::from_raw_parts(block, size) };
    assert!(bytes.iter().all(|byte| *byte == fill));
}
