//! The cases.

use super::Checked;
use crate::{Outcome, SplitMix64, harness::expect_refused};
use core::alloc::Layout;
use hostmem_core::{
    arena::Arena,
    provider::{ErrorKind, PageProvider, Request},
    sim::{Calls, Faulty},
};

const EXHAUSTED: &[ErrorKind] = &[ErrorKind::Exhausted];

pub(super) fn allocations_are_aligned_disjoint_and_intact<P: PageProvider + Copy>(p: P) -> Outcome {
    let seed = 0xa7e4a;
    let mut random = SplitMix64::new(seed);
    let mut arena = Checked::new(p, 4 << 20);
    for step in 0..2000 {
        if arena.live.len() > 100 || (!arena.live.is_empty() && random.below(5) < 2) {
            let n = random.below(arena.live.len());
            arena.free(n);
        } else {
            let most = [16, 200, 5000, 100_000][random.below(4)];
            let align = 1 << random.below(14);
            let result = arena.alloc(random.between(1, most), align);
            let fine = result.is_ok() || result == Err(ErrorKind::Exhausted);
            assert!(fine, "seed {seed:#x}, step {step}: {result:?}");
        }
        if step % 100 == 0 {
            arena.expect_all_intact();
        }
    }
    arena.expect_all_intact();
    arena.free_all();
    Outcome::Passed
}

pub(super) fn bounded_and_usable_afterwards<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut arena = Checked::new(p, 1 << 20);
    let max = arena.arena.max_bytes();
    for _ in 0..3 {
        let mut allocated = 0;
        let full = loop {
            match arena.alloc(7000, 8) {
                Ok(()) => allocated += 7000,
                Err(kind) => break kind,
            }
            assert!(
                allocated <= max,
                "more was allocated than the arena may hold"
            );
        };
        assert_eq!(full, ErrorKind::Exhausted, "the bound is no other error");
        assert!(
            allocated > max / 2,
            "only {allocated} of {max} bytes could be allocated"
        );
        arena.expect_all_intact();
        arena.free(0);
        assert_eq!(arena.alloc(7000, 8), Ok(()), "what was freed serves again");
        arena.free_all();
    }
    Outcome::Passed
}

pub(super) fn memory_is_used_again<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut arena = Checked::new(p, 1 << 20);
    let mut committed = 0;
    for round in 0..50 {
        for n in 0..20 {
            let result = arena.alloc(1000 + 10 * n, 16);
            assert_eq!(
                result,
                Ok(()),
                "round {round}: the last round's memory is lost"
            );
        }
        arena.free_all();
        if round == 0 {
            committed = arena.arena.committed_bytes();
        }
    }
    assert_eq!(
        arena.arena.committed_bytes(),
        committed,
        "no more than one round needs"
    );
    Outcome::Passed
}

pub(super) fn impossible_layouts_are_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut arena = Checked::new(p, 1 << 20);
    let invalid = &[ErrorKind::InvalidArgument];
    let most = isize::MAX.unsigned_abs();
    // Before anything is committed, and after.
    for _ in 0..2 {
        let zero = Layout::from_size_align(0, 8).expect("valid");
        expect_refused(arena.arena.alloc(zero), invalid, "a layout of size zero");
        expect_refused(
            arena.arena.alloc_slice(0, || 0_u64),
            invalid,
            "an empty slice",
        );
        expect_refused(
            arena.arena.alloc_slice(most, || 0_u64),
            invalid,
            "too large a slice",
        );
        for (size, align) in [
            (most, 1),
            (most - 15, 16),
            (1, (most >> 1) + 1),
            ((most >> 1) + 1, (most >> 1) + 1),
            (2 << 20, 8),
        ] {
            let layout = Layout::from_size_align(size, align).expect("valid");
            expect_refused(
                arena.arena.alloc(layout),
                EXHAUSTED,
                "more than the arena holds",
            );
        }
        assert_eq!(
            arena.alloc(100, 8),
            Ok(()),
            "the arena is usable after refusals"
        );
    }
    arena.expect_all_intact();
    Outcome::Passed
}

pub(super) fn failed_commits_change_nothing<P: PageProvider + Copy>(p: P) -> Outcome {
    let seed = 0xfa17;
    let faulty = Faulty::new(p);
    faulty.only(Calls::COMMIT);
    let mut arena = Checked::new(&faulty, 4 << 20);
    let mut random = SplitMix64::new(seed);
    faulty.fail_randomly(seed, 2);
    let mut failed = 0;
    for step in 0..300 {
        let before = (arena.arena.used_bytes(), arena.arena.committed_bytes());
        let result = arena.alloc(random.between(1, 20_000), 1 << random.below(13));
        if result.is_err() {
            assert_eq!(
                result,
                Err(ErrorKind::Exhausted),
                "seed {seed:#x}, step {step}"
            );
            let after = (arena.arena.used_bytes(), arena.arena.committed_bytes());
            assert_eq!(
                after, before,
                "seed {seed:#x}, step {step}: a failure changed it"
            );
            failed += 1;
            arena.expect_all_intact();
        }
        if arena.live.len() > 100 {
            arena.free(random.below(100));
        }
    }
    assert_ne!(failed, 0, "seed {seed:#x}: no commit was made to fail");
    faulty.fail_none();
    arena.free_all();
    Outcome::Passed
}

pub(super) fn reservations_shrink_where_addresses_are_short<P>(p: P) -> Outcome
where
    P: PageProvider + Copy,
{
    let huge = p.page_size().round_down(isize::MAX.unsigned_abs());
    assert!(
        p.reserve(&Request::bytes(huge)).is_err(),
        "no host has all addresses"
    );
    let arena = Arena::<P>::new(p, huge).expect("what there is will do");
    assert!(
        arena.max_bytes() >= 1 << 20,
        "an arena has at least a mebibyte"
    );
    assert!(
        arena.max_bytes() < huge,
        "an arena cannot be larger than the host"
    );
    let value = arena.alloc_value(0x5a5a_u32).expect("it has room");
    // SAFETY: the value is in the arena, which is alive.
    assert_eq!(unsafe { value.read() }, 0x5a5a, "the value was moved there");
    let slice = arena.alloc_slice(100, || 7_u16).expect("it has room");
    // SAFETY: the slice is in the arena, which is alive.
    let slice = unsafe { slice.as_ref() };
    assert!(slice.iter().all(|&n| n == 7), "the slice was initialised");
    drop(arena);
    // The addresses came back, or this would fail on hosts with few.
    for _ in 0..4 {
        drop(Arena::<P>::new(p, huge).expect("a dropped arena gives its addresses back"));
    }
    Outcome::Passed
}
