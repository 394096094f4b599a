//! Bad calls: each is refused with its own error, and changes nothing.

use super::{
    calls::{GRANULE, with_spans},
    make, need_jit,
};
use crate::Outcome;
use alloc::boxed::Box;
use hostmem_core::{
    jit::{JitAllocator, JitConfig, JitError, Refused},
    provider::{Capabilities, Provider},
};

/// Calls `act` with addresses at which no live span starts, and asserts that each is refused with
/// the right error and nothing changes.
fn refuse_addresses<P, T>(p: P, act: fn(&JitAllocator<P>, usize) -> Result<T, JitError>)
where
    P: Provider + Copy,
    T: core::fmt::Debug,
{
    let (model, freed) = with_spans(p);
    let first = model
        .live
        .iter()
        .map(|l| l.rx())
        .min()
        .expect("three spans are live");
    let rw = model.live[0].span.rw().addr().get();
    let local = 0_u8;
    let heap = Box::new(0_u8);
    let before = model.jit.statistics();
    for (addr, error, what) in [
        (0, JitError::NotOwned, "null"),
        (1, JitError::NotOwned, "almost null"),
        (usize::MAX, JitError::NotOwned, "the last address"),
        (
            (&raw const local).addr(),
            JitError::NotOwned,
            "an address of the stack",
        ),
        (
            (&raw const *heap).addr(),
            JitError::NotOwned,
            "an address of the heap",
        ),
        (rw, JitError::NotOwned, "the writable view"),
        (first - 1, JitError::NotLive, "the end of the padding"),
        (
            first - GRANULE,
            JitError::NotLive,
            "the start of the padding",
        ),
        (freed, JitError::NotLive, "a released span"),
        (
            freed + 1,
            JitError::NotLive,
            "the inside of a released span",
        ),
        (
            freed + 3 * GRANULE,
            JitError::NotLive,
            "the last granule of a released span",
        ),
        (first + 1, JitError::Interior, "the second byte of a span"),
        (
            first + GRANULE,
            JitError::Interior,
            "the second granule of a span",
        ),
        (
            first + 4 * GRANULE - 1,
            JitError::Interior,
            "the last byte of a span",
        ),
    ] {
        match act(&model.jit, addr) {
            Err(found) => assert_eq!(found, error, "{what}"),
            Ok(done) => panic!("{what}: {done:?}, but it must be refused with {error:?}"),
        }
        assert_eq!(
            model.jit.statistics(),
            before,
            "{what}: a refused call changed something"
        );
        model.expect_all_intact();
    }
}

pub(super) fn bad_configurations_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    let new = JitConfig::new;
    for config in [
        new().granularity(0),
        new().granularity(8),
        new().granularity(24),
        new().granularity(8192),
        new().granularity(usize::MAX),
        new().block_size(0, 1 << 20),
        new().block_size(32 << 10, 1 << 20),
        new().block_size(96 << 10, 1 << 20),
        new().block_size(64 << 10, 2 << 30),
        new().block_size(2 << 20, 1 << 20),
        new().metadata(0),
    ] {
        let wrong = config.check().expect_err("it is not valid");
        let made = make(p, config);
        assert!(
            matches!(made, Err(JitError::Config(error)) if error == wrong),
            "{config:?} must be refused: {made:?}"
        );
    }
    if !p.capabilities().contains(Capabilities::DUAL) {
        let made = make(p, new());
        assert!(
            matches!(made, Err(JitError::Unsupported)),
            "code needs dual mappings: {made:?}"
        );
    }
    Outcome::Passed
}

pub(super) fn bad_sizes_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (model, _) = with_spans(p);
    let before = model.jit.statistics();
    let most = isize::MAX.unsigned_abs();
    for size in [0, usize::MAX, usize::MAX - GRANULE, most + 1, most] {
        let result = model.jit.alloc(size);
        assert!(
            matches!(result, Err(JitError::InvalidSize)),
            "alloc({size:#x}): {result:?}"
        );
        assert_eq!(
            model.jit.statistics(),
            before,
            "a refused call changed something"
        );
    }
    for size in [most / 2, most / 4, most / 1024] {
        let refused = model.jit.alloc(size).expect_err("no host has that much");
        let typed = matches!(
            refused,
            JitError::InvalidSize | JitError::Metadata(_) | JitError::Map(_)
        );
        assert!(typed, "alloc({size:#x}): {refused:?}");
        model.expect_unchanged(before);
    }
    model.expect_all_intact();
    Outcome::Passed
}

