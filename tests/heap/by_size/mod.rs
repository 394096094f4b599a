//! Calls by size: what a malloc is made of, held against a model, on every kind of heap, on the
//! operating system and on a simulated host.

mod errors;
#[cfg(feature = "std")]
mod global;

use crate::{
    common::{at_length, emulated, random::Random},
    system::OS,
};
use core::ptr::NonNull;
use errors::check_errors;
use hostmem::{
    OsLock,
    heap::{BlockInfo, Hardening, Heap, HeapConfig, HeapError, LocalHeap},
    provider::PageProvider,
};
use std::collections::BTreeMap;

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

impl Random {
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
    // SAFETY: the caller vouches for a live block of `len` bytes that is its own.
    unsafe { block.write_bytes(byte, len) };
    // SAFETY: the caller vouches for `len` bytes that are its own; written above.
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
    // SAFETY: the caller vouches for `len` bytes, written, that no other code writes.
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
    // SAFETY: the caller vouches for `len` bytes, written, that no other code writes.
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
        // SAFETY: live; the old address is used no more.
        let block = unsafe { heap.realloc_bytes(block, size) }.expect("memory");
        // SAFETY: live, of `size` bytes that were filled.
        assert!(unsafe { is_filled(block, size, size, 9) }, "{size}");
        // SAFETY: live, and used no more.
        unsafe { one.free(block) }.expect("a live block");
    }
}
