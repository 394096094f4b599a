//! The calls of a hardened heap in a static, of which most take no lock: what may be done with
//! blocks is not refused, whatever their size and alignment, and each fault is told.

use crate::system::OS;
use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Hardening, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
};
use std::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
    ptr::NonNull,
};

thread_local! {
    /// What was refused.
    static TOLD: RefCell<Vec<(usize, HeapError)>> = const { RefCell::new(Vec::new()) };
}

fn told() -> Vec<(usize, HeapError)> {
    TOLD.take()
}

/// Makes a heap in a static that is opened at a level.
macro_rules! heap {
    ($Heap:ident, $Slot:ident, $level:expr) => {
        hostmem::std_slot! {
            struct $Slot;
        }

        struct $Heap;

        // SAFETY: the state and the slot are this heap's alone, and no provider allocates.
        unsafe impl StaticHeap for $Heap {
            type Pages = OsProvider;
            type Metadata = OsProvider;
            type Lock = OsLock;
            type Slot = $Slot;

            const HARDENED: bool = true;

            fn open() -> Result<HeapOf<Self>, HeapError> {
                let config = HeapConfig::new().hardening($level).quarantine(0);
                Heap::on(OS, OS, config.large_pages(false))
            }

            fn state() -> &'static State<Self> {
                static STATE: State<$Heap> = State::new();
                &STATE
            }

            fn refused(block: *mut u8, error: HeapError) {
                TOLD.with_borrow_mut(|told| told.push((block.addr(), error)));
            }
        }
    };
}

heap!(Checked, CheckedSlot, Hardening::Checked);
heap!(Canaries, CanariesSlot, Hardening::Canaries);
heap!(Full, FullSlot, Hardening::Full);

const ALIGNS: [usize; 7] = [1, 16, 32, 64, 512, 1024, 4096];

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

fn alloc<C: StaticHeap>(layout: Layout) -> NonNull<u8> {
    // SAFETY: no size here is zero.
    let block = unsafe { GlobalHeap::<C>::new().alloc(layout) };
    NonNull::new(block).expect("memory")
}

/// Frees a block, or tries to, as a faulty program does.
fn free<C: StaticHeap>(block: NonNull<u8>, layout: Layout) {
    // SAFETY: none where it is no live block of this layout: this is the fault, which is to be
    // told.
    unsafe { GlobalHeap::<C>::new().dealloc(block.as_ptr(), layout) };
}

/// Changes bytes of a block, or behind it.
fn spoil(block: NonNull<u8>, offset: usize, count: usize) {
    for n in offset..offset + count {
        let place = block.as_ptr().wrapping_add(n);
        // SAFETY: in memory of the heap, which only this test uses. This is the fault.
        let byte = unsafe { place.read_volatile() };
        // SAFETY: in memory of the heap, which only this test uses. This is the fault.
        unsafe { place.write_volatile(!byte) };
    }
}

fn is<C: StaticHeap>(level: Hardening) -> bool {
    GlobalHeap::<C>::new()
        .heap()
        .expect("a heap")
        .config()
        .level()
        == level
}

/// Every size up to some, and a few others, of each kind of class.
fn sizes() -> impl Iterator<Item = usize> {
    (1..1300)
        .chain((1300..9000).step_by(37))
        .chain((9000..300_000).step_by(7919))
        .chain([1016, 1017, 2039, 2040, 2041, 32_759, 32_760, 32_761])
        .chain([262_135, 262_136, 262_137, 1 << 20, 3_000_001])
}

fn blocks_are_as_long_as_was_asked<C: StaticHeap>() {
    let heap = GlobalHeap::<C>::new();
    let is_hardened = !is::<C>(Hardening::Checked);
    for (size, align) in sizes().flat_map(|size| ALIGNS.map(|align| (size, align))) {
        let layout = layout(size, align);
        // Of a fresh block, and of one that was used.
        for _ in 0..2 {
            let block = alloc::<C>(layout);
            assert!(block.addr().get().is_multiple_of(align), "{layout:?}");
            let usable = heap.heap().expect("a heap").usable_size(block);
            let usable = usable.expect("a live block");
            assert!(
                usable == size || !is_hardened && usable > size,
                "{usable}, {layout:?}"
            );
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(0xee, usable) };
            free::<C>(block, layout);
        }
        assert_eq!(told(), [], "{layout:?}");
    }
    // Of what is free and of a class that is a little larger, too.
    let shared = heap.heap().expect("a heap");
    for (size, align) in sizes().flat_map(|size| ALIGNS.map(|align| (size, align))) {
        if let Ok(block) = shared.try_alloc(layout(size, align)) {
            let usable = shared.usable_size(block);
            assert!(
                usable == Some(size) || !is_hardened && usable > Some(size),
                "{usable:?}, {size} {align}"
            );
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(0xee, size) };
            // SAFETY: live, and used no more.
            unsafe { shared.try_free(block) }.expect("a live block");
        }
    }
    // Performs the deferred frees.
    shared.trim();
    let held = shared.statistics();
    assert_eq!((held.used, held.corrupt_blocks), (0, 0), "{held:?}");
}

