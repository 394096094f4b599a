//! The cases.

use super::Checked;
use crate::{Outcome, SplitMix64, harness::expect_refused};
use core::alloc::Layout;
use hostmem_core::{
    arena::Arena,
    provider::{ErrorKind, PageProvider},
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

pub(super) fn at_its_bound_an_arena_refuses_and_serves_again<P: PageProvider + Copy>(
    p: P,
) -> Outcome {
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

pub(super) fn nothing_is_reserved_ahead<P: PageProvider + Copy>(p: P) -> Outcome {
    let page = p.page_size();
    let huge = page.round_down(isize::MAX.unsigned_abs());
    let mut arena = Checked::new(p, huge);
    assert_eq!(arena.arena.max_bytes(), huge, "the bound is as asked for");
    assert_eq!(arena.arena.reserved_bytes(), 0, "nothing is needed yet");
    assert_eq!(arena.alloc(16, 8), Ok(()), "a small object");
    let first = arena.arena.reserved_bytes();
    assert!(first <= 64 << 10 || first == page.bytes(), "{first} bytes");
    let mut before = first;
    for n in 0..200 {
        assert_eq!(arena.alloc(10_000, 8), Ok(()), "object {n}");
        let reserved = arena.arena.reserved_bytes();
        assert!(
            reserved <= 3 * before + page.bytes(),
            "from {before} to {reserved} bytes at once"
        );
        before = reserved;
    }
    // One that needs more than the next piece has gets as much as it needs.
    let size = (900 << 10) + 8;
    assert_eq!(arena.alloc(size, 8), Ok(()), "a long object");
    arena.expect_all_intact();
    arena.free_all();
    Outcome::Passed
}

pub(super) fn values_and_slices_are_initialised<P: PageProvider + Copy>(p: P) -> Outcome {
    let arena = Arena::<P>::new(p, 1 << 20).expect("a valid bound");
    let value = arena.alloc_value(0x5a5a_u32).expect("it has room");
    // SAFETY: the value is in the arena, which is alive.
    assert_eq!(unsafe { value.read() }, 0x5a5a, "the value was moved there");
    let slice = arena.alloc_slice(100, || 7_u16).expect("it has room");
    // SAFETY: the slice is in the arena, which is alive.
    let slice = unsafe { slice.as_ref() };
    assert!(slice.iter().all(|&n| n == 7), "the slice was initialised");
    Outcome::Passed
}

pub(super) fn memory_that_was_used_is_cleared_where_zero_is_asked_for<P>(p: P) -> Outcome
where
    P: PageProvider + Copy,
{
    let arena = Arena::<P>::new(p, 8 << 20).expect("a valid bound");
    for round in 0..3 {
        for size in [1, 16, 100, 1000, 5000, 30_000, 40_000, 500_000, 1_500_000] {
            let layout = Layout::from_size_align(size, 8).expect("valid");
            let memory = arena.alloc_zeroed(layout).expect("it has room");
            for at in 0..size {
                // SAFETY: the memory is that long.
                let byte = unsafe { memory.add(at) };
                // SAFETY: it reads zero, hence is initialised, and is no other code's.
                let was = unsafe { byte.replace(0xff) };
                assert_eq!(was, 0, "round {round}, {size} bytes: byte {at}");
            }
            // SAFETY: allocated with this layout, and used no more.
            unsafe { arena.free(memory, layout) };
        }
    }
    Outcome::Passed
}

pub(super) fn long_objects_go_back<P: PageProvider + Copy>(p: P) -> Outcome {
    let faulty = Faulty::new(p);
    let mut arena = Checked::new(&faulty, 64 << 20);
    assert_eq!(arena.alloc(100, 8), Ok(()), "a small object");
    let before = |arena: &Checked<_>| {
        let arena: &Arena<_> = &arena.arena;
        (arena.reserved_bytes(), arena.committed_bytes())
    };
    let small = before(&arena);
    for align in [8, 4096, 1 << 16] {
        assert_eq!(arena.alloc(5 << 20, align), Ok(()), "aligned to {align}");
        assert!(before(&arena) > small, "it has a piece of its own");
        arena.free(1);
        assert_eq!(before(&arena), small, "the piece went back");
    }
    // One that cannot be released is kept, and serves again.
    assert_eq!(arena.alloc(5 << 20, 8), Ok(()));
    let long = before(&arena);
    faulty.only(Calls::RELEASE);
    faulty.fail_randomly(1, 1);
    arena.free(1);
    faulty.fail_none();
    assert_eq!(before(&arena), long, "the piece is there still");
    assert_eq!(arena.alloc(4 << 20, 8), Ok(()));
    assert_eq!(before(&arena), long, "it serves again");
    arena.expect_all_intact();
    arena.free_all();
    assert_eq!(before(&arena), small, "and goes back then");
    Outcome::Passed
}

/// Runs a script as often as it makes calls, with another one of them failing each time.
pub(super) fn failures_anywhere_change_nothing<P: PageProvider + Copy>(p: P) -> Outcome {
    let faulty = Faulty::new(p);
    let mut failing = 0;
    loop {
        faulty.only(Calls::RESERVE | Calls::COMMIT);
        let mut arena = Checked::new(&faulty, 64 << 20);
        let mut random = SplitMix64::new(0x0b57_ac1e);
        faulty.fail_nth(failing);
        let failures = faulty.failures();
        for step in 0..160 {
            let long = [100, 5000, 60_000, 100][step % 4];
            let most = if step % 40 == 7 { 1_500_000 } else { long };
            let size = random.between(1, most);
            let state = |arena: &Checked<_>| {
                let arena: &Arena<_> = &arena.arena;
                [
                    arena.used_bytes(),
                    arena.committed_bytes(),
                    arena.reserved_bytes(),
                ]
            };
            let before = state(&arena);
            if let Err(kind) = arena.alloc(size, 8) {
                assert_eq!(kind, ErrorKind::Exhausted, "call {failing}, step {step}");
                assert_eq!(state(&arena), before, "call {failing}, step {step}");
                assert_eq!(arena.alloc(size, 8), Ok(()), "call {failing}: once more");
            }
            if arena.live.len() > 30 {
                arena.free(random.below(30));
            }
        }
        arena.expect_all_intact();
        arena.free_all();
        let failed = faulty.failures() - failures;
        faulty.fail_none();
        if failed == 0 {
            break;
        }
        failing += 1;
    }
    assert!(failing > 10, "the script makes only {failing} calls");
    Outcome::Passed
}