pub(super) fn bad_releases_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // SAFETY: no span starts at any of the addresses.
    refuse_addresses(p, |jit, addr| unsafe { jit.release_at(addr) });
    // Twice, the second time as the only span of its block.
    let jit = make(p, JitConfig::new()).expect("an allocator can be made");
    let rx = jit
        .alloc(1)
        .expect("a small span can be had")
        .rx()
        .addr()
        .get();
    // SAFETY: the span starts there, and its token is gone.
    unsafe { jit.release_at(rx) }.expect("the span is live");
    let before = jit.statistics();
    // SAFETY: no span starts there any more.
    let again = unsafe { jit.release_at(rx) };
    assert_eq!(again, Err(JitError::NotLive), "a double release");
    assert_eq!(jit.statistics(), before, "a refused call changed something");
    Outcome::Passed
}

pub(super) fn bad_shrinks_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // SAFETY: no span starts at any of the addresses.
    refuse_addresses(p, |jit, addr| unsafe { jit.shrink_at(addr, 1) });
    let (mut model, _) = with_spans(p);
    let before = model.jit.statistics();
    let most = isize::MAX.unsigned_abs();
    for len in [0, 4 * GRANULE + 1, 8 * GRANULE, most / 2, most, usize::MAX] {
        model.shrink(0, len);
        assert_eq!(
            model.jit.statistics(),
            before,
            "a refused call changed something"
        );
    }
    model.expect_all_intact();
    Outcome::Passed
}

pub(super) fn bad_writes_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // SAFETY: no span starts at any of the addresses.
    refuse_addresses(p, |jit, addr| unsafe { jit.write_at(addr, 0, &[0; 8]) });
    let (mut model, _) = with_spans(p);
    let len = 4 * GRANULE;
    let before = model.jit.statistics();
    for (offset, size) in [
        (len, 1),
        (len - 7, 8),
        (0, len + 1),
        (len + 1, 0),
        (usize::MAX, 1),
        (usize::MAX - 7, 8),
    ] {
        for n in 0..3 {
            model.write(n, offset, size, 0xbad);
        }
        assert_eq!(
            model.jit.statistics(),
            before,
            "a refused call changed something"
        );
        model.expect_all_intact();
    }
    // The empty write at the end, and the one that fills the span, are inside.
    model.write(0, len, 0, 0xbad);
    model.write(0, 0, len, 0x900d);
    model.expect_all_intact();
    Outcome::Passed
}

pub(super) fn spans_of_others_are_refused_and_returned<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let (mut model, _) = with_spans(p);
    let other = make(p, JitConfig::new()).expect("an allocator can be made");
    let others = other.alloc(GRANULE).expect("a small span can be had");
    let before = (model.jit.statistics(), other.statistics());
    let mut mine = model.live.pop().expect("three spans are live");
    assert_eq!(
        other.write(&mut mine.span, 0, &[0]),
        Err(JitError::NotOwned),
        "a foreign write"
    );
    assert_eq!(
        other.shrink(&mut mine.span, 1),
        Err(JitError::NotOwned),
        "a foreign shrink"
    );
    assert_eq!(other.query(mine.rx()), None, "a foreign address");
    let Refused { span, error } = other.release(mine.span).expect_err("a foreign span");
    assert_eq!(error, JitError::NotOwned, "a foreign release");
    let Refused {
        span: others,
        error,
    } = model.jit.release(others).expect_err("a foreign span");
    assert_eq!(error, JitError::NotOwned, "a foreign release");
    let after = (model.jit.statistics(), other.statistics());
    assert_eq!(after, before, "a refused call changed something");
    model.expect_all_intact();
    model
        .jit
        .release(span)
        .expect("the token that came back is good");
    other
        .release(others)
        .expect("the token that came back is good");
    Outcome::Passed
}
