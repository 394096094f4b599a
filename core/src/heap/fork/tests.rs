//! Repairs with any subset of the locks held, by threads that the child does not have.

extern crate std;

use super::super::{
    Hardening, Heap, HeapConfig, LocalHeap,
    class::{CLASSES, GRANULE, LARGE},
};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Purged, Request},
};
use core::{alloc::Layout, mem, ops::ControlFlow, ptr::NonNull, sync::atomic::Ordering::Relaxed};
use std::{alloc, vec::Vec};

const PAGE: PageSize = PageSize::KIB_4;

/// Memory of the tests' own allocator, all of it writable.
#[derive(Clone, Copy)]
pub(in super::super) struct Memory;

/// Enough for all that is asked for, so that a range can be given back without what it was asked
/// with.
const ALIGN: usize = 1 << 16;

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, ALIGN).expect("pages")
}

// SAFETY: ranges are allocations, zeroed, which are taken back when they are released as a whole,
// and leak else.
unsafe impl PageProvider for Memory {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(PAGE)?;
        if request.placement.align > ALIGN {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: not of size zero: no request is.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout(plan.total())) });
        let range = start.and_then(|start| PageRange::new(start, plan.total(), PAGE));
        range.ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PAGE)
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // Memory that is committed again reads zero.
        // SAFETY: `decommit` is asked for committed memory whose contents are not needed.
        unsafe { range.start().write_bytes(0, range.len_bytes()) };
        Ok(())
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: `purge` is asked for committed memory whose contents are not needed.
        unsafe { range.start().write_bytes(0, range.len_bytes()) };
        Ok(Purged::Zero)
    }

    unsafe fn release(&self, _: PageRange) -> Result<(), Error> {
        // Parts may be released, which an allocation has none of.
        Ok(())
    }
}

type TestHeap = Heap<Memory>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    /// Sizes of all kinds of blocks, mostly small ones.
    fn size(&mut self) -> usize {
        let most = [64, 1000, 60_000, 200_000, 900_000, 3_000_000];
        let kind = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5][self.below(12)];
        1 + self.below(most[kind])
    }
}

/// Takes locks that no thread ever opens: about one in `rarity`.
fn hold_some(heap: &TestHeap, random: &mut Random, rarity: usize) {
    let parts = heap.parts();
    for bin in parts.bins() {
        if random.below(rarity) == 0 {
            mem::forget(bin.lock());
        }
    }
    if random.below(rarity) == 0 {
        mem::forget(parts.space.lock());
    }
    if random.below(rarity) == 0 {
        mem::forget(parts.caches.lock());
    }
    if random.below(rarity) == 0 {
        mem::forget(parts.sweep.lock());
    }
    if random.below(rarity) == 0 {
        heap.arena().hold();
    }
    // A thread had put a block into the quarantine, or taken one, and not counted it.
    if let Some(waiting) = heap
        .hardened
        .as_ref()
        .and_then(|hardened| hardened.quarantine.as_ref())
    {
        let bytes = random.below(1 << 20).wrapping_sub(1 << 19);
        waiting.bytes.fetch_add(bytes, Relaxed);
    }
}

/// What is counted of the guards of blocks without a class, and of blocks that wait, is what there
/// is.
fn counts_of_guards_are_right(heap: &TestHeap, blocks: &Blocks) {
    let is_full = heap.config().is_full();
    let slabs = blocks.0.iter();
    let slabs = slabs.filter_map(|(block, ..)| heap.slab_at(block.addr().get()));
    let big: Vec<_> = slabs.filter(|slab| slab.class() >= CLASSES).collect();
    let unguarded = big
        .iter()
        .filter(|slab| is_full && heap.guard_of(**slab) == 0);
    let unguarded = unguarded.count();
    let space = heap.lock_space();
    for slab in big.iter().filter(|slab| slab.is(LARGE)) {
        let (addr, len, guard) = (slab.addr(), slab.len_bytes(), heap.guard_of(*slab));
        let around = addr - guard..addr + len + guard;
        for granule in around.step_by(GRANULE) {
            let mut all = space.segments.all().iter();
            let segment = all.find(|(_, segment)| segment.contains(granule));
            let (_, segment) = segment.expect("large blocks lie in segments");
            let n = segment.number(granule);
            assert!(
                !segment.are_free(&(n..n + 1)),
                "neither blocks nor guards are free"
            );
        }
    }
    assert_eq!(space.gauges.unguarded, unguarded);
    let all = space.segments.all().iter();
    let borders = all.map(|(_, segment)| segment.borders(&(0..segment.granules())));
    let guards = heap.all_huge().map(super::super::huge::guards_of);
    assert_eq!(
        space.gauges.mappings,
        borders.sum::<usize>() + guards.sum::<usize>()
    );
    drop(space);
    let waiting = heap.waiting_blocks();
    let bytes = waiting.iter().enumerate();
    let bytes = bytes.map(|(class, count)| count * super::super::class::size(class));
    assert_eq!(heap.statistics().quarantined, bytes.sum::<usize>());
}

