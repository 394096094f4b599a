//! Models of threads without a lock, which look while others change the heap. Blocks have addresses
//! and no memory, since the heap never touches it.

extern crate std;
use super::{
    BlockInfo, Heap, HeapConfig, HeapError, Return,
    class::{CLASSES, GRANULE},
};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Purged, Request},
};
use core::{
    alloc::Layout,
    ptr::{NonNull, without_provenance_mut},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use loom::thread;
use std::{alloc, boxed::Box};

const PAGE: PageSize = PageSize::KIB_4;

/// The first block's address.
const FIRST: usize = 1 << 20;

/// The class of blocks of one granule, which have slabs for themselves.
const SINGLE: usize = CLASSES - 17;

/// A slab of four granules has eight such blocks.
const HALF: usize = GRANULE / 2;

/// Addresses for blocks, each given once.
struct Addresses(AtomicUsize);

// SAFETY: ranges are apart, as the sum only grows; no code reads or writes there, so that there
// need not be memory.
unsafe impl PageProvider for Addresses {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let len = request.plan(PAGE)?.total();
        let start = self.0.fetch_add(len, Relaxed);
        let start = NonNull::new(without_provenance_mut(start));
        let range = start.and_then(|start| PageRange::new(start, len, PAGE));
        range.ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PAGE)
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn purge(&self, _: PageRange) -> Result<Purged, Error> {
        Ok(Purged::ZeroOrOld)
    }

    unsafe fn release(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }
}

/// Memory for metadata.
#[derive(Clone, Copy)]
struct Memory;

impl Memory {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, PAGE.bytes()).expect("pages")
    }
}

// SAFETY: ranges are allocations, zeroed, and only taken back as a whole when they are released, as
// the heap and its arena do.
unsafe impl PageProvider for Memory {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let len = request.plan(PAGE)?.total();
        // SAFETY: not of size zero: no request is.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(Self::layout(len)) });
        let range = start.and_then(|start| PageRange::new(start, len, PAGE));
        range.ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PAGE)
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: `release` is asked for what `reserve` returned, allocated with this length, and
        // not used any more.
        unsafe { alloc::dealloc(range.start().as_ptr(), Self::layout(range.len_bytes())) };
        Ok(())
    }
}

type Model = Heap<&'static Addresses, Memory>;

/// Runs `check` with a heap that has one shard and keeps no free granules, in every order of steps
/// with as many switches in the middle of something.
fn model(preemptions: usize, check: impl Fn(&'static Model) + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(move || {
        let addresses: &Addresses = Box::leak(Box::new(Addresses(AtomicUsize::new(FIRST))));
        let config = HeapConfig::new()
            .metadata(1 << 20)
            .segment(16 * GRANULE)
            .shards(1)
            .magazine(0)
            .memory_return(Return::Eager);
        let heap = Model::on(addresses, Memory, config).expect("metadata");
        let heap = Box::into_raw(Box::new(heap));
        // SAFETY: a value that is dropped below, when `check` has ended with all its threads and
        // handles.
        check(unsafe { &*heap });
        // SAFETY: the pointer came from a box, and the threads that used it have ended.
        drop(unsafe { Box::from_raw(heap) });
    });
}

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn free(heap: &Model, block: NonNull<u8>) {
    // SAFETY: live, and used no more.
    unsafe { heap.free(block) }.expect("a live block");
}

fn info(addr: usize, len: usize) -> Option<BlockInfo> {
    Some(BlockInfo { addr, len })
}

/// The granule of a block becomes one of a slab of another class, in which no thread has a block
/// there.
#[test]
fn model_no_block_is_invented_where_another_slab_is_opened() {
    model(2, |heap| {
        let block = heap.alloc(bytes(GRANULE)).expect("memory");
        let reader = thread::spawn(|| {
            let inside = FIRST + HALF + 100;
            (heap.owns(inside), heap.block_of(inside))
        });
        free(heap, block);
        let other = heap.alloc(bytes(HALF)).expect("memory");
        assert_eq!(other, block, "the lowest granules");
        let (owned, found) = reader.join().expect("the reader ends");
        assert!(owned, "as it was all the time");
        assert!([None, info(FIRST, GRANULE)].contains(&found), "{found:?}");
    });
}

