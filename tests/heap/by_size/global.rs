//! The heap in a static.

use super::{Model, OS, Random, check, fill, is_filled};
use crate::common::{
    emulated,
    signals::{handle, interrupted},
};
use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};
use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
};
use hostmem_test_support::isolate::isolated;
use std::{collections::BTreeMap, thread};

macro_rules! static_heap {
    ($Name:ident, $Slot:ident, $CHECKED:literal) => {
        hostmem::std_slot! {
            struct $Slot;
        }

        #[derive(Debug)]
        struct $Name;

        // SAFETY: the state and the slot are this heap's alone, and no provider allocates.
        unsafe impl StaticHeap for $Name {
            type Pages = OsProvider;
            type Metadata = OsProvider;
            type Lock = OsLock;
            type Slot = $Slot;

            const CHECKED: bool = $CHECKED;

            fn open() -> Result<HeapOf<Self>, HeapError> {
                OPENED.fetch_add(1, Relaxed);
                Heap::on(OS, OS, HeapConfig::new())
            }

            fn state() -> &'static State<Self> {
                static STATE: State<$Name> = State::new();
                &STATE
            }

            fn refused(block: *mut u8, error: HeapError) {
                println!("{block:p}: {error}");
                std::process::abort();
            }
        }
    };
}

static OPENED: AtomicUsize = AtomicUsize::new(0);
static_heap!(Mixed, MixedSlot, true);
static_heap!(Closed, ClosedSlot, true);
static_heap!(Flushed, FlushedSlot, true);
static_heap!(Interrupted, InterruptedSlot, true);
static_heap!(Unchecked, UncheckedSlot, false);
static_heap!(Told, ToldSlot, true);

/// Errors are returned: `refused` would end the program.
#[test]
fn threads_find_sizes_and_contents_right() {
    let heap = GlobalHeap::<Mixed>::new();
    check(&heap, 3, false, true);
    thread::scope(|scope| {
        for seed in 4..7 {
            scope.spawn(move || check(&heap, seed, false, false));
        }
    });
    heap.detach();
    // Every call takes a lock now.
    check(&heap, 7, false, true);
    let held = heap.heap().expect("it is open").statistics();
    assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
}

#[test]
fn questions_do_not_open_a_heap() {
    let heap = GlobalHeap::<Closed>::new();
    let other = NonNull::from(&0_u8);
    let before = OPENED.load(SeqCst);
    isolated!("questions_do_not_open_a_heap", || {
        assert!(!heap.owns(other.addr().get()));
        assert_eq!(heap.block_of(other.addr().get()), None);
        assert_eq!(heap.usable_size(other), None);
        heap.flush();
        assert_eq!(OPENED.load(SeqCst), before);
        let block = heap.alloc_bytes(1).expect("memory");
        assert_eq!(OPENED.load(SeqCst), before + 1);
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    });
}

#[test]
fn what_a_thread_has_cached_is_flushed() {
    let heap = GlobalHeap::<Flushed>::new();
    let blocks: Vec<_> = (0..200).map(|n| heap.alloc_bytes(n * 7)).collect();
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { heap.free(block.expect("memory")) }.expect("a live block");
    }
    let open = heap.heap().expect("it is open");
    assert!(open.statistics().cached > 0);
    heap.flush();
    assert_eq!(open.statistics().cached, 0);
}

