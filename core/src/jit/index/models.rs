//! What a reader without the lock may see of an index that the lock's holder changes.

extern crate std;
use super::*;
use core::ptr::without_provenance_mut;
use loom::thread;
use std::{boxed::Box, vec::Vec};

const GRANULE: usize = 64;
const HERE: usize = 0x1_0000;
const BELOW: usize = 0x8000;

/// Makes a slice that outlives the model.
fn slice<T>(len: usize, value: impl Fn() -> T) -> NonNull<[T]> {
    let values: Vec<_> = (0..len).map(|_| value()).collect();
    NonNull::from(Box::leak(values.into_boxed_slice()))
}

/// Makes an index with room for two blocks.
fn index() -> &'static Index {
    // Made now, what all fences share orders nothing later.
    fence(Ordering::SeqCst);
    let index = Index::new();
    for slot in &index.tables {
        let table = Table {
            len: AtomicUsize::new(0),
            starts: slice(2, || AtomicUsize::new(0)),
            entries: slice(2, Entry::empty),
        };
        slot.store(Box::leak(Box::new(table)), Ordering::Release);
    }
    Box::leak(Box::new(index))
}

/// Makes a block at `rx` that starts with a span of so many granules. A block of other `data` is
/// written elsewhere.
fn block(rx: usize, granules: usize, data: usize) -> Copied {
    const COUNT: usize = 8;
    let words = slice(Bits::words_for(COUNT), || AtomicU64::new(0));
    // SAFETY: made just now, and never freed.
    let bits = Bits::new(unsafe { words.as_ref() }, COUNT);
    bits.clear();
    bits.allocate(&(0..COUNT), 0..granules);
    Copied {
        rx: without_provenance_mut(rx),
        rw: without_provenance_mut(data),
        count: COUNT,
        shift: GRANULE.trailing_zeros(),
        words: words.as_ptr().cast(),
        word_count: words.len(),
        block: without_provenance_mut(data),
    }
}

/// The granules of the span that a query finds, and where it is written.
fn query(index: &Index, addr: usize) -> Option<(usize, usize)> {
    let found = index.query(addr)?;
    assert_eq!(found.block.addr(), found.info.rw.addr(), "of one block");
    assert_eq!(found.info.rx.addr().get(), HERE);
    Some((found.info.len / GRANULE, found.info.rw.addr().get()))
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

#[test]
fn model_a_block_is_found_while_another_comes_and_goes() {
    model(|| {
        let index = index();
        index.insert_copied(block(HERE, 3, 0x100));
        let reader = thread::spawn(|| query(index, HERE + 2 * GRANULE));
        let other = block(BELOW, 1, 0x200);
        index.insert_copied(other);
        index.remove(NonNull::new(other.block).expect("not null"));
        assert_eq!(reader.join().expect("the reader ends"), Some((3, 0x100)));
    });
}

#[test]
fn model_a_block_at_the_address_of_another_is_never_taken_for_it() {
    model(|| {
        let index = index();
        let old = block(HERE, 3, 0x100);
        index.insert_copied(old);
        let reader = thread::spawn(|| query(index, HERE + GRANULE));
        index.remove(NonNull::new(old.block).expect("not null"));
        index.insert_copied(block(HERE, 2, 0x200));
        let found = reader.join().expect("the reader ends");
        assert!(
            matches!(found, None | Some((3, 0x100) | (2, 0x200))),
            "{found:x?}"
        );
    });
}
