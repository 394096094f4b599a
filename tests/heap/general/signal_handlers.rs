//! Handlers that ask a heap about addresses.

use super::{Random, layout};
use crate::{
    common::{
        emulated,
        signals::{handle, tick_every},
        threads::Patience,
    },
    system::{OsHeap, heap},
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use hostmem::heap::{HeapConfig, Level};
use hostmem_test_support::isolate::isolated;
use std::sync::OnceLock;

/// What a handler asks of, and what it is to find: whether the heap owns it, and the start of its
/// block.
struct Row {
    addr: usize,
    owned: bool,
    block: Option<usize>,
}

/// H4's rows, the heap they are about, and the end of a block, behind which another may lie.
static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
static ASKED: OnceLock<OsHeap> = OnceLock::new();
static BEHIND: AtomicUsize = AtomicUsize::new(0);
static ANSWERS: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);

extern "C" fn ask(_: libc::c_int) {
    let (Some(rows), Some(heap)) = (ROWS.get(), ASKED.get()) else {
        return;
    };
    for row in rows {
        let found = heap.block_of(row.addr).map(|found| found.addr);
        let start = NonNull::new(core::ptr::without_provenance_mut(row.addr));
        let usable = start.and_then(|start| heap.usable_size(start));
        let starts = row.block == Some(row.addr);
        let right =
            heap.owns(row.addr) == row.owned && found == row.block && usable.is_some() == starts;
        WRONG.fetch_add(usize::from(!right), Relaxed);
    }
    let behind = BEHIND.load(Relaxed);
    let found = heap.block_of(behind);
    let right = found.is_none_or(|found| found.addr == behind);
    WRONG.fetch_add(usize::from(!right), Relaxed);
    ANSWERS.fetch_add(1, Relaxed);
}

/// Has the handler interrupt this process every 100 microseconds of its processor time.
fn start_interrupting() {
    handle(libc::SIGPROF, ask);
    assert!(tick_every(100), "a timer");
}

#[test]
fn signal_handlers_tell_addresses_apart_whatever_they_interrupt() {
    isolated!(
        "signal_handlers_tell_addresses_apart_whatever_they_interrupt",
        || {
            let made = || heap(HeapConfig::new());
            let heap = ASKED.get_or_init(made);
            let other = made();
            let local = heap.local().expect("metadata");
            // A handle that is not used any more keeps what it freed.
            let idle = heap.local().expect("metadata");
            let sized = |size| Layout::from_size_align(size, 8).expect("a layout");
            let stack = 0_u8;
            let mut rows = Vec::new();
            for size in [48, 3000, 100_000, 700_000, 3_000_000] {
                let block = local.alloc(sized(size)).expect("memory");
                let start = block.addr().get();
                rows.extend([0, 1, size / 2, size - 1].map(|inside| Row {
                    addr: start + inside,
                    owned: true,
                    block: Some(start),
                }));
                let len = heap.usable_size(block).expect("live");
                BEHIND.store(start + len, Relaxed);
                let theirs = other.alloc(sized(size)).expect("memory");
                rows.push(Row {
                    addr: theirs.addr().get(),
                    owned: false,
                    block: None,
                });
            }
            let freed = idle.alloc(sized(80)).expect("memory");
            // SAFETY: live, and used no more.
            unsafe { idle.free(freed) }.expect("a live block");
            rows.push(Row {
                addr: freed.addr().get(),
                owned: true,
                block: None,
            });
            let foreign = [0, 8, 0x1000, 1 << 62, 1 << 63, (&raw const stack).addr()];
            rows.extend(foreign.map(|addr| Row {
                addr,
                owned: false,
                block: None,
            }));
            assert!(ROWS.set(rows).is_ok(), "once");
            start_interrupting();
            let answers = if emulated() { 20 } else { 300 };
            let patience = Patience::new();
            let mut random = Random(77);
            let mut blocks = Vec::new();
            while ANSWERS.load(Relaxed) < answers {
                let layout = layout(&mut random);
                let block = match blocks.len() % 3 {
                    0 => heap.alloc(layout),
                    _ => local.alloc(layout),
                };
                blocks.push(block.expect("memory"));
                if blocks.len() == 200 {
                    for block in blocks.drain(..) {
                        // SAFETY: live, and used no more.
                        unsafe { heap.free(block) }.expect("a live block");
                    }
                    heap.collect(Level::Free);
                }
                patience.check("a signal");
            }
            assert_eq!(WRONG.load(Relaxed), 0);
        },
    );
}
