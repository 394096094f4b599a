//! Allocators on providers that fail.

use super::{
    adapted,
    model::{Model, cause},
    need_jit,
};
use crate::{Outcome, SplitMix64};
use hostmem_core::{
    arch,
    counted::{Counted, Limits},
    fork::ForkHooks,
    jit::{JitAllocator, JitConfig, JitError},
    provider::{Capabilities, Error, ErrorKind, Provider},
    sim::{Calls, Faulty},
};

type Failing<'a, P> = &'a Faulty<&'a Counted<P>>;

fn count<P: Provider + Copy>(p: P) -> Counted<P> {
    Counted::new(p, "jit", Limits::NONE).expect("a small arena can be reserved")
}

/// Small blocks, so that a short script maps and unmaps several.
fn config<P: Provider + Copy>(p: P) -> JitConfig {
    adapted(
        p,
        JitConfig::new()
            .granularity(256)
            .block_size(64 << 10, 64 << 10),
    )
}

/// Allocates; where that was made to fail, checks the error and allocates again.
fn alloc<'a, P: Provider + Copy>(model: &mut Model<Failing<'a, P>>, size: usize, kind: ErrorKind) {
    let before = model.jit.statistics();
    let Err(error) = model.alloc(size, size as u64) else {
        return;
    };
    assert!(
        matches!(error, JitError::Map(_) | JitError::Metadata(_)),
        "alloc({size}): {error:?}"
    );
    assert_eq!(
        cause(error),
        Some(kind),
        "alloc({size}): the cause is passed on"
    );
    model.expect_unchanged(before);
    model.expect_all_intact();
    model
        .alloc(size, size as u64)
        .expect("the same call succeeds afterwards");
}

/// The script: several blocks come, are used, reused and go.
fn script<'a, P: Provider + Copy>(model: &mut Model<Failing<'a, P>>, kind: ErrorKind) {
    for n in 0..6 {
        alloc(model, 20_000 + 300 * n, kind);
    }
    alloc(model, 300_000, kind);
    for n in 0..4 {
        model.shrink(n, 5000);
        alloc(model, 9000, kind);
        model.write(n, 100, 2000, 0xfee1);
    }
    while model.live.len() > 2 {
        model.release(0);
    }
    for n in 0..6 {
        alloc(model, 30_000 + n, kind);
    }
    model.expect_all_intact();
    model.release_all();
    alloc(model, 100, kind);
    model.release_all();
}

/// Runs the script with the nth call failing; says whether that many calls were made.
fn fails_at<P: Provider + Copy>(p: P, n: u64, kind: ErrorKind) -> bool {
    let counted = count(p);
    let faulty = Faulty::new(&counted).with_error(Error::os(kind, 12));
    faulty.fail_nth(n);
    let provider = &faulty;
    let jit = JitAllocator::<_>::on(provider, provider, config(p)).or_else(|error| {
        assert!(
            matches!(error, JitError::Metadata(_)),
            "call {n}: {error:?}"
        );
        assert_eq!(cause(error), Some(kind), "call {n}: the cause is passed on");
        JitAllocator::on(provider, provider, config(p))
    });
    let mut model = Model::new(jit.expect("only one call fails"));
    script(&mut model, kind);
    let failed = faulty.failures() == 1;
    // What is unmapped by dropping cannot be tried again, so nothing may fail there.
    faulty.fail_none();
    drop(model);
    let left = counted.counters();
    let left = [left.reserved.now, left.committed.now, left.dual.now];
    assert_eq!(left, [0; 3], "call {n} failing as {kind:?} leaks");
    failed
}

pub(super) fn every_call_of_a_script_fails_once<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for kind in [ErrorKind::Exhausted, ErrorKind::Denied] {
        let mut n = 0;
        while fails_at(p, n, kind) {
            n += 1;
            assert!(n < 1000, "the script makes some tens of calls");
        }
        assert!(
            n >= 5,
            "the script makes several calls, but only {n} could fail"
        );
    }
    Outcome::Passed
}

