//! What a heap does at its limits: any size and alignment, few addresses, many handles.

use super::{bytes, config, counted, heap};
use crate::{Outcome, report::or_skip};
use alloc::vec::Vec;
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    counted::Counted,
    heap::{Heap, HeapConfig, HeapError},
    provider::{PageProvider, Provider, Request, Within},
};

/// Blocks up to this size, and aligned to as much at most, every host has room for.
const EVERYWHERE: usize = 1 << 20;

/// Larger ones; and up to this size the page map has little to do.
const LARGE: usize = EVERYWHERE + 1;
const HUGE: usize = 1 << 30;

/// Writes the first and the last byte of a block.
fn touch(block: NonNull<u8>, size: usize) {
    for at in [0, size.saturating_sub(1)]
        .into_iter()
        .filter(|n| *n < size)
    {
        // SAFETY: within the block, which is live and the test's.
        let byte = unsafe { block.add(at) };
        // SAFETY: within the block, which is live and the test's.
        unsafe { byte.write(0x5a) };
    }
}

/// H2.
pub(super) fn any_size_and_alignment_is_served_or_refused<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let local = heap.local().expect("metadata");
    let most = if usize::BITS > 40 {
        40
    } else {
        usize::BITS - 2
    };
    let sizes = (0..=most).flat_map(|log| [(1_usize << log) - 1, 1 << log, (1 << log) + 1]);
    for (n, size) in sizes.enumerate() {
        let aligns: &[u32] = match size {
            0..=EVERYWHERE => &[0, 3, 6, 12, 16, 17, 21, 25, 30],
            LARGE..=HUGE => &[4, 21, 30],
            _ => &[30],
        };
        for align in aligns {
            let align = 1_usize << align;
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // Clearing gigabytes would take long.
            let got = match n % 3 {
                0 => heap.alloc(layout),
                1 if size <= EVERYWHERE => local.alloc_zeroed(layout),
                _ => local.alloc(layout),
            };
            let block = match got {
                Ok(block) => block,
                Err(error) => {
                    use HeapError::{InvalidSize, Memory, Metadata};
                    assert!(matches!(error, InvalidSize | Memory(_) | Metadata(_)));
                    assert!(size.max(align) > EVERYWHERE, "{layout:?}: {error}");
                    continue;
                }
            };
            let start = block.addr().get();
            assert!(start.is_multiple_of(align), "{layout:?}: {block:?}");
            assert!(heap.usable_size(block) >= Some(size), "{layout:?}");
            for inside in [start, start + size.max(1) - 1] {
                let found = heap.block_of(inside).map(|found| found.addr);
                assert_eq!(found, Some(start), "{layout:?}");
            }
            touch(block, size);
            // SAFETY: live, and used no more.
            unsafe { local.free_sized(block, layout) }.expect("a live block");
        }
    }
    local.flush();
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.used, held.reserved, held.committed), (0, 0, 0));
    Outcome::Passed
}

/// Bytes of the addresses that a heap is to keep to.
const FEW: usize = 16 << 20;

/// H3, wherever the few addresses are.
pub(super) fn a_heap_in_few_addresses_keeps_to_them<P: Provider + Copy>(p: P) -> Outcome {
    let request = Request::bytes(FEW).align(1 << 20);
    let free = or_skip!(p.reserve(&request), "addresses are short");
    let free = free.expect("a plain request");
    let few = free.addresses();
    let heap: Heap<Within<P>, P> =
        Heap::on(Within::new(p, few), p, config()).expect("metadata can be had");
    // Now that the metadata is elsewhere.
    // SAFETY: reserved just now, and not used.
    unsafe { p.release(free) }.expect("what was reserved can be released");
    let local = heap.local().expect("metadata");
    // Twice, as what was freed serves again.
    for size in [100, 3000, 20_000, 100_000, 700_000, 1_500_000, 100] {
        let mut blocks = Vec::new();
        let error = loop {
            match local.alloc(bytes(size)) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, HeapError::Memory(_)), "{error}");
        // The page map may have taken some of them.
        let got = blocks.len() * size;
        assert!(got >= FEW / 2, "{got} bytes of {size}");
        for block in &blocks {
            let start = block.addr().get();
            assert!(few.contains(start) && few.contains(start + size - 1));
            touch(*block, size);
        }
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
        local.flush();
        heap.trim();
        assert_eq!(heap.statistics().reserved, 0);
    }
    Outcome::Passed
}

