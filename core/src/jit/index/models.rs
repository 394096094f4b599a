//! What a reader without the lock may see of an index that the lock's holder changes.

extern crate std;
use super::*;
use crate::{
    jit::{block::Home, views::Views},
    page::{PageRange, PageSize},
    provider::{DualMapping, DualStep, Fork},
};
use core::ptr::without_provenance_mut;
use loom::thread;
use std::{boxed::Box, vec::Vec};

/// Granules of a block.
const COUNT: usize = 64;

/// Bytes of a granule, as a power of two.
const SHIFT: u32 = 6;

const HERE: usize = 0x1_0000;
const BELOW: usize = 0x8000;

/// Makes a slice that outlives the model.
fn slice<T>(len: usize, value: impl Fn() -> T) -> NonNull<[T]> {
    let values: Vec<_> = (0..len).map(|_| value()).collect();
    NonNull::from(Box::leak(values.into_boxed_slice()))
}

/// Makes an index with room for two blocks, and for the start that no address reaches.
fn index() -> &'static Index {
    // Made now, what all fences share orders nothing later.
    fence(Ordering::SeqCst);
    let index = Index::new();
    for slot in &index.tables {
        let table = Table {
            len: AtomicUsize::new(0),
            starts: slice(3, || AtomicUsize::new(0)),
            blocks: slice(3, || AtomicPtr::new(null_mut())),
            first: AtomicUsize::new(0),
            extent: AtomicUsize::new(0),
            buckets: slice(2, || AtomicU32::new(0)),
            shift: AtomicUsize::new(0),
        };
        slot.store(Box::leak(Box::new(table)), Ordering::Release);
    }
    Box::leak(Box::new(index))
}

const HOME: Home = Home {
    shard: 0,
    pool: 0,
    shift: SHIFT,
    lone: false,
};

/// Makes a block without views.
fn block() -> NonNull<Block> {
    let (words, bytes) = Block::metadata_for(COUNT);
    let words = slice(words, || AtomicU64::new(0));
    let block = Block::unmapped(HOME, words, slice(bytes, || 0), slice(1, || 0), COUNT);
    NonNull::from(Box::leak(Box::new(block)))
}

/// Gives a block views, one of which begins at `rx`, with a span of `granules` granules in
/// the beginning.
fn map(block: NonNull<Block>, rx: usize, rw: usize, granules: usize) {
    let page = PageSize::new(COUNT << SHIFT).expect("a power of two");
    let pages = |start| {
        let start = NonNull::new(without_provenance_mut(start)).expect("not null");
        PageRange::new(start, COUNT << SHIFT, page).expect("a page")
    };
    // SAFETY: the block is never freed, and the one thread that writes has no other.
    let mut held = unsafe { Block::held(block) };
    // SAFETY: nothing is there, and no code unmaps it: no model touches what it describes.
    let mapping = unsafe {
        DualMapping::from_parts(pages(rw), pages(rx), DualStep::Memfd, page, Fork::Detach)
    };
    held.map(Views::Dual(mapping), 0);
    held.bits().allocate(&(0..COUNT), 0..granules);
}

/// Takes a block's views away.
fn unmap(block: NonNull<Block>) {
    // SAFETY: the block is never freed, and the one thread that writes has no other Held.
    let mut held = unsafe { Block::held(block) };
    let _ = held.take_views();
    held.forget_granules();
}

/// The granules of the span that a query finds, and where it is written.
fn query(index: &Index, addr: usize) -> Option<(usize, usize)> {
    let info = index.query(addr)?.info;
    assert_eq!(info.rx.addr().get(), HERE);
    Some((info.len >> SHIFT, info.rw.addr().get()))
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

#[test]
fn model_a_block_is_found_while_another_comes_and_goes() {
    model(|| {
        let (index, here, other) = (index(), block(), block());
        map(here, HERE, 0x100_0000, 3);
        index.insert(here);
        let reader = thread::spawn(|| query(index, HERE + (2 << SHIFT)));
        map(other, BELOW, 0x200_0000, 1);
        index.insert(other);
        index.remove(other);
        let found = reader.join().expect("the reader ends");
        assert_eq!(found, Some((3, 0x100_0000)));
    });
}

#[test]
fn model_a_block_at_the_address_of_another_is_never_taken_for_it() {
    model(|| {
        let (index, old, new) = (index(), block(), block());
        map(old, HERE, 0x100_0000, 3);
        index.insert(old);
        let reader = thread::spawn(|| query(index, HERE + (1 << SHIFT)));
        index.remove(old);
        map(new, HERE, 0x200_0000, 2);
        index.insert(new);
        let found = reader.join().expect("the reader ends");
        let either = matches!(found, None | Some((3, 0x100_0000) | (2, 0x200_0000)));
        assert!(either, "{found:x?}");
    });
}

#[test]
fn model_a_block_mapped_anew_is_what_it_was_or_what_it_is() {
    model(|| {
        let (index, block) = (index(), block());
        map(block, HERE, 0x100_0000, 3);
        index.insert(block);
        let reader = thread::spawn(|| query(index, HERE + (1 << SHIFT)));
        index.remove(block);
        unmap(block);
        map(block, HERE, 0x200_0000, 2);
        index.insert(block);
        let found = reader.join().expect("the reader ends");
        let either = matches!(found, None | Some((3, 0x100_0000) | (2, 0x200_0000)));
        assert!(either, "{found:x?}");
    });
}