/// The same for who frees what is no block, by either kind of call.
#[test]
fn model_no_block_is_freed_where_another_slab_is_opened() {
    for by_handle in [false, true] {
        model(2, move |heap| {
            let local = heap.local().expect("metadata");
            let block = heap.alloc(bytes(GRANULE)).expect("memory");
            let bad = NonNull::new(without_provenance_mut(FIRST + HALF)).expect("not null");
            let bad = Sent(bad);
            let freer = thread::spawn(move || {
                let Sent(bad) = { bad };
                if by_handle {
                    // SAFETY: no block's start at any time.
                    unsafe { local.free(bad) }
                } else {
                    // SAFETY: no block's start at any time.
                    unsafe { heap.free(bad) }
                }
            });
            free(heap, block);
            let other = heap.alloc(bytes(HALF)).expect("memory");
            assert_eq!(other, block, "the lowest granules");
            let refused = freer.join().expect("it ends");
            let reasons = [Err(HeapError::Interior), Err(HeapError::NotLive)];
            assert!(reasons.contains(&refused), "{refused:?}");
        });
    }
}

/// A pointer on its way to another thread.
struct Sent(NonNull<u8>);

// SAFETY: what it points to is not used.
unsafe impl Send for Sent {}

/// A slab is dropped, and its descriptor describes granules elsewhere, where a block is live that
/// is not in the place that is asked about.
#[test]
fn model_no_block_is_invented_where_a_descriptor_moves() {
    model(2, |heap| {
        let block = heap.alloc(bytes(HALF)).expect("memory");
        let reader = thread::spawn(|| heap.block_of(FIRST + HALF));
        free(heap, block);
        let before = heap.alloc(bytes(GRANULE)).expect("memory");
        assert_eq!(before, block, "the lowest granule");
        heap.alloc(bytes(HALF)).expect("memory");
        // By a thread that did not take the granules itself.
        let moved = thread::spawn(|| Sent(heap.alloc(bytes(HALF)).expect("memory")));
        let Sent(moved) = moved.join().expect("it ends");
        assert_eq!(moved.addr().get(), FIRST + GRANULE + HALF);
        let found = reader.join().expect("the reader ends");
        assert!([None, info(FIRST, GRANULE)].contains(&found), "{found:?}");
    });
}

/// The same for the descriptor of a large block, whose length changes with it.
#[test]
fn model_no_large_block_is_found_with_the_length_of_another() {
    model(2, |heap| {
        let block = heap.alloc(bytes(5 * GRANULE)).expect("memory");
        let reader = thread::spawn(|| heap.block_of(FIRST));
        free(heap, block);
        let before = heap.alloc(bytes(GRANULE)).expect("memory");
        assert_eq!(before, block, "the lowest granule");
        let moved = heap.alloc(bytes(7 * GRANULE)).expect("memory");
        assert_eq!(moved.addr().get(), FIRST + GRANULE);
        let found = reader.join().expect("the reader ends");
        let there = [None, info(FIRST, 5 * GRANULE), info(FIRST, GRANULE)];
        assert!(there.contains(&found), "{found:?}");
    });
}

/// The same where the other block begins before it, and would reach it if it were as long.
#[test]
fn model_a_large_block_is_no_longer_than_it_is() {
    model(2, |heap| {
        let before = heap.alloc(bytes(GRANULE)).expect("memory");
        let block = heap.alloc(bytes(7 * GRANULE)).expect("memory");
        assert_eq!(block.addr().get(), FIRST + GRANULE);
        let reader = thread::spawn(|| heap.block_of(FIRST + 6 * GRANULE));
        free(heap, before);
        free(heap, block);
        let moved = heap.alloc(bytes(5 * GRANULE)).expect("memory");
        assert_eq!(moved.addr().get(), FIRST);
        let found = reader.join().expect("the reader ends");
        let there = [None, info(FIRST + GRANULE, 7 * GRANULE)];
        assert!(there.contains(&found), "{found:?}");
    });
}

