//! The index against an ordered map.

extern crate std;
use super::{
    Interval, Intervals, PIECE, Piece, Spares, Top,
    spares::{FIRST, SPARE},
};
use crate::atomic::{AtomicPtr, AtomicUsize};
use core::ptr::NonNull;
use std::{
    boxed::Box,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    vec::Vec,
};

/// Makes room as an arena would, of memory that is never freed; returns how many slots of tops it
/// took.
fn make_room(spares: &mut Spares, index: &Intervals) -> usize {
    while spares.pieces < SPARE {
        spares.push(NonNull::from(Box::leak(Box::new(Piece::new()))));
    }
    let slots = index.top().map_or(0, Top::len) + 1;
    if spares.has_top(slots) {
        return 0;
    }
    let room = (2 * slots).max(FIRST);
    let firsts: Vec<_> = (0..room).map(|_| AtomicUsize::new(0)).collect();
    let pieces: Vec<_> = (0..room).map(|_| AtomicPtr::default()).collect();
    let top = Top::new(
        NonNull::from(Box::leak(firsts.into_boxed_slice())),
        NonNull::from(Box::leak(pieces.into_boxed_slice())),
    );
    spares.push_top(NonNull::from(Box::leak(Box::new(top))));
    room
}

fn insert(spares: &mut Spares, index: &Intervals, new: Interval) {
    make_room(spares, index);
    index.insert(spares, new);
}

fn count(index: &Intervals) -> (usize, usize) {
    let Some(top) = index.top() else {
        return (0, 0);
    };
    let lens = (0..top.len()).filter_map(|n| top.piece(n)).map(Piece::len);
    (lens.sum(), top.len())
}

#[test]
fn ranges_are_found_as_in_an_ordered_map() {
    const LEN: usize = 100;
    for places in [3, 97, 5000] {
        let (index, mut spares) = (Intervals::new(), Spares::new());
        let mut map = BTreeMap::new();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut slots = 0;
        for step in 0..30_000_usize {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = usize::try_from(random >> 33).expect("31 bits");
            let start = LEN + number % places * LEN;
            let new = Interval {
                start,
                len: 1 + number % LEN,
                value: step,
            };
            // More come than go at first, and then the other way.
            let grows = step / 5000 % 2 == 0;
            if let Some(old) = map.get_mut(&start) {
                if number / places % 4 == usize::from(grows) {
                    *old = new;
                    index.change(&mut spares, start, new.len, new.value);
                } else if !grows || number / places % 4 == 2 {
                    map.remove(&start);
                    index.remove(&mut spares, start);
                    // In vain.
                    index.remove(&mut spares, start);
                }
            } else if grows || number / places % 4 == 3 {
                slots += make_room(&mut spares, &index);
                index.insert(&mut spares, new);
                map.insert(start, new);
            }
            for addr in [
                start - 1,
                start,
                start + LEN / 2,
                start + LEN,
                number % (LEN * places),
            ] {
                let below = map.range(..=addr).next_back().map(|(_, found)| *found);
                let expected = below.filter(|found| addr - found.start < found.len);
                assert_eq!(index.find(addr), expected, "{addr}");
                let behind = || map.range(addr..).next().map(|(_, found)| *found);
                assert_eq!(index.next(addr), expected.or_else(behind), "{addr}");
            }
            let (len, pieces) = count(&index);
            assert_eq!(len, map.len());
            assert!(pieces <= len * 4 / PIECE + 1, "{pieces} pieces for {len}");
        }
        assert!(
            slots <= 8 * (places / PIECE + FIRST),
            "{slots} slots of tops"
        );
        for start in map.into_keys() {
            index.remove(&mut spares, start);
        }
        assert_eq!((count(&index), index.next(0)), ((0, 0), None));
    }
}

/// Readers see each range whole, or not at all, while others come and go around it.
#[test]
fn readers_find_what_stays_while_others_come_and_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let index: &Intervals = Box::leak(Box::new(Intervals::new()));
    let mut spares = Spares::new();
    let of = |n: usize| Interval {
        start: n * 1000,
        len: n % 999 + 1,
        value: n,
    };
    let stays = |n: &usize| n.is_multiple_of(7);
    let numbers = 1..2000;
    for n in numbers.clone().filter(stays) {
        insert(&mut spares, index, of(n));
    }
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let numbers = numbers.clone();
            thread::spawn(move || {
                let mut rounds = 0;
                while !STOP.load(Relaxed) || rounds == 0 {
                    for n in numbers.clone() {
                        let found = index.find(n * 1000);
                        assert!(found.is_none_or(|found| found == of(n)), "{found:?}");
                        assert!(found.is_some() || !stays(&n), "{n}");
                    }
                    rounds += 1;
                }
            })
        })
        .collect();
    for _ in 0..30 {
        for n in numbers.clone().filter(|n| !stays(n)) {
            insert(&mut spares, index, of(n));
        }
        for n in numbers.clone().filter(|n| !stays(n)) {
            index.remove(&mut spares, n * 1000);
        }
    }
    STOP.store(true, Relaxed);
    for reader in readers {
        reader.join().expect("it found what it looked for");
    }
}

/// A hundred thousand ranges cost little: a change copies a piece, and seldom a top.
#[test]
fn many_ranges_take_few_words_each() {
    let (index, mut spares) = (Intervals::new(), Spares::new());
    let mut slots = 0;
    for n in 0..100_000_usize {
        // In an order that is neither rising nor falling.
        let n = n.wrapping_mul(0x9e37_79b1) % 1_000_003;
        slots += make_room(&mut spares, &index);
        let new = Interval {
            start: 1 + n * 16,
            len: 16,
            value: n,
        };
        index.insert(&mut spares, new);
    }
    let (len, pieces) = count(&index);
    assert_eq!(len, 100_000);
    assert!(pieces <= 100_000 * 2 / PIECE, "{pieces} pieces");
    assert!(slots <= 8 * pieces, "{slots} slots of tops for {pieces}");
}

/// A range takes the place of the lowest one of a piece, and begins below it.
#[test]
fn a_range_across_the_first_address_of_a_piece_is_found() {
    const APART: usize = 1000;
    let (index, mut spares) = (Intervals::new(), Spares::new());
    let range = |n: usize| Interval {
        start: n * APART,
        len: 10,
        value: n,
    };
    for n in 0..3 * PIECE {
        insert(&mut spares, &index, range(n));
    }
    assert!(count(&index).1 > 2, "pieces");
    for n in 1..3 * PIECE {
        index.remove(&mut spares, n * APART);
        let across = Interval {
            start: n * APART - APART / 2,
            len: APART,
            value: 7777,
        };
        insert(&mut spares, &index, across);
        for addr in [across.start, n * APART, n * APART + APART / 2 - 1] {
            assert_eq!(index.find(addr), Some(across), "{addr}");
            assert_eq!(index.next(addr), Some(across), "{addr}");
        }
        index.remove(&mut spares, across.start);
        insert(&mut spares, &index, range(n));
    }
}
