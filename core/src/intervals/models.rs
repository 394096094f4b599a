//! What a reader without the lock may see while ranges come and go.

extern crate std;
use super::{Interval, Intervals, Piece, Spares, Top};
use crate::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};
use core::ptr::NonNull;
use loom::thread;
use std::{boxed::Box, vec::Vec};

struct Model {
    index: &'static Intervals,
    spares: Spares,
}

fn of(start: usize) -> Interval {
    Interval {
        start,
        len: start / 10,
        value: start + 7,
    }
}

impl Model {
    /// Makes an index with that many pieces and tops for it, which are never freed.
    fn new(pieces: usize, tops: usize, starts: &[usize]) -> Self {
        // Made now, what all fences share orders nothing later.
        fence(Ordering::SeqCst);
        let mut spares = Spares::new();
        for _ in 0..pieces {
            spares.push(NonNull::from(Box::leak(Box::new(Piece::new()))));
        }
        for _ in 0..tops {
            let firsts: Vec<_> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            let slots: Vec<_> = (0..4).map(|_| AtomicPtr::default()).collect();
            let top = Top::new(
                NonNull::from(Box::leak(firsts.into_boxed_slice())),
                NonNull::from(Box::leak(slots.into_boxed_slice())),
            );
            spares.push_top(NonNull::from(Box::leak(Box::new(top))));
        }
        let index = Box::leak(Box::new(Intervals::new()));
        let mut model = Self { index, spares };
        for start in starts {
            model.insert(*start);
        }
        model
    }

    fn insert(&mut self, start: usize) {
        self.index.insert(&mut self.spares, of(start));
    }

    fn remove(&mut self, start: usize) {
        self.index.remove(&mut self.spares, start);
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // One switch in the middle of the reader is what it takes to use a copy again under it.
    builder.preemption_bound = Some(1);
    builder.max_branches = 20_000;
    builder.check(check);
}

/// The reader's piece is replaced, and serves again for other ranges.
#[test]
fn model_an_interval_is_found_whole_while_its_piece_is_used_again() {
    model(|| {
        let mut model = Model::new(2, 1, &[100]);
        let index = model.index;
        let reader = thread::spawn(move || index.find(105));
        model.insert(300);
        // Written to the piece that the reader may be in.
        model.remove(300);
        model.insert(60);
        let found = reader.join().expect("the reader ends");
        assert_eq!(found, Some(of(100)));
    });
}

/// Pieces are split and joined, so that the top is replaced, and serves again.
#[test]
fn model_an_interval_is_found_while_tops_are_used_again() {
    model(|| {
        let mut model = Model::new(3, 2, &[100, 300]);
        let index = model.index;
        let reader = thread::spawn(move || index.find(305));
        model.insert(200);
        model.remove(100);
        model.remove(200);
        let found = reader.join().expect("the reader ends");
        assert_eq!(found, Some(of(300)));
    });
}

/// What is being added or taken out is found whole, or not at all.
#[test]
fn model_an_interval_that_comes_or_goes_is_found_whole_or_not_at_all() {
    model(|| {
        let mut model = Model::new(3, 2, &[]);
        let index = model.index;
        let reader = thread::spawn(move || (index.find(105), index.next(0)));
        model.insert(100);
        model.remove(100);
        model.insert(200);
        let (found, next) = reader.join().expect("the reader ends");
        assert!([None, Some(of(100))].contains(&found), "{found:?}");
        let all = [None, Some(of(100)), Some(of(200))];
        assert!(all.contains(&next), "{next:?}");
        assert_eq!(index.find(201), Some(of(200)));
    });
}

/// A length changes while it is read.
#[test]
fn model_an_interval_that_changes_is_found_as_before_or_after() {
    model(|| {
        let mut model = Model::new(2, 1, &[100, 300]);
        let index = model.index;
        let reader = thread::spawn(move || index.find(300));
        index.change(&mut model.spares, 300, 50, 9);
        index.change(&mut model.spares, 100, 20, 8);
        let found = reader.join().expect("the reader ends");
        let changed = Interval {
            start: 300,
            len: 50,
            value: 9,
        };
        assert!([Some(of(300)), Some(changed)].contains(&found), "{found:?}");
    });
}
