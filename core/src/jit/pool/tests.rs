//! The bins of a pool.

extern crate std;
use super::{
    bins::{BINS, HINTS},
    *,
};
use std::{boxed::Box, vec::Vec};

#[test]
fn bins_with_hints_are_found_in_order() {
    let hint = Hint::new(255, (1 << 24) - 1).expect("the most there is");
    assert_eq!((hint.slot(), hint.run(3).start), (255, (1 << 24) - 1));
    assert!(Hint::new(256, 0).is_none() && Hint::new(0, 1 << 24).is_none());
    let mut pool = Pool::new(0);
    assert_eq!(pool.next_hinted(0), None, "no bins");
    pool.bins = Some(Bins {
        counts: NonNull::from(Box::leak(Box::new([0; BINS]))),
        hints: NonNull::from(Box::leak(Box::new([hint; HINTS]))),
    });
    let all = [0, 1, 7, 8, 15, 31, 64, 120, 126, 127];
    for first in 0..all.len() {
        for &n in &all[first..] {
            assert!(pool.push_hint(n + 1, hint), "there is room");
        }
        let mut from = 0;
        let found = core::iter::from_fn(|| {
            let n = pool.next_hinted(from)?;
            from = n + 1;
            Some(n)
        });
        assert_eq!(found.collect::<Vec<_>>(), all[first..]);
        assert_eq!(pool.next_hinted(BINS), None, "behind the last one");
        for &n in &all[first..] {
            assert!(pool.pop_hint(n + 1).is_some(), "the hint is there");
            assert!(pool.pop_hint(n + 1).is_none(), "and no other");
        }
        assert_eq!(pool.next_hinted(0), None, "all are empty again");
    }
    assert!(!pool.push_hint(BINS + 1, hint), "no bin is that long");
}