pub(super) fn random_failures_lose_nothing<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for seed in 0..4 {
        let counted = count(p);
        let faulty = Faulty::new(&counted);
        let jit = JitAllocator::<_>::on(&faulty, &faulty, config(p));
        let mut model = Model::new(jit.expect("nothing fails yet"));
        let mut random = SplitMix64::new(seed);
        faulty.fail_randomly(seed, 3);
        for step in 0..1500 {
            if random.below(9) < 5 && model.live.len() < 60 {
                let result = model.alloc(random.between(1, 20_000), step);
                let fine = result.is_ok() || cause_is_exhausted(result);
                assert!(fine, "seed {seed:#x}, step {step}: {result:?}");
            } else if !model.live.is_empty() {
                model.release(random.below(model.live.len()));
            }
        }
        assert!(
            faulty.failures() > 0,
            "seed {seed:#x}: nothing failed, so nothing was tested"
        );
        model.expect_all_intact();
        faulty.fail_none();
        model.release_all();
        drop(model);
        let left = counted.counters();
        let left = [left.reserved.now, left.committed.now, left.dual.now];
        assert_eq!(left, [0; 3], "seed {seed:#x}: something leaked");
    }
    Outcome::Passed
}

fn cause_is_exhausted(result: Result<(), JitError>) -> bool {
    result.is_err_and(|e| cause(e) == Some(ErrorKind::Exhausted))
}

pub(super) fn writes_survive_a_failed_synchronization<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    if !p.capabilities().contains(Capabilities::CORE_SYNC) {
        return Outcome::Skipped("cores cannot be synchronized");
    }
    let faulty = Faulty::new(p);
    faulty.only(Calls::SYNC_CORES);
    let jit = JitAllocator::<_, P>::on(&faulty, p, JitConfig::new());
    let jit = jit.expect("an allocator can be made");
    let mut span = jit.alloc(256).expect("a small span can be had");
    assert_eq!(
        jit.write(&mut span, 0, &[1; 100]),
        Ok(()),
        "memory that never held code"
    );
    assert_eq!(
        jit.write(&mut span, 128, &[2; 100]),
        Ok(()),
        "nor did its second half"
    );
    assert_eq!(
        faulty.calls(),
        2 * u64::from(arch::FETCHES_AHEAD),
        "publishing what was never executed makes no system call where no CPU fetches ahead"
    );
    faulty.fail_nth(0);
    let result = jit.write(&mut span, 64, &[3; 10]);
    let Err(JitError::SyncCores(error)) = result else {
        panic!("the barrier was made to fail, but the write returned {result:?}");
    };
    assert_eq!(error.errno(), Some(12), "the errno is passed on");
    // SAFETY: the span is live, and no other code writes to it meanwhile.
    let bytes = unsafe { core::slice::from_raw_parts(span.rx().as_ptr(), 228) };
    let written = bytes[..64] == [1; 64] && bytes[64..74] == [3; 10] && bytes[74..100] == [1; 26];
    assert!(
        written && bytes[128..] == [2; 100],
        "everything was written all the same"
    );
    assert_eq!(
        jit.write(&mut span, 64, &[4; 10]),
        Ok(()),
        "the next barrier works"
    );
    assert_eq!(
        faulty.calls(),
        2 + 2 * u64::from(arch::FETCHES_AHEAD),
        "each write to executed bytes takes one barrier"
    );
    jit.release(span).expect("an owned span is taken back");
    Outcome::Passed
}

pub(super) fn a_failed_fork_prepare_unlocks<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let counted = count(p);
    let faulty = Faulty::new(&counted);
    let jit = JitAllocator::<_>::on(&faulty, &faulty, config(p));
    let mut model = Model::new(jit.expect("nothing fails yet"));
    model.alloc(5000, 1).expect("nothing fails yet");
    for n in 0..2 {
        let before = counted.counters();
        faulty.fail_nth(n);
        let error = model
            .jit
            .fork_prepare()
            .expect_err("a call of it was made to fail");
        assert_eq!(error.errno(), Some(12), "the errno is passed on");
        let after = counted.counters();
        assert_eq!(
            after.reserved.now, before.reserved.now,
            "call {n} of it leaks addresses"
        );
        assert_eq!(
            after.committed.now, before.committed.now,
            "call {n} of it leaks memory"
        );
        // It would wait forever if the lock were still held.
        model.alloc(5000, n).expect("nothing fails any more");
    }
    model.jit.fork_prepare().expect("nothing fails any more");
    // SAFETY: this thread just called fork_prepare, which succeeded.
    unsafe { model.jit.fork_parent() };
    model.expect_all_intact();
    model.release_all();
    Outcome::Passed
}
