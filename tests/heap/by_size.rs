//! Calls by size: what a malloc is made of, held against a model, on every kind of heap, on the
//! operating system and on a simulated host.

use crate::common::{at_length, emulated};
use core::ptr::NonNull;
use hostmem::{
    OsLock, OsProvider,
    heap::{BlockInfo, Hardening, Heap, HeapConfig, HeapError, LocalHeap},
    provider::PageProvider,
};
use std::collections::BTreeMap;

const OS: OsProvider = OsProvider::new();

/// Every call of interest, of any kind of heap.
trait Calls {
    fn alloc(&self, size: usize) -> Result<NonNull<u8>, HeapError>;
    fn zeroed(&self, size: usize) -> Result<NonNull<u8>, HeapError>;
    fn aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, HeapError>;
    unsafe fn resize(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<u8>, HeapError>;
    unsafe fn release(&self, block: NonNull<u8>) -> Result<(), HeapError>;
    fn usable(&self, block: NonNull<u8>) -> Option<usize>;
    fn has(&self, addr: usize) -> bool;
    fn around(&self, addr: usize) -> Option<BlockInfo>;
}

macro_rules! calls {
    ([$($generics:tt)*] $Heap:ty) => {
        impl<$($generics)*> Calls for $Heap {
            fn alloc(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
                self.alloc_bytes(size)
            }
            fn zeroed(&self, size: usize) -> Result<NonNull<u8>, HeapError> {
                self.alloc_bytes_zeroed(size)
            }
            fn aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, HeapError> {
                self.alloc_aligned(size, align)
            }
            unsafe fn resize(
                &self,
                block: NonNull<u8>,
                size: usize,
            ) -> Result<NonNull<u8>, HeapError> {
                // SAFETY: the caller gives the block up, if it is one.
                unsafe { self.realloc_bytes(block, size) }
            }
            unsafe fn release(&self, block: NonNull<u8>) -> Result<(), HeapError> {
                // SAFETY: the caller gives the block up, if it is one.
                unsafe { self.free(block) }
            }
            fn usable(&self, block: NonNull<u8>) -> Option<usize> {
                self.usable_size(block)
            }
            fn has(&self, addr: usize) -> bool {
                self.owns(addr)
            }
            fn around(&self, addr: usize) -> Option<BlockInfo> {
                self.block_of(addr)
            }
        }
    };
}

calls!([P: PageProvider + Copy] Heap<P, P, OsLock>);
calls!([P: PageProvider + Copy] LocalHeap<'_, P, P, OsLock>);
#[cfg(feature = "std")]
calls!([C: hostmem::heap::StaticHeap] hostmem::heap::GlobalHeap<C>);

/// Numbers that a seed repeats (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("32 bits") % bound
    }

    /// A size of every kind of block: of a class, large, and huge.
    fn size(&mut self) -> usize {
        match self.below(100) {
            0..3 => 0,
            3..60 => self.below(600),
            60..80 => self.below(40_000),
            80..92 => self.below(300_000),
            92..97 => self.below(1_200_000),
            _ => self.below(5 << 20),
        }
    }
}

/// Bytes between two stamps, so that a copy from a wrong place is seen.
const STRIDE: usize = 1000;

/// What a block holds: one byte everywhere, and at every [`STRIDE`] which stride it is.
fn stamp(index: usize) -> [u8; 2] {
    u16::try_from(index).expect("few strides").to_le_bytes()
}

/// Fills a block.
///
/// # Safety
///
/// `len` bytes that are the caller's alone.
unsafe fn fill(block: NonNull<u8>, len: usize, byte: u8) {
    // SAFETY: the caller's promise.
    unsafe { block.write_bytes(byte, len) };
    // SAFETY: the caller's promise; written above.
    let bytes = unsafe { NonNull::slice_from_raw_parts(block, len).as_mut() };
    for (index, part) in bytes.chunks_exact_mut(STRIDE).enumerate() {
        part[..2].copy_from_slice(&stamp(index));
    }
}

/// Says whether the first `len` bytes are those of a block of `whole` bytes that was filled.
///
/// # Safety
///
/// `len` bytes that were written, and that are the caller's alone.
unsafe fn is_filled(block: NonNull<u8>, len: usize, whole: usize, byte: u8) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { NonNull::slice_from_raw_parts(block, len).as_ref() };
    let uniform = [byte; STRIDE];
    bytes.chunks(STRIDE).enumerate().all(|(index, part)| {
        let stamped = (index + 1) * STRIDE <= whole;
        let skipped = if stamped { part.len().min(2) } else { 0 };
        (!stamped || part.starts_with(&stamp(index)[..skipped]))
            && part[skipped..] == uniform[..part.len() - skipped]
    })
}