/// The page map gets its first leaf.
#[test]
fn model_addresses_are_told_apart_while_the_first_segment_comes() {
    model(2, |heap| {
        let reader = thread::spawn(|| (heap.owns(FIRST), heap.block_of(FIRST)));
        let block = heap.alloc(bytes(HALF)).expect("memory");
        assert_eq!(block.addr().get(), FIRST);
        let (_, found) = reader.join().expect("the reader ends");
        assert!([None, info(FIRST, HALF)].contains(&found), "{found:?}");
        assert_eq!(heap.block_of(FIRST), info(FIRST, HALF));
    });
}

/// Two threads have blocks of a slab cached, one brings some back, and the other takes them.
#[test]
fn model_no_block_is_handed_out_twice() {
    model(2, |heap| {
        let locals = [(); 2].map(|()| heap.local().expect("metadata"));
        let [one, other] = locals;
        let mut blocks = [(); 4].map(|()| Sent(heap.alloc(bytes(HALF)).expect("memory")));
        let last = blocks[3].0;
        let theirs = core::mem::replace(&mut blocks[3], Sent(last));
        let freer = thread::spawn(move || {
            // One more than there is room for.
            for block in &blocks[..3] {
                // SAFETY: live, and used no more.
                unsafe { one.free(block.0) }.expect("a live block");
            }
            one
        });
        // SAFETY: live, and used no more.
        unsafe { other.free(theirs.0) }.expect("a live block");
        let mut got = [(); 4]
            .map(|()| other.alloc(bytes(HALF)).expect("memory"))
            .to_vec();
        let one = freer.join().expect("it ends");
        got.extend([(); 2].map(|()| one.alloc(bytes(HALF)).expect("memory")));
        for block in &got {
            let start = block.addr().get();
            assert_eq!(heap.block_of(start), info(start, HALF), "live");
        }
        got.sort();
        assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
        for block in got {
            // SAFETY: live, and used no more.
            unsafe { one.free(block) }.expect("a live block");
        }
        drop((one, other));
        let held = heap.statistics();
        assert_eq!((held.used, held.cached, held.committed), (0, 0, 0));
    });
}

/// Two handles free one block at the same moment, and each brings back what it was told is its own.
/// No thread waits without end, and what was freed twice serves once.
#[test]
fn model_two_frees_of_one_block_come_to_an_end() {
    model(3, |heap| {
        let [one, other] = [(); 2].map(|()| heap.local().expect("metadata"));
        let block = Sent(heap.alloc(bytes(HALF)).expect("memory"));
        let again = Sent(block.0);
        let freer = thread::spawn(move || {
            let Sent(block) = { again };
            // SAFETY: freed twice, which is what is tried: no other code uses the block.
            let freed = unsafe { other.free(block) };
            drop(other);
            freed.is_ok()
        });
        // SAFETY: freed twice, which is what is tried: no other code uses the block.
        let freed = unsafe { one.free(block.0) }.is_ok();
        drop(one);
        assert!(freer.join().expect("it ends") || freed, "one of them");
        let held = heap.statistics();
        assert_eq!((held.used, held.cached, held.committed), (0, 0, 0));
    });
}

/// A handle comes and goes while one looks through all of them.
#[test]
fn model_handles_come_and_go_while_blocks_are_counted() {
    model(2, |heap| {
        let first = heap.local().expect("metadata");
        let block = first.alloc(bytes(HALF)).expect("memory");
        // As the statistics do for each class.
        let counter = thread::spawn(|| {
            let lens = heap.all_caches().map(|c| c.magazines[SINGLE].len());
            lens.sum::<u32>()
        });
        let second = heap.local().expect("metadata");
        let other = second.alloc(bytes(GRANULE)).expect("memory");
        // SAFETY: live, and used no more.
        unsafe { second.free(other) }.expect("a live block");
        drop(second);
        let found = counter.join().expect("it ends");
        assert!(found <= 1, "{found}");
        // SAFETY: live, and used no more.
        unsafe { first.free(block) }.expect("a live block");
        drop(first);
        assert_eq!(heap.statistics().used, 0);
    });
}
