//! What is no block, and what cannot be had.

use super::{Calls, fill, is_filled};
use core::ptr::NonNull;
use hostmem::heap::HeapError;

/// What must be refused, and leaves everything as it was.
pub(super) fn check_errors<H: Calls>(heap: &H) {
    let large = [
        usize::MAX,
        usize::MAX / 2 + 1,
        usize::MAX / 2,
        usize::MAX / 2 - 14,
    ];
    for size in large {
        assert_eq!(heap.alloc(size), Err(HeapError::InvalidSize));
        assert_eq!(heap.zeroed(size), Err(HeapError::InvalidSize));
        assert_eq!(heap.aligned(size, 64), Err(HeapError::InvalidSize));
    }
    // More than any host has, and rounded up to more than there is.
    for size in [1 << 55, usize::MAX / 2 - 15, usize::MAX / 2 - (64 << 10)] {
        let errors = [heap.alloc(size), heap.zeroed(size), heap.aligned(size, 32)];
        let refused = errors.iter().all(Result::is_err);
        assert!(refused, "{size}: {errors:?}");
    }
    for align in [0, 3, 24, usize::MAX] {
        assert_eq!(heap.aligned(100, align), Err(HeapError::InvalidSize));
    }
    assert!(heap.aligned(8, 1 << 62).is_err());
    for size in [0, 1, 100, 20_000, 200_000, 900_000, 3 << 20] {
        let block = heap.alloc(size).expect("memory");
        // SAFETY: a live block of this size.
        unsafe { fill(block, size, 7) };
        for too_large in [usize::MAX, usize::MAX / 2, 1 << 55] {
            // SAFETY: live; an error leaves it as it was.
            let resized = unsafe { heap.resize(block, too_large) };
            assert!(resized.is_err(), "{too_large}");
        }
        // SAFETY: live, and filled above.
        assert!(unsafe { is_filled(block, size, size, 7) }, "{size}");
        if size > 1 {
            // SAFETY: within the block.
            let inside = unsafe { block.add(size / 2) };
            // SAFETY: it is not the start of a block, so that nothing happens to it.
            let freed = unsafe { heap.release(inside) };
            assert_eq!(freed, Err(HeapError::Interior));
            // SAFETY: it is not the start of a block, so that nothing happens to it.
            let resized = unsafe { heap.resize(inside, 50) };
            assert_eq!(resized, Err(HeapError::Interior));
            assert_eq!(heap.usable(inside), None);
        }
        // SAFETY: live, and used no more.
        unsafe { heap.release(block) }.expect("a live block");
    }
    let other = NonNull::from(&0_u8);
    // SAFETY: it is no block of the heap's, so that nothing happens to it.
    let freed = unsafe { heap.release(other) };
    assert_eq!(freed, Err(HeapError::NotOwned));
    // SAFETY: it is no block of the heap's, so that nothing happens to it.
    let resized = unsafe { heap.resize(other, 50) };
    assert_eq!(resized, Err(HeapError::NotOwned));
    assert_eq!(heap.usable(other), None);
    assert_eq!(heap.around(other.addr().get()), None);
    assert!(!heap.has(other.addr().get()));
    // Blocks of no bytes are told apart.
    let (a, b) = (heap.alloc(0), heap.alloc(0));
    assert!(a.is_ok() && a != b, "{a:?} {b:?}");
    for block in [a, b].into_iter().flatten() {
        // SAFETY: live, and used no more.
        unsafe { heap.release(block) }.expect("a live block");
    }
}