/// A live block: what was asked for, and what is in it.
#[derive(Clone, Copy)]
struct Block {
    start: NonNull<u8>,
    size: usize,
    byte: u8,
}

/// All live blocks by address, held against what the heap says.
struct Model<'a, H> {
    heap: &'a H,
    live: BTreeMap<usize, Block>,
    /// Whether the usable size is what was asked for.
    is_exact: bool,
    /// Whether no other thread or handler uses the heap, which could be given what was just freed.
    is_alone: bool,
}

impl<H: Calls> Model<'_, H> {
    fn insert(&mut self, start: NonNull<u8>, size: usize, align: usize, byte: u8) {
        let addr = start.addr().get();
        assert!(addr.is_multiple_of(align.max(16)), "{addr:#x} of {align}");
        let usable = self.heap.usable(start).expect("a live block");
        assert!(usable >= size, "{usable} of {size}");
        assert!(!self.is_exact || usable == size, "{usable} of {size}");
        if let Some((_, before)) = self.live.range(..=addr).next_back() {
            let end = before.start.addr().get() + before.size;
            assert!(end <= addr && before.start != start, "blocks overlap");
        }
        if let Some((next, _)) = self.live.range(addr + 1..).next() {
            assert!(addr + usable <= *next, "blocks overlap");
        }
        for at in [0, size / 2, size.saturating_sub(1)] {
            assert!(self.heap.has(addr + at));
            let info = self.heap.around(addr + at).expect("a live block");
            assert_eq!((info.addr, info.len), (addr, usable));
        }
        // SAFETY: a live block, and this model's alone.
        unsafe { fill(start, size, byte) };
        self.live.insert(addr, Block { start, size, byte });
    }

    fn take(&mut self, random: &mut Random) -> Option<Block> {
        let nth = random.below(self.live.len().max(1));
        let addr = *self.live.keys().nth(nth)?;
        let block = self.live.remove(&addr)?;
        // SAFETY: live, filled when it was inserted, and this model's.
        let intact = unsafe { is_filled(block.start, block.size, block.size, block.byte) };
        assert!(intact, "{} bytes at {addr:#x}", block.size);
        Some(block)
    }

    fn free(&mut self, block: Block) {
        // SAFETY: live, and used no more.
        unsafe { self.heap.release(block.start) }.expect("a live block");
        if !self.is_alone {
            return;
        }
        // The heap looks, and refuses.
        // SAFETY: it is no live block.
        let again = unsafe { self.heap.release(block.start) };
        assert!(
            matches!(again, Err(HeapError::NotLive | HeapError::NotOwned)),
            "{again:?}"
        );
        assert_eq!(self.heap.usable(block.start), None);
    }

    fn step(&mut self, random: &mut Random) {
        let byte = u8::try_from(1 + random.below(255)).expect("a byte");
        let size = random.size();
        match random.below(10) {
            0..3 => {
                let start = self.heap.alloc(size).expect("memory");
                self.insert(start, size, 16, byte);
            }
            3 => {
                let start = self.heap.zeroed(size).expect("memory");
                // SAFETY: live, and reads zero, which is what is asserted.
                let zero = unsafe { is_zero(start, size) };
                assert!(zero, "{size} bytes");
                self.insert(start, size, 16, byte);
            }
            4 => {
                let align = 1 << random.below(21);
                let size = size.min(300_000);
                let start = self.heap.aligned(size, align).expect("memory");
                self.insert(start, size, align, byte);
            }
            5..8 => {
                let Some(old) = self.take(random) else {
                    return;
                };
                // SAFETY: live; the old address is used no more.
                let start = unsafe { self.heap.resize(old.start, size) }.expect("memory");
                let kept = old.size.min(size);
                // SAFETY: live, and the contents were kept, which is what is asserted.
                let intact = unsafe { is_filled(start, kept, old.size, old.byte) };
                assert!(intact, "{} to {size} bytes", old.size);
                self.insert(start, size, 16, byte);
            }
            _ => {
                if let Some(block) = self.take(random) {
                    self.free(block);
                }
            }
        }
        // About as much as tests may have.
        while self.live.len() > 120 {
            if let Some(block) = self.take(random) {
                self.free(block);
            }
        }
    }
}

