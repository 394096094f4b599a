//! Writing in place, and many writes at once.

use super::{make, model::Model, need_jit};
use crate::{Outcome, code};
use alloc::vec::Vec;
use hostmem_core::{
    arch,
    jit::{JitAllocator, JitConfig, JitError, Span},
    provider::{Capabilities, Error, ErrorKind, Provider},
    sim::{Calls, Faulty},
};

/// More spans than a batch remembers ranges.
const MANY: u16 = 150;

const NO_CODE: Outcome = Outcome::Skipped("no code is known for this CPU");

/// Allocates spans of 64 bytes.
fn spans<P: Provider + Copy, M: Provider + Copy>(jit: &JitAllocator<P, M>) -> Vec<Span> {
    let span = |_| jit.alloc(64).expect("small spans can be had");
    (0..MANY).map(span).collect()
}

/// Writes to every span in one batch a function that returns its number and `plus`, to every second
/// one in place; ends the batch by `end`.
fn write_all<'a, P: Provider + Copy, M: Provider + Copy>(
    jit: &'a JitAllocator<P, M>,
    spans: &'a mut [Span],
    plus: u16,
) -> hostmem_core::jit::Batch<'a, P, M> {
    let mut batch = jit.batch();
    for (n, span) in (plus..).zip(spans) {
        let function = code::returning(n).expect("the case was skipped otherwise");
        let bytes = function.bytes();
        if n % 2 == 0 {
            batch.write(span, 0, bytes).expect("it fits");
            continue;
        }
        let in_place = batch.write_with(span, |writer| {
            writer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            writer.shrink_to(bytes.len());
            n
        });
        assert_eq!(in_place, Ok(n), "what the closure returns is returned");
    }
    batch
}

#[track_caller]
fn expect_running(spans: &[Span], plus: u16) {
    for (n, span) in (plus..).zip(spans) {
        // SAFETY: the batch published the code of `returning` at the start of the span.
        let returned = unsafe { code::call(span.rx()) };
        assert_eq!(returned, u32::from(n), "each span runs its own code");
    }
}

pub(super) fn a_batch_makes_everything_run<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if code::returning(0).is_none() {
        return NO_CODE;
    }
    let jit = make(p, JitConfig::new()).expect("an allocator can be made");
    let mut spans = spans(&jit);
    let finished = write_all(&jit, &mut spans, 0).finish();
    assert_eq!(finished, Ok(()), "the batch ends");
    expect_running(&spans, 0);
    drop(write_all(&jit, &mut spans, 1000));
    expect_running(&spans, 1000);
    // On one thread there is no other core that could be behind.
    write_all(&jit, &mut spans, 2000).finish_without_sync();
    expect_running(&spans, 2000);
    jit.batch().finish().expect("an empty batch ends");
    for span in spans {
        jit.release(span).expect("an owned span is taken back");
    }
    Outcome::Passed
}

pub(super) fn a_batch_takes_one_barrier<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::CORE_SYNC) {
        return Outcome::Skipped("cores cannot be synchronized");
    }
    if code::returning(0).is_none() {
        return NO_CODE;
    }
    let faulty = Faulty::new(p).with_error(Error::os(ErrorKind::Denied, 1));
    faulty.only(Calls::SYNC_CORES);
    let jit = JitAllocator::<_, P>::on(&faulty, p, JitConfig::new());
    let jit = jit.expect("an allocator can be made");
    let mut spans = spans(&jit);
    let finished = write_all(&jit, &mut spans, 0).finish();
    // Where CPUs fetch ahead, fresh memory takes one too.
    let fresh = u64::from(arch::FETCHES_AHEAD);
    assert_eq!((finished, faulty.calls()), (Ok(()), fresh), "fresh memory");
    let finished = write_all(&jit, &mut spans, 1).finish();
    assert_eq!(
        (finished, faulty.calls()),
        (Ok(()), fresh + 1),
        "all of it was code"
    );
    drop(write_all(&jit, &mut spans, 2));
    assert_eq!(
        faulty.calls(),
        fresh + 2,
        "a batch that is dropped takes one too"
    );
    write_all(&jit, &mut spans, 3).finish_without_sync();
    assert_eq!(faulty.calls(), fresh + 2, "none if told so");
    let batch = write_all(&jit, &mut spans, 4);
    faulty.fail_nth(0);
    let failed = batch.finish();
    assert_eq!(
        failed,
        Err(JitError::SyncCores(Error::os(ErrorKind::Denied, 1))),
        "the barrier was made to fail"
    );
    expect_running(&spans, 4);
    assert_eq!(faulty.calls(), fresh + 3, "and was not tried again");
    Outcome::Passed
}

pub(super) fn bad_writes_in_a_batch_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    let other = make(p, JitConfig::new()).expect("an allocator can be made");
    for seed in 0..6 {
        model.alloc(256, seed).expect("small spans can be had");
    }
    let mut foreign = other.alloc(64).expect("a small span can be had");
    let before = model.jit.statistics();
    let mut batch = model.jit.batch();
    let mut live = model.live.iter_mut();
    for (offset, len) in [(256, 1), (0, 257), (usize::MAX, 1), (255, 2)] {
        let span = &mut live.next().expect("six are live").span;
        let result = batch.write(span, offset, &[0; 257][..len]);
        assert_eq!(result, Err(JitError::OutOfBounds), "{len} at {offset}");
    }
    let result = batch.write(&mut foreign, 0, &[0]);
    assert_eq!(result, Err(JitError::NotOwned), "a foreign span");
    let span = &mut live.next().expect("six are live").span;
    let result = batch.write_with(span, |writer| writer.shrink_to(300));
    assert_eq!(result, Err(JitError::Grow), "a span cannot grow");
    let span = &mut live.next().expect("six are live").span;
    let result = batch.write_with(span, |writer| writer.shrink_to(0));
    assert_eq!(result, Err(JitError::InvalidSize), "nor vanish");
    batch.finish().expect("a batch ends");
    assert_eq!(
        model.jit.statistics(),
        before,
        "a refused call changed something"
    );
    model.expect_all_intact();
    model.release_all();
    Outcome::Passed
}

pub(super) fn writing_in_place_shrinks_at_the_end<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if code::returning(0).is_none() {
        return NO_CODE;
    }
    let jit = make(p, JitConfig::new()).expect("an allocator can be made");
    let mut spans = Vec::new();
    for n in 0..MANY {
        let mut span = jit.alloc(4096).expect("a span can be had");
        let function = code::returning(n).expect("known above");
        let written = jit.write_with(&mut span, |writer| {
            let bytes = function.bytes();
            writer.shrink_to(1);
            writer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            writer.shrink_to(bytes.len()); // The last counts.
        });
        assert_eq!(written, Ok(()), "it can be written");
        assert_eq!(span.len_bytes(), 64, "the rest went back");
        spans.push(span);
    }
    expect_running(&spans, 0);
    let found = jit.statistics();
    assert_eq!(found.used, 64 * usize::from(MANY), "one granule each");
    assert_eq!(found.blocks, 1, "so that one block was enough for all");
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    model.alloc(256, 1).expect("a small span can be had");
    for keep in [
        None,
        Some(256),
        Some(257),
        Some(0),
        Some(usize::MAX),
        Some(200),
        Some(64),
    ] {
        model.write_with(0, keep, 0x7e57);
    }
    assert_eq!(model.live[0].len(), 64, "at last");
    Outcome::Passed
}
