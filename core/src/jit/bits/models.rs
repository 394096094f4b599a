//! What a reader without the lock may see of bits that the lock's holder changes.

extern crate std;
use super::*;
use loom::thread;
use std::{boxed::Box, vec::Vec};

/// Granules: three words, and one of summaries.
const COUNT: usize = 192;

/// The span that is looked for, over the end of a word.
const SPAN: Range<usize> = 60..130;

fn free() -> Bits<'static> {
    let words: Vec<_> = (0..Bits::words_for(COUNT))
        .map(|_| AtomicU64::new(0))
        .collect();
    let bits = Bits::new(Box::leak(words.into_boxed_slice()), COUNT, words_for(COUNT));
    bits.begin();
    bits
}

/// Reads what is around a granule, while the lock's holder changes bits.
fn read_while(
    bits: Bits<'static>,
    granule: usize,
    write: impl Fn(Bits<'_>),
) -> Option<Range<usize>> {
    let reader = thread::spawn(move || bits.span_around(granule));
    write(bits);
    reader.join().expect("the reader ends")
}

#[test]
fn model_a_span_that_appears_is_whole_or_not_there() {
    loom::model(|| {
        let bits = free();
        let seen = read_while(bits, 100, |bits| bits.allocate(&(0..COUNT), SPAN));
        assert!(seen.is_none() || seen == Some(SPAN), "{seen:?}");
    });
}

#[test]
fn model_a_span_of_runs_just_joined_is_whole_or_not_there() {
    for granule in [65, 129] {
        loom::model(move || {
            let bits = free();
            bits.allocate(&(0..COUNT), 60..70);
            bits.allocate(&(70..COUNT), 70..130);
            bits.free_tail(60..70, 0);
            bits.free_tail(70..130, 0);
            let seen = read_while(bits, granule, |bits| {
                bits.join(70);
                bits.allocate(&(60..130), SPAN);
            });
            assert!(seen.is_none() || seen == Some(SPAN), "{seen:?}");
        });
    }
}

#[test]
fn model_a_live_span_stands_still_while_its_neighbours_go_and_come() {
    for granule in [60, 100, 129] {
        loom::model(move || {
            let bits = free();
            bits.allocate(&(0..COUNT), 0..60);
            bits.allocate(&(60..COUNT), SPAN);
            bits.allocate(&(130..COUNT), 130..140);
            let seen = read_while(bits, granule, |bits| {
                bits.free_tail(0..60, 0);
                let mut right = bits.free_tail(130..140, 0);
                bits.join_right(&mut right);
                bits.allocate(&(0..60), 50..60);
                bits.allocate(&(130..COUNT), 130..150);
            });
            assert_eq!(seen, Some(SPAN));
        });
    }
}