/// H4, for two heaps and what is neither's.
pub(super) fn addresses_outside_a_heap_are_not_owned<P: Provider + Copy>(p: P) -> Outcome {
    let (one, other) = (heap(p, config()), heap(p, config()));
    let stack = 0_u8;
    for size in [40, 5000, 100_000, 600_000, 2_000_000] {
        let block = one.alloc(bytes(size)).expect("memory");
        let start = block.addr().get();
        for inside in [start, start + size / 2, start + size - 1] {
            let found = one.block_of(inside).map(|found| found.addr);
            assert_eq!(found, Some(start), "{size} bytes");
            assert!(one.owns(inside) && !other.owns(inside), "{size} bytes");
            assert_eq!(other.block_of(inside), None, "{size} bytes");
        }
        assert!(one.usable_size(block) >= Some(size));
        assert_eq!(other.usable_size(block), None, "{size} bytes");
        let free = or_skip!(p.reserve(&Request::bytes(1 << 20)), "addresses are short");
        let free = free.expect("a plain request");
        // SAFETY: reserved just now, and not used.
        unsafe { p.release(free) }.expect("what was reserved can be released");
        let top = usize::BITS - 1;
        // The stack, what is not mapped, and what no host maps.
        for addr in [
            (&raw const stack).addr(),
            free.addr(),
            8,
            1 << (top - 1),
            1 << top,
        ] {
            let foreign = NonNull::without_provenance(addr.try_into().expect("not null"));
            for heap in [&one, &other] {
                assert!(
                    !heap.owns(addr) && heap.block_of(addr).is_none(),
                    "{addr:#x}"
                );
                assert_eq!(heap.usable_size(foreign), None, "{addr:#x}");
                // SAFETY: no block's start.
                let refused = unsafe { heap.free(foreign) };
                assert_eq!(refused, Err(HeapError::NotOwned), "{addr:#x}");
            }
        }
        assert!(!one.owns(0) && one.block_of(0).is_none());
        // SAFETY: live, and used no more.
        unsafe { one.free(block) }.expect("a live block");
        for inside in [start, start + size / 2, start + size - 1] {
            assert!(one.owns(inside) && !other.owns(inside), "freed");
            assert_eq!(one.block_of(inside), None, "freed");
        }
    }
    Outcome::Passed
}

pub(super) fn many_handles_take_little<P: Provider + Copy>(p: P) -> Outcome {
    many_handles(p, config(), 500);
    Outcome::Passed
}

/// Bytes of addresses that blocks of five hundred threads take at most, if each has few.
const BLOCKS: usize = 96 << 20;

/// Makes that many handles at once, each with a few blocks, and lets each free what another one
/// allocated.
///
/// # Panics
///
/// Where that takes many addresses, or leaves something.
pub fn many_handles<P: PageProvider + Copy>(p: P, config: HeapConfig, count: usize) {
    let counted = counted(p);
    let heap: Heap<&Counted<P>> = Heap::on(&counted, &counted, config).expect("metadata");
    let metadata = counted.counters().reserved.now;
    let handles: Vec<_> = (0..count)
        .map(|_| heap.local().expect("metadata"))
        .collect();
    let mut blocks = Vec::new();
    for local in &handles {
        for size in [16, 100, 1000, 10_000] {
            let block = local.alloc(bytes(size)).expect("memory");
            touch(block, size);
            blocks.push(block);
        }
    }
    let taken = counted.counters().reserved.now - metadata;
    assert!(taken <= BLOCKS, "{} KiB", taken >> 10);
    let mut starts: Vec<_> = blocks.iter().map(|block| block.addr()).collect();
    starts.sort_unstable();
    assert!(starts.is_sorted_by(|a, b| a < b), "each block is one");
    for (n, block) in blocks.into_iter().enumerate() {
        // SAFETY: live, and used no more.
        unsafe { handles[(n * 7 + 1) % count].free(block) }.expect("a live block");
    }
    drop(handles);
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.used, held.cached, held.reserved), (0, 0, 0));
    drop(heap);
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
}

pub(super) fn short_handles_leave_memory_flat<P: Provider + Copy>(p: P) -> Outcome {
    short_handles(p, 1000);
    Outcome::Passed
}

/// H6: makes that many handles one after the other, each of which allocates and frees.
///
/// # Panics
///
/// Where one leaves something behind.
pub fn short_handles<P: PageProvider + Copy>(p: P, count: usize) {
    let counted = counted(p);
    let heap: Heap<&Counted<P>> = Heap::on(&counted, &counted, config()).expect("metadata");
    let mut first = None;
    for n in 0..count {
        let local = heap.local().expect("metadata");
        let blocks = [10, 300, 4000, 50_000].map(|size| local.alloc(bytes(size)).expect("memory"));
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
        drop(local);
        let held = heap.statistics();
        assert_eq!((held.used, held.cached), (0, 0), "handle {n}");
        // Each shard has been used then.
        if n >= 8 {
            let held = (held.reserved, held.committed, held.metadata);
            let held = (held, counted.counters().reserved.now);
            assert_eq!(held, *first.get_or_insert(held), "handle {n}");
        }
    }
}