/// Says whether a block reads zero.
///
/// # Safety
///
/// `len` bytes that are initialised, and the caller's alone.
unsafe fn is_zero(block: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { NonNull::slice_from_raw_parts(block, len).as_ref() };
    bytes.first().is_none_or(|first| *first == 0)
        && bytes
            .get(1..)
            .is_none_or(|rest| rest == &bytes[..rest.len()])
}

/// A long mix of all calls, and the errors of each.
fn check<H: Calls>(heap: &H, seed: u64, is_exact: bool, is_alone: bool) {
    let steps = match (at_length(), emulated()) {
        (true, _) => 100_000,
        (false, false) => 1500,
        (false, true) => 300,
    };
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut model = Model {
        heap,
        live: BTreeMap::new(),
        is_exact,
        is_alone,
    };
    for _ in 0..steps {
        model.step(&mut random);
    }
    check_errors(heap);
    while let Some(block) = model.take(&mut random) {
        model.free(block);
    }
}

/// What must be refused, and leaves everything as it was.
fn check_errors<H: Calls>(heap: &H) {
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
            // SAFETY: as above.
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
    // SAFETY: as above.
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

fn heap_on<P: PageProvider + Copy>(provider: P, config: HeapConfig) -> Heap<P, P, OsLock> {
    Heap::on(provider, provider, config).expect("metadata")
}

/// Checks a heap, one of its handles, and what is left afterwards.
fn check_heap<P: PageProvider + Copy>(provider: P, config: HeapConfig, is_exact: bool) {
    let heap = heap_on(provider, config);
    check(&heap, 1, is_exact, true);
    {
        let local = heap.local().expect("metadata");
        check(&local, 2, is_exact, true);
        local.flush();
        assert_eq!(heap.statistics().cached, 0);
    }
    let held = heap.statistics();
    assert_eq!((held.used, held.corrupt_blocks), (0, 0), "{held:?}");
}

#[test]
fn sizes_and_contents_are_right_on_this_host() {
    check_heap(OS, HeapConfig::new(), false);
}

#[test]
fn sizes_are_exact_where_blocks_are_hardened() {
    check_heap(OS, HeapConfig::new().hardening(Hardening::Full), true);
}

#[test]
#[cfg(feature = "sim")]
fn sizes_and_contents_are_right_on_a_simulated_host() {
    use hostmem::{
        page::PageSize,
        sim::{Policy, Sim},
    };
    for page in [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64] {
        if page.bytes() < OS.page_size().bytes() {
            continue;
        }
        let sim = Sim::new(OS, Policy::new(page).space(2 << 30)).expect("a simulated host");
        check_heap(&sim, HeapConfig::new(), false);
        assert!(sim.take_misuse().is_none());
    }
}

#[test]
fn blocks_of_handles_are_freed_and_resized_by_others() {
    let heap = heap_on(OS, HeapConfig::new());
    let one = heap.local().expect("metadata");
    let other = heap.local().expect("metadata");
    for size in [1, 1000, 30_000, 100_000, 700_000, 3 << 20] {
        let block = one.alloc_bytes(size).expect("memory");
        // SAFETY: a live block of this size.
        unsafe { fill(block, size, 9) };
        // SAFETY: live; the old address is used no more.
        let block = unsafe { other.realloc_bytes(block, size * 2) }.expect("memory");
        // SAFETY: live, and kept, which is what is asserted.
        assert!(unsafe { is_filled(block, size, size, 9) }, "{size}");
        // SAFETY: as above.
        let block = unsafe { heap.realloc_bytes(block, size) }.expect("memory");
        // SAFETY: as above.
        assert!(unsafe { is_filled(block, size, size, 9) }, "{size}");
        // SAFETY: live, and used no more.
        unsafe { one.free(block) }.expect("a live block");
    }
}

/// The heap in a static.
#[cfg(feature = "std")]
mod global {
    use super::*;
    use crate::common::signals::{handle, interrupted};
    use core::sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    };
    use hostmem::heap::{GlobalHeap, HeapOf, State, StaticHeap};
    use hostmem_test_support::isolate::isolated;
    use std::thread;

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
}
