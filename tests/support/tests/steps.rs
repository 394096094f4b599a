//! Instructions are counted, and seen one by one.
#![cfg(target_os = "linux")]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use hostmem_test_support::{isolate, steps};

fn add(times: u64) -> u64 {
    let sum = AtomicU64::new(0);
    for n in 0..times {
        sum.fetch_add(black_box(n), Ordering::Relaxed);
    }
    sum.load(Ordering::Relaxed)
}

#[test]
fn a_count_follows_the_work() {
    let count = |times| {
        isolate::or_skip(steps::count(|| {
            black_box(add(times));
        }))
    };
    let (Some(none), Some(ten), Some(again), Some(thousand)) =
        (count(0), count(10), count(10), count(1000))
    else {
        return;
    };
    assert_eq!(ten, again, "a count is exact");
    assert!(none < ten, "{none} for nothing, {ten} for something");
    let (once, more) = (ten - none, thousand - none);
    assert!(
        (99 * once..101 * once).contains(&more),
        "{once} for ten rounds, {more} for a thousand"
    );
}

#[test]
fn every_state_between_two_instructions_is_seen() {
    let value = AtomicU64::new(0);
    let mut seen = Vec::with_capacity(100);
    let body = || {
        for n in 1..=20 {
            value.store(n, Ordering::Relaxed);
        }
    };
    let steps = steps::between_all(body, &mut || {
        let now = value.load(Ordering::Relaxed);
        if seen.last() != Some(&now) && seen.len() < seen.capacity() {
            seen.push(now);
        }
    });
    if isolate::or_skip(steps).is_some() {
        assert_eq!(seen, (0..=20).collect::<Vec<u64>>(), "none is missed");
    }
}

#[test]
fn a_panic_ends_the_stepping() {
    let panicked = std::panic::catch_unwind(|| {
        // Without the message, whose making takes very many instructions.
        let _ = steps::count(|| std::panic::resume_unwind(Box::new(())));
    });
    assert!(panicked.is_err(), "the panic is passed on");
    let after = isolate::or_skip(steps::count(|| {}));
    assert!(after.is_none_or(|n| n < 100), "{after:?}");
}