fn faults_are_told<C: StaticHeap>() {
    for size in sizes() {
        let right = layout(size, 1);
        let block = alloc::<C>(right);
        let addr = block.addr().get();
        // The block had a canary elsewhere before, which must not be taken for one of now.
        let longer = layout(size + 5, 1);
        free::<C>(block, right);
        let other = alloc::<C>(longer);
        free::<C>(other, longer);
        let block = alloc::<C>(right);
        for wrong in [size + 5, size + 1, size.saturating_sub(1)] {
            free::<C>(block, layout(wrong, 1));
            let told = told();
            let is_wrong =
                |(_, error): &(usize, HeapError)| matches!(error, HeapError::WrongLayout(_));
            assert!(
                told.len() == 1 && told.iter().all(is_wrong),
                "{size}: {told:?}"
            );
        }
        free::<C>(block, right);
        assert_eq!(told(), [], "{size} at {addr:#x}");
        free::<C>(block, right);
        assert!(
            matches!(told()[..], [(_, HeapError::NotLive | HeapError::NotOwned)]),
            "{size}"
        );
        // What has whole pages has no room for a canary.
        if size < 200_000 {
            let block = alloc::<C>(right);
            spoil(block, size, 1);
            free::<C>(block, right);
            let told = told();
            assert!(
                matches!(told[..], [(_, HeapError::Overflow(_))]),
                "{size}: {told:?}"
            );
        }
    }
}

/// A block is found that was written while it was free, at its start, when it is to serve again;
/// the next call gets another one.
fn writes_after_frees_are_told<C: StaticHeap>() {
    for size in [1, 8, 100, 1000, 2000, 3000, 30_000] {
        let layout = layout(size, 1);
        // So that the slab stays.
        let _kept = alloc::<C>(layout);
        for (offset, count) in [(0, 1), (0, 8), (7, 1), (8, 8), (15, 1)] {
            let block = alloc::<C>(layout);
            free::<C>(block, layout);
            spoil(block, offset, count);
            let mut found = None;
            for _ in 0..8192 {
                // SAFETY: the size is not zero.
                let other = unsafe { GlobalHeap::<C>::new().alloc(layout) };
                assert_ne!(other, block.as_ptr(), "{size}");
                if other.is_null() {
                    found = told().pop();
                    break;
                }
            }
            let at = block.addr().get();
            assert!(
                matches!(found, Some((told, HeapError::WriteAfterFree(_))) if told == at),
                "{size}, {offset}: {found:?}"
            );
        }
    }
}

fn blocks_are_resized<C: StaticHeap>() {
    let heap = GlobalHeap::<C>::new();
    for align in [1, 64, 1024] {
        let mut size = 1;
        let mut block = alloc::<C>(layout(size, align));
        // SAFETY: a live block of one byte.
        unsafe { block.write(0x5a) };
        let up = (0..60).map(|n| 1 + n * n * 7);
        for new in up.clone().chain(up.rev()) {
            // SAFETY: live, of this layout; the new size is not zero.
            let moved = unsafe { heap.realloc(block.as_ptr(), layout(size, align), new) };
            block = NonNull::new(moved).expect("memory");
            size = new;
            let usable = heap.heap().expect("a heap").usable_size(block);
            assert!(usable.is_some_and(|usable| usable >= size), "{size}");
            // SAFETY: a live block of this many bytes, the first of which was written.
            assert_eq!(unsafe { block.read() }, 0x5a);
            let rest = NonNull::new(block.as_ptr().wrapping_add(1)).expect("not null");
            // SAFETY: a live block of this many bytes, the first of which was written.
            unsafe { rest.write_bytes(0xff, size - 1) };
        }
        free::<C>(block, layout(size, align));
        assert_eq!(told(), [], "{align}");
    }
}

#[test]
fn a_heap_may_be_opened_at_the_first_level() {
    assert!(is::<Checked>(Hardening::Checked));
    blocks_are_as_long_as_was_asked::<Checked>();
    blocks_are_resized::<Checked>();
}

#[test]
fn the_lower_level_tells_faults_and_no_others() {
    assert!(is::<Canaries>(Hardening::Canaries));
    blocks_are_as_long_as_was_asked::<Canaries>();
    blocks_are_resized::<Canaries>();
    faults_are_told::<Canaries>();
    writes_after_frees_are_told::<Canaries>();
}

#[test]
fn the_highest_level_tells_faults_and_no_others() {
    assert!(is::<Full>(Hardening::Full));
    blocks_are_as_long_as_was_asked::<Full>();
    blocks_are_resized::<Full>();
    faults_are_told::<Full>();
    writes_after_frees_are_told::<Full>();
}
