//! The live blocks, and statistics.

use super::{HeapObject, heap, hm_heap, types::*};
use crate::{
    abi::{growing, tell_each},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
    types::pointer,
};
use core::{ffi::c_void, ops::ControlFlow};
use hostmem::heap::{HeapRange, RangeKind};

/// Tells `visit` of live blocks: exact while no other thread allocates or frees. `visit` holds no
/// lock, and may use the heap.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_walk(
    heap: *mut hm_heap,
    visit: hm_heap_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let _ = heap.walk(|block| {
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            match unsafe { visit(context, pointer(block.addr), block.len) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
    })
}

/// Tells `visit` of each size up to 256 KiB that blocks are rounded up to, and of the blocks of that
/// size. `visit` holds no lock and may use the heap.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_classes(
    heap: *mut hm_heap,
    visit: hm_heap_class_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let told = heap.class_statistics().map(|class| hm_heap_class {
            block_size: class.size,
            slabs: class.slabs,
            blocks: class.blocks,
            used: class.used,
            cached: class.cached,
            quarantined: class.quarantined,
        });
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
    })
}

/// Tells `visit` of the addresses that the heap holds: first those of blocks, then those of
/// metadata, each by address. What it holds from the first to the last is told, as one range or as
/// several. `visit` holds no lock and may use the heap.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_ranges(
    heap: *mut hm_heap,
    visit: hm_heap_range_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let told = heap.ranges().chain(heap.metadata_ranges()).map(range);
        // SAFETY: the caller in C promises that it may be called so, and does not unwind.
        unsafe { tell_each(told, visit, context) };
    })
}

fn range(found: HeapRange) -> hm_heap_range {
    hm_heap_range {
        first: found.addresses.start(),
        last: found.addresses.last(),
        kind: match found.kind {
            RangeKind::Huge => HM_HEAP_RANGE_HUGE,
            RangeKind::Kept => HM_HEAP_RANGE_KEPT,
            RangeKind::Arena => HM_HEAP_RANGE_ARENA,
            RangeKind::PageMap => HM_HEAP_RANGE_PAGE_MAP,
            _ => HM_HEAP_RANGE_SEGMENT,
        },
        reserved: 0,
    }
}

/// Stores what is held.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_get_statistics(
    heap: *mut hm_heap,
    to: *mut hm_heap_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, heap) = (growing!(to), heap!(heap));
        let held = heap.statistics();
        let calls = held.calls;
        let calls = [
            calls.reserve,
            calls.commit,
            calls.purge,
            calls.moves,
            calls.decommit,
            calls.release,
        ];
        to.write(hm_heap_statistics {
            size: 0,
            padding: 0,
            requested: held.requested,
            used: held.used as u64,
            cached: held.cached as u64,
            slabs: held.slabs as u64,
            large: held.large as u64,
            large_blocks: held.large_blocks as u64,
            huge: held.huge as u64,
            huge_blocks: held.huge_blocks as u64,
            segments: held.segments as u64,
            reserved: held.reserved as u64,
            committed: held.committed as u64,
            resident: held.resident as u64,
            refused: held.refused as u64,
            abandoned: held.abandoned as u64,
            corrupt_blocks: held.corrupt_blocks as u64,
            quarantined: held.quarantined as u64,
            quarantined_addresses: held.quarantined_addresses as u64,
            unguarded_blocks: held.unguarded_blocks as u64,
            metadata: held.metadata as u64,
            page_map: held.page_map as u64,
            provider_calls: calls.iter().sum::<usize>() as u64,
        });
    })
}
