//! Random calls by several handles, beside the oracle.

use super::{
    config, holds,
    op::{CALLERS, HANDLES, MOST_LIVE, NONE, NOT_WAITING, Op, STEPS, Tally, random_ops},
    oracle::{Block, Oracle},
};
use crate::Outcome;
use alloc::vec::Vec;
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    heap::{Hardening, Heap, HeapConfig, HeapError, Level, LocalHeap},
    provider::{PageProvider, Provider},
};

pub(super) fn random_calls_keep_every_block_intact<P: Provider + Copy>(p: P) -> Outcome {
    for seed in 0x5eed..0x5ef0 {
        let tally = check(p, p, config(), random_ops(seed).take(STEPS));
        assert_eq!(tally.exhausted, 0, "there is memory");
        assert!(tally.refused > 100 && tally.in_place > 10, "{tally:?}");
        assert!(tally.busy < STEPS / 20, "{tally:?}");
    }
    Outcome::Passed
}

/// Bytes that no host has.
const TOO_MUCH: usize = 1 << (usize::BITS - 2);

/// Says whether this is how a size that no host has is refused.
fn is_refusal(got: Result<NonNull<u8>, HeapError>) -> bool {
    use HeapError::{Busy, InvalidSize, Memory, Metadata};
    matches!(got, Err(InvalidSize | Memory(_) | Metadata(_) | Busy))
}

/// A call by a handle, by none, or by one that does not wait.
macro_rules! by {
    ($locals:expr, $heap:expr, $current:expr, $call:ident ( $($argument:expr),* )) => {
        match &$locals[$current] {
            Some(local) => local.$call($($argument),*),
            None if $current == NOT_WAITING => by!(@try $heap, $call($($argument),*)),
            None => $heap.$call($($argument),*),
        }
    };
    (@try $heap:expr, alloc($layout:expr)) => { $heap.try_alloc($layout) };
    (@try $heap:expr, alloc_zeroed($layout:expr)) => { $heap.try_alloc_zeroed($layout) };
    (@try $heap:expr, free($block:expr)) => { $heap.try_free($block) };
    (@try $heap:expr, free_sized($block:expr, $layout:expr)) => { $heap.try_free($block) };
    (@try $heap:expr, realloc($block:expr, $layout:expr, $size:expr)) => {
        $heap.try_realloc($block, $layout, $size)
    };
}