/// Live blocks, each with a byte of its own in the first and the last place.
struct Blocks(Vec<(NonNull<u8>, usize, u8)>);

impl Blocks {
    fn alloc(&mut self, local: &LocalHeap<'_, Memory>, size: usize) {
        let block = local.alloc_bytes(size).expect("memory");
        let byte = block.addr().get().to_le_bytes()[1] | 1;
        for at in [0, size - 1] {
            // SAFETY: in the block.
            let place = unsafe { block.add(at) };
            // SAFETY: inside a live block of this length, which is this test's.
            unsafe { place.write(byte) };
        }
        self.0.push((block, size, byte));
    }

    fn free(&mut self, local: &LocalHeap<'_, Memory>, n: usize) {
        let (block, size, byte) = self.0.swap_remove(n);
        let addr = block.addr().get();
        for at in [0, size - 1] {
            // SAFETY: in the block.
            let place = unsafe { block.add(at) };
            // SAFETY: inside a live block of this length, which was written when it was allocated.
            assert_eq!(unsafe { place.read() }, byte, "no other block is there");
            let found = local.heap().block_of(addr + at);
            assert_eq!(found.map(|found| found.addr), Some(addr));
        }
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
        assert_eq!(local.heap().block_of(addr), None);
    }
}

fn any_locks_may_be_held(resumes: bool, rarity: usize, config: HeapConfig) {
    let mut random = Random(0x9e37_79b9 + rarity as u64);
    let config = config.shards(2).metadata(64 << 20).large_pages(false);
    let heap = TestHeap::on(Memory, Memory, config).expect("metadata");
    let mut blocks = Blocks(Vec::new());
    // Filling freed blocks takes its time.
    for _ in 0..if heap.is_hardened() { 4 } else { 12 } {
        let local = heap.local().expect("metadata");
        for _ in 0..400 {
            let size = random.size();
            blocks.alloc(&local, size);
            if blocks.0.len() > 700 {
                let n = random.below(blocks.0.len());
                blocks.free(&local, n);
            }
        }
        local.flush();
        hold_some(&heap, &mut random, rarity);
        // SAFETY: no other thread has the heap, and no call of this one goes on.
        unsafe { heap.repair(resumes) }.expect("metadata");
        let mut live = 0;
        let walked = heap.walk(|_| {
            live += 1;
            ControlFlow::<()>::Continue(())
        });
        assert!(walked.is_continue());
        assert_eq!(live, blocks.0.len(), "each block is there once");
        counts_of_guards_are_right(&heap, &blocks);
        // The handles' blocks are not lost where no lock was held.
        let parts = core::ptr::from_ref(heap.parts()).addr();
        let mut metadata = heap.metadata_ranges();
        let is_told = metadata.any(|range| range.addresses.contains(parts));
        let is_first = core::ptr::from_ref(&heap).addr() <= parts
            && parts < core::ptr::from_ref(&heap).addr() + size_of::<TestHeap>();
        assert!(is_told || is_first, "metadata of a child is told, too");
        let held = heap.statistics();
        let used: usize = blocks.0.iter().map(|(_, size, _)| size).sum();
        assert!(held.used >= used, "{held:?}");
        assert!(resumes || held.abandoned == 0, "{held:?}");
    }
    let local = heap.local().expect("metadata");
    while !blocks.0.is_empty() {
        blocks.free(&local, 0);
    }
    local.flush();
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
    assert_eq!(held.corrupt_blocks, 0, "{held:?}");
    assert_eq!((held.quarantined, held.quarantined_addresses), (0, 0));
    if !resumes {
        let memory = (held.committed, held.reserved);
        assert_eq!(memory, (0, 0), "all serves again: {held:?}");
    }
}

#[test]
fn what_dead_threads_held_serves_again() {
    for rarity in [1, 4, 60, 400] {
        any_locks_may_be_held(false, rarity, HeapConfig::new());
    }
}

#[test]
fn what_an_interrupted_call_may_hold_is_left_to_it() {
    for rarity in [1, 4, 60, 400] {
        any_locks_may_be_held(true, rarity, HeapConfig::new());
    }
}

/// Heaps of the levels above the first: with as many guards as they want, with few, and with none.
#[test]
fn hardened_heaps_are_repaired_as_others() {
    let full = HeapConfig::new().hardening(Hardening::Full).seed(1);
    let canaries = full.hardening(Hardening::Canaries);
    // Little waits, so that what has waited serves again within the test.
    let few = full
        .mappings(60)
        .quarantine(100 << 10)
        .quarantine_addresses(8 << 20);
    for config in [full, few, full.mappings(0), canaries] {
        for resumes in [false, true] {
            any_locks_may_be_held(resumes, 4, config);
        }
    }
}