#[test]
fn blocks_come_and_go_without_checks() {
    let heap = GlobalHeap::<Unchecked>::new();
    for size in (0..5000).chain([40_000, 400_000, 4 << 20]) {
        let block = heap.alloc_bytes_or_else(size, |error| panic!("{size}: {error}"));
        let block = NonNull::new(block).expect("a block");
        // SAFETY: a live block of this size.
        unsafe { fill(block, size, 3) };
        // SAFETY: live; the old address is used no more.
        let block = unsafe { heap.realloc_bytes(block, size * 2) }.expect("memory");
        // SAFETY: live, and kept, which is what is asserted.
        assert!(unsafe { is_filled(block, size, size, 3) });
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
    let mut errors = Vec::new();
    for size in [usize::MAX, usize::MAX / 2, 1 << 55] {
        let other = NonNull::dangling().as_ptr();
        let got = heap.alloc_bytes_or_else(size, |error| {
            errors.push(error);
            other
        });
        assert_eq!(got, other);
    }
    assert_eq!(errors[..2], [HeapError::InvalidSize; 2]);
    assert!(matches!(errors[2..], [HeapError::Memory(_)]), "{errors:?}");
}

/// Blocks of each size and alignment are freed without a result; what is none is told of.
#[test]
fn frees_without_a_result_tell_of_errors() {
    let heap = GlobalHeap::<Told>::new();
    for size in (0..3000).step_by(7).chain([40_000, 400_000, 4 << 20]) {
        for align in [1, 16, 64, 4096] {
            let block = heap.alloc_aligned(size, align).expect("memory");
            assert!(
                block.addr().get().is_multiple_of(align),
                "{size} at {align}"
            );
            // SAFETY: a live block of this size.
            unsafe { fill(block, size, 5) };
            let told = |error| panic!("{size} at {align}: {error}");
            // SAFETY: live, and used no more.
            unsafe { heap.free_or_else(block, told) };
            let mut errors = Vec::new();
            // SAFETY: no live block, which is noticed.
            unsafe { heap.free_or_else(block, |error| errors.push(error)) };
            // Huge ones are not the heap's any more, or kept.
            let expected = [HeapError::NotLive, HeapError::NotOwned];
            assert!(
                errors.len() == 1 && expected.contains(&errors[0]),
                "{errors:?}"
            );
        }
    }
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Makes every call, whatever it interrupted.
extern "C" fn handler(_signal: libc::c_int) {
    let heap = GlobalHeap::<Interrupted>::new();
    for size in [24, 300, 5000, 100_000] {
        let (a, b, c) = (
            heap.alloc_bytes(size),
            heap.alloc_bytes_zeroed(size),
            heap.alloc_aligned(size, 256),
        );
        for block in [a, b, c].into_iter().flatten() {
            // SAFETY: a live block of this size.
            unsafe { fill(block, size, 5) };
            // SAFETY: live; the old address is used no more if this succeeds.
            let resized = unsafe { heap.realloc_bytes(block, size * 2) };
            let block = resized.unwrap_or(block);
            // SAFETY: live, and kept.
            let intact = unsafe { is_filled(block, size, size, 5) };
            let known = heap.usable_size(block).is_some()
                && heap.owns(block.addr().get())
                && heap.block_of(block.addr().get()).is_some();
            // SAFETY: live, and used no more.
            let freed = unsafe { heap.free(block) };
            if !(intact && known && freed.is_ok()) {
                std::process::abort();
            }
        }
    }
    heap.flush();
    HANDLED.fetch_add(1, Relaxed);
}

#[test]
fn signal_handlers_make_every_call_whatever_they_interrupt() {
    const NAME: &str = "signal_handlers_make_every_call_whatever_they_interrupt";
    isolated!(NAME, || {
        handle(libc::SIGUSR1, handler);
        let heap = GlobalHeap::<Interrupted>::new();
        let least = if emulated() { 5 } else { 500 };
        let mut seed = 10;
        let done = || HANDLED.load(Relaxed) >= least;
        interrupted(libc::SIGUSR1, &HANDLED, done, || {
            let mut random = Random(seed);
            let mut model = Model {
                heap: &heap,
                live: BTreeMap::new(),
                is_exact: false,
                is_alone: false,
            };
            (0..100).for_each(|_| model.step(&mut random));
            while let Some(block) = model.take(&mut random) {
                model.free(block);
            }
            seed += 1;
        });
    });
}