/// Makes the calls on a heap of `p` and `metadata`, and drops it.
///
/// # Panics
///
/// Where the heap breaks a promise.
pub fn check<P: PageProvider + Copy, M: PageProvider + Copy>(
    p: P,
    metadata: M,
    config: HeapConfig,
    ops: impl IntoIterator<Item = Op>,
) -> Tally {
    let mut tally = Tally::default();
    let mut oracle = Oracle::default();
    let Ok(heap) = Heap::<P, M>::on(p, metadata, config) else {
        tally.exhausted += 1;
        return tally;
    };
    let is_hard = config.level() == Hardening::Full;
    // The last two have no handle.
    let mut locals: Vec<Option<LocalHeap<'_, P, M>>> = Vec::new();
    locals.resize_with(CALLERS, || None);
    let (mut current, mut now, mut live) = (NONE, 0, 0);
    let failed = |error: HeapError, tally: &mut Tally| match error {
        HeapError::Memory(_) | HeapError::Metadata(_) => tally.exhausted += 1,
        HeapError::Busy => tally.busy += 1,
        error => panic!("{error}"),
    };
    for op in ops {
        match op {
            Op::Alloc {
                size,
                align,
                zeroed,
            } => {
                let layout = Layout::from_size_align(size, 1 << align).expect("a layout");
                if live + size > MOST_LIVE {
                    continue;
                }
                let got = if zeroed {
                    by!(locals, heap, current, alloc_zeroed(layout))
                } else {
                    by!(locals, heap, current, alloc(layout))
                };
                match got {
                    Ok(start) => {
                        oracle.add(start, layout, zeroed);
                        live += size;
                        let usable = heap.usable_size(start).expect("a live block");
                        assert!(usable >= size, "{usable} of {size}");
                    }
                    Err(error) => failed(error, &mut tally),
                }
            }
            Op::AllocTooMuch(size) => {
                let size = (size | TOO_MUCH) & isize::MAX.unsigned_abs();
                let layout = Layout::from_size_align(size, 1).expect("a layout");
                let zeroed = size.is_multiple_of(2);
                let mut got = if zeroed {
                    by!(locals, heap, current, alloc_zeroed(layout))
                } else {
                    by!(locals, heap, current, alloc(layout))
                };
                if let Some(block) = oracle.blocks.first() {
                    let (start, layout) = (block.start, block.layout);
                    assert!(is_refusal(got), "{got:?} for {size:#x} bytes");
                    // SAFETY: a live block of this layout, which no other code uses.
                    got = unsafe { by!(locals, heap, current, realloc(start, layout, size)) };
                }
                assert!(is_refusal(got), "{got:?} for {size:#x} bytes");
                tally.refused += 1;
            }
            Op::Free(number, sized) => {
                let Some(block) = oracle.take(number) else {
                    continue;
                };
                live -= block.layout.size();
                let freed = if sized {
                    // SAFETY: a live block, used no more.
                    unsafe { by!(locals, heap, current, free_sized(block.start, block.layout)) }
                } else {
                    // SAFETY: a live block, used no more.
                    unsafe { by!(locals, heap, current, free(block.start)) }
                };
                assert_eq!(freed, Ok(()), "{:?}", block.start);
                assert_eq!(heap.block_of(block.start.addr().get()), None);
            }
            Op::FreeTwice(number) => {
                let Some(block) = oracle.take(number) else {
                    continue;
                };
                live -= block.layout.size();
                // SAFETY: a live block, used no more.
                let freed = unsafe { by!(locals, heap, current, free(block.start)) };
                assert_eq!(freed, Ok(()), "{:?}", block.start);
                // SAFETY: not a live block any more.
                let again = unsafe { by!(locals, heap, current, free(block.start)) };
                assert!(
                    matches!(again, Err(HeapError::NotLive | HeapError::NotOwned)),
                    "{again:?}"
                );
                tally.refused += 1;
            }
            Op::FreeInside(number, offset) => {
                let count = oracle.blocks.len();
                let Some(number) = number.checked_rem(count) else {
                    continue;
                };
                let block = oracle.blocks[number];
                if block.layout.size() < 2 {
                    continue;
                }
                let offset = 1 + offset % (block.layout.size() - 1);
                // SAFETY: within the block.
                let inside = unsafe { block.start.add(offset) };
                // SAFETY: no block's start.
                let refused = unsafe { by!(locals, heap, current, free(inside)) };
                assert_eq!(refused, Err(HeapError::Interior));
                block.check(usize::MAX);
                tally.refused += 1;
            }
            Op::FreeForeign(addr) => {
                let foreign = NonNull::without_provenance(
                    addr.try_into().unwrap_or(core::num::NonZeroUsize::MAX),
                );
                if heap.owns(addr) {
                    continue;
                }
                // SAFETY: no block of the heap.
                let refused = unsafe { by!(locals, heap, current, free(foreign)) };
                assert_eq!(refused, Err(HeapError::NotOwned));
                tally.refused += 1;
            }
            Op::Realloc(number, size) => {
                let Some(block) = oracle.take(number) else {
                    continue;
                };
                let old = block.layout.size();
                if live - old + size > MOST_LIVE {
                    oracle.put_back(block);
                    continue;
                }
                // SAFETY: a live block of this layout, which no other code uses.
                let got = unsafe {
                    by!(
                        locals,
                        heap,
                        current,
                        realloc(block.start, block.layout, size)
                    )
                };
                match got {
                    Ok(start) => {
                        tally.in_place += usize::from(start == block.start);
                        live = live - old + size;
                        let layout = Layout::from_size_align(size, block.layout.align());
                        let layout = layout.expect("a layout");
                        let moved = Block { start, ..block };
                        moved.check(old.min(size));
                        oracle.add(start, layout, false);
                    }
                    Err(error) => {
                        failed(error, &mut tally);
                        oracle.put_back(block);
                    }
                }
            }
            Op::Query(number, offset) => {
                let count = oracle.blocks.len();
                let Some(number) = number.checked_rem(count) else {
                    continue;
                };
                let block = oracle.blocks[number];
                let start = block.start.addr().get();
                let addr = start + offset % block.layout.size().max(1);
                let found = heap.block_of(addr).expect("a live block");
                assert_eq!(found.addr, start, "around {addr:#x}");
                assert!(found.len >= block.layout.size());
                assert!(heap.owns(addr));
            }
            Op::Handle(number) => {
                if current == NOT_WAITING {
                    // Gives nothing back, but performs the deferred frees, whose blocks count as
                    // used until then.
                    heap.trim_to(usize::MAX);
                }
                current = number % CALLERS;
                if current < HANDLES && locals[current].is_none() {
                    match heap.local() {
                        Ok(local) => locals[current] = Some(local),
                        Err(error) => failed(error, &mut tally),
                    }
                }
            }
            Op::Renew => locals[current] = None,
            Op::Flush => {
                if let Some(local) = &locals[current] {
                    local.flush();
                }
            }
            Op::Trim => heap.trim(),
            Op::Collect => heap.collect(Level::Deep),
            Op::TrimTo(bytes) => {
                let left = heap.trim_to(bytes);
                assert_eq!(left, heap.statistics().resident, "of {bytes}");
            }
            Op::Tick(passed) => {
                now += passed;
                match &locals[current] {
                    Some(local) => local.tick(now),
                    None => heap.tick(now),
                }
            }
            Op::CheckAll => {
                heap.trim_to(usize::MAX);
                oracle.check_all();
                holds::check(&heap, &oracle, is_hard);
            }
        }
    }
    oracle.check_all();
    while let Some(block) = oracle.take(0) {
        // SAFETY: a live block, used no more.
        let freed = unsafe { by!(locals, heap, current, free(block.start)) };
        assert_eq!(freed, Ok(()), "{:?}", block.start);
    }
    heap.trim_to(usize::MAX);
    let held = heap.statistics();
    assert_eq!(held.used, 0, "{held:?}");
    drop(locals);
    let held = heap.statistics();
    assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
    tally
}
