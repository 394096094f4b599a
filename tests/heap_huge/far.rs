//! Huge blocks by the hundred thousand, at any address, on a provider without memory.

use super::{MIB, OS, bytes, free, heap};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    heap::{BlockInfo, Heap, HeapConfig, Return},
    page::PageSize,
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Purged, Request},
};
use std::{collections::BTreeMap, sync::Mutex, thread};

/// A host that gives addresses far apart, which no code touches: as many as are asked for, and of
/// any length.
struct Far(Mutex<(usize, BTreeMap<usize, usize>)>);

const PAGE: PageSize = PageSize::KIB_4;

// SAFETY: ranges are apart, as they rise. They cannot be accessed, and the tests do not.
unsafe impl PageProvider for Far {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<hostmem::page::PageRange, Error> {
        let plan = request.plan(PAGE)?;
        let mut held = self.0.lock().expect("no test fails with it");
        let start = plan.start_at_or_above(held.0).ok_or(ErrorKind::Exhausted)?;
        // A hole behind each.
        held.0 = start
            .checked_add(plan.total() + MIB)
            .ok_or(ErrorKind::Exhausted)?;
        held.1.insert(start, plan.total());
        let start = NonNull::new(core::ptr::without_provenance_mut(start));
        let range =
            start.and_then(|start| hostmem::page::PageRange::new(start, plan.total(), PAGE));
        range.ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, _: hostmem::page::PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PAGE)
    }

    unsafe fn protect(
        &self,
        _: hostmem::page::PageRange,
        _: hostmem::page::Access,
    ) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _: hostmem::page::PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn purge(&self, _: hostmem::page::PageRange) -> Result<Purged, Error> {
        Ok(Purged::Zero)
    }

    unsafe fn release(&self, range: hostmem::page::PageRange) -> Result<(), Error> {
        let mut held = self.0.lock().expect("no test fails with it");
        let (start, len) = held
            .1
            .range(..=range.addr())
            .next_back()
            .map(|(start, len)| (*start, *len))
            .ok_or(ErrorKind::OutsideRange)?;
        let (before, behind) = (range.addr() - start, start + len - range.end());
        held.1.remove(&start);
        if before != 0 {
            held.1.insert(start, before);
        }
        if behind != 0 {
            held.1.insert(range.end(), behind);
        }
        Ok(())
    }
}

fn far(from: usize) -> &'static Far {
    Box::leak(Box::new(Far(Mutex::new((from, BTreeMap::new())))))
}

#[test]
fn a_hundred_thousand_huge_blocks_are_told_apart() {
    let host = far(1 << 32);
    let heap = heap(host, HeapConfig::new().memory_return(Return::Eager));
    let size = |n: usize| 2 * MIB + n % 50 * 4096;
    let blocks: Vec<_> = (0..100_000)
        .map(|n| heap.alloc(bytes(size(n))).expect("addresses"))
        .collect();
    for (n, block) in blocks.iter().enumerate().step_by(331) {
        knows_far(&heap, *block, size(n));
    }
    let held = heap.statistics();
    assert_eq!(held.huge_blocks, 100_000);
    assert!(held.metadata <= 100_000 * 300, "{held:?}");
    // Most of them, in an order that is neither rising nor falling.
    for n in (0..99_991_usize)
        .map(|n| n * 7919 % 99_991)
        .filter(|n| n % 10 != 0)
    {
        free(&heap, blocks[n]);
        assert!(!heap.owns(blocks[n].addr().get()), "{n}");
    }
    for n in (0..99_991).step_by(1990) {
        knows_far(&heap, blocks[n], size(n));
    }
    for n in (0..99_991).filter(|n| n % 10 == 0).chain(99_991..100_000) {
        free(&heap, blocks[n]);
    }
    let held = heap.statistics();
    assert_eq!((held.huge_blocks, held.reserved, held.committed), (0, 0, 0));
    assert!(
        host.0.lock().expect("not poisoned").1.is_empty(),
        "all went back"
    );
}

fn knows_far(heap: &Heap<&'static Far, OsProvider, OsLock>, block: NonNull<u8>, size: usize) {
    let (addr, len) = (block.addr().get(), size.next_multiple_of(4096));
    for at in [0, size / 2, size - 1] {
        assert_eq!(heap.block_of(addr + at), Some(BlockInfo { addr, len }));
    }
    assert_eq!(heap.block_of(addr + len), None);
    assert!(!heap.owns(addr + len.next_multiple_of(65_536)));
}

/// Beyond all that a page map tells apart.
#[test]
fn huge_blocks_lie_at_any_address() {
    let heap = heap(far(1 << 52), HeapConfig::new());
    let blocks = [2 * MIB, 8 << 40, 3 * MIB + 1].map(|size| {
        let block = heap.alloc(bytes(size)).expect("addresses");
        knows_far(&heap, block, size);
        block
    });
    for block in blocks {
        free(&heap, block);
    }
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
}

/// Readers tell what lives apart from what comes and goes around it.
#[test]
fn addresses_are_told_apart_while_huge_blocks_come_and_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let heap = heap(OS, HeapConfig::new().memory_return(Return::Eager));
    let heap = &heap;
    let stays: Vec<_> = (0..40)
        .map(|_| heap.alloc(bytes(2 * MIB)).expect("memory").addr().get())
        .collect();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !STOP.load(Relaxed) {
                        for addr in &stays {
                            let found = heap.block_of(addr + MIB);
                            let block = BlockInfo {
                                addr: *addr,
                                len: 2 * MIB,
                            };
                            assert_eq!(found, Some(block));
                            assert!(heap.owns(addr + 2 * MIB - 1));
                        }
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            let blocks: Vec<_> = (0..40)
                .map(|n| heap.alloc(bytes(MIB + n * 50_000 + 1)).expect("memory"))
                .collect();
            for block in blocks {
                free(heap, block);
            }
        }
        STOP.store(true, Relaxed);
        for reader in readers {
            reader.join().expect("it found what it looked for");
        }
    });
}
