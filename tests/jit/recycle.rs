//! Memory that held code before: when barriers come, and caches that are flushed and filled again.

use crate::{
    code::{Jit, OS, allocator, allocator_on},
    common::{CODE_LEN, call, code_returning, emulated},
};
use core::sync::atomic::{AtomicU64, Ordering};
use hostmem::{
    OsProvider,
    counted::{Counted, Limits},
    jit::{Barrier, CodeProvider, Fill, JitConfig, JitError, Mapping, Reset, Span, SyncCores},
    provider::{Error, ErrorKind},
    sim::{Calls, Faulty},
};
use std::thread;

/// A provider that counts barriers, and can refuse them.
fn counting() -> Faulty<OsProvider> {
    let faulty = Faulty::new(OS).with_error(Error::os(ErrorKind::Denied, libc::EPERM));
    faulty.only(Calls::SYNC_CORES);
    faulty
}

/// Allocates a span in which code was published before.
fn recycled<P: CodeProvider>(jit: &Jit<P>) -> Span {
    let mut span = jit.alloc(64).expect("memory");
    jit.write(&mut span, 0, &code_returning(1)).expect("ours");
    span
}

#[test]
fn barriers_come_when_the_caller_says() {
    let faulty = counting();
    let jit = allocator_on(&faulty, JitConfig::new());
    let mut span = recycled(&jit);
    jit.publish().expect("nothing is owed");
    let mut before = faulty.calls();
    let mut made = || {
        let now = faulty.calls();
        let made = now - before;
        before = now;
        made
    };
    assert_eq!(made(), 0);
    for _ in 0..100 {
        jit.write_deferred(&mut span, 0, &code_returning(2))
            .expect("ours");
        jit.patch_u32(&span, 16, 7, Barrier::Deferred)
            .expect("ours");
        jit.patch_u32(&span, 16, 7, Barrier::Never).expect("ours");
    }
    assert_eq!(made(), 0, "they are deferred");
    jit.publish().expect("it can be done");
    jit.publish().expect("it was done");
    assert_eq!(made(), 1, "one for all, and none for nothing");
    // Any other barrier pays what is owed.
    jit.write_deferred(&mut span, 0, &code_returning(3))
        .expect("ours");
    jit.patch_u32(&span, 16, 8, Barrier::Now).expect("ours");
    assert_eq!(made(), 1);
    jit.publish().expect("it was done");
    assert_eq!(made(), 0);
    // A batch does at its end, and one that wrote nothing has none.
    jit.write_deferred(&mut span, 0, &code_returning(3))
        .expect("ours");
    let mut batch = jit.batch();
    batch.write(&mut span, 0, &code_returning(4)).expect("ours");
    batch.finish().expect("it can be done");
    jit.publish().expect("it was done");
    jit.batch().finish().expect("nothing is to be done");
    assert_eq!(made(), 1);
    // One that fails pays nothing.
    jit.write_deferred(&mut span, 0, &code_returning(5))
        .expect("ours");
    faulty.fail_nth(0);
    let refused = JitError::SyncCores(Error::os(ErrorKind::Denied, libc::EPERM));
    assert_eq!(jit.publish(), Err(refused));
    faulty.fail_none();
    assert_eq!(made(), 1);
    jit.publish().expect("it is owed still");
    jit.publish().expect("and now it is not");
    assert_eq!(made(), 1);
    // SAFETY: published just now.
    assert_eq!(unsafe { call(span.rx().as_ptr()) }, 5);
    jit.release(span).expect("once");
}

#[test]
fn writes_are_deferred_by_configuration() {
    let faulty = counting();
    let jit = allocator_on(&faulty, JitConfig::new().sync_cores(SyncCores::Deferred));
    let before = faulty.calls();
    for round in 0..50 {
        let mut span = jit.alloc(CODE_LEN).expect("memory");
        jit.write(&mut span, 0, &code_returning(round))
            .expect("ours");
        let filled = jit.write_with(&mut span, |writer| {
            writer.bytes_mut()[..CODE_LEN].copy_from_slice(&code_returning(round + 1));
        });
        filled.expect("ours");
        jit.release(span).expect("once");
    }
    assert_eq!(faulty.calls(), before, "not by themselves");
    jit.publish().expect("it can be done");
    assert_eq!(faulty.calls(), before + 1);
    // Nor where nothing is to be synchronized at all.
    let never = allocator_on(&faulty, JitConfig::new().sync_cores(SyncCores::Never));
    let span = recycled(&never);
    never.patch_u32(&span, 0, 1, Barrier::Now).expect("ours");
    never
        .patch_u32(&span, 0, 1, Barrier::Deferred)
        .expect("ours");
    never.publish().expect("nothing is to be done");
    assert_eq!(faulty.calls(), before + 1);
    never.release(span).expect("once");
}

#[test]
fn a_reset_that_keeps_blocks_maps_none_again() {
    for mapping in [Mapping::Dual, Mapping::Toggle] {
        for fill in [Fill::Keep, Fill::Trap] {
            let config = JitConfig::new().mapping(mapping).fill(fill).pools(2);
            let counted = Counted::<OsProvider>::new(OS, "code", Limits::NONE).expect("metadata");
            let jit = allocator_on(&counted, config);
            // More than one block of each pool, holes, spans in bins, an active run.
            let fill_all = |jit: &Jit<&Counted<OsProvider>>| {
                let mut spans: Vec<Span> = Vec::new();
                for n in 0..2000_usize {
                    spans.push(jit.alloc(64 + n * 37 % 1500).expect("memory"));
                    if n % 3 == 0 {
                        let other = spans.swap_remove(n * 7 % spans.len());
                        jit.release(other).expect("once");
                    }
                }
                spans
            };
            let mut old = fill_all(&jit);
            let before = jit.statistics();
            for round in 0..3 {
                let calls = counted.calls();
                // SAFETY: the spans are not used any more.
                unsafe { jit.reset(Reset::Keep) };
                let now = jit.statistics();
                assert_eq!((now.spans, now.used), (0, 0), "all is free");
                assert_eq!((now.blocks, now.reserved), (before.blocks, before.reserved));
                for block in jit.blocks() {
                    assert_eq!((block.spans, block.used), (0, 0));
                }
                let refused = jit.release(old.pop().expect("there are many"));
                let refused = refused.expect_err("of the time before");
                assert_eq!(refused.error, JitError::NotOwned);
                for span in &old {
                    assert_eq!(jit.query(span.rx().addr().get()), None);
                }
                old = fill_all(&jit);
                if mapping == Mapping::Dual {
                    assert_eq!(counted.calls(), calls, "round {round}: nothing was mapped");
                }
                assert_eq!(jit.statistics().reserved, before.reserved);
            }
            // What it left empty makes room at a limit, and goes when all is released.
            for span in old {
                jit.release(span).expect("once");
            }
            let mut last = jit.alloc(CODE_LEN).expect("memory");
            jit.write(&mut last, 0, &code_returning(5)).expect("ours");
            // SAFETY: published just now.
            assert_eq!(unsafe { call(last.rx().as_ptr()) }, 5);
            // SAFETY: no span is used any more.
            unsafe { jit.reset(Reset::Hard) };
            assert_eq!(jit.statistics().reserved, 0);
        }
    }
}

#[test]
fn blocks_that_a_reset_left_empty_make_room_at_a_limit() {
    let jit = allocator_on(
        OS,
        JitConfig::new()
            .limit(4 << 20)
            .block_size(64 << 10, 1 << 20),
    );
    let spans: Vec<Span> = std::iter::from_fn(|| jit.alloc(1000).ok()).collect();
    assert!(spans.len() > 3000, "{}", spans.len());
    assert!(jit.statistics().blocks > 3);
    // SAFETY: the spans are not used any more.
    unsafe { jit.reset(Reset::Keep) };
    let span = jit.alloc(4 << 20).expect("all of the limit");
    assert_eq!(jit.statistics().blocks, 1);
    jit.release(span).expect("once");
}

#[test]
fn code_that_replaces_code_runs_on_other_threads() {
    let rounds = if emulated() { 200 } else { 20_000 };
    let jit = allocator(JitConfig::new().sync_cores(SyncCores::Deferred));
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let entry = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                while asked.load(Ordering::Acquire) < round {
                    thread::yield_now();
                }
                let rx = usize::try_from(entry.load(Ordering::Relaxed)).expect("an address");
                // SAFETY: published before, and live until this is answered.
                let value = unsafe { call(std::ptr::with_exposed_provenance(rx)) };
                assert_eq!(u64::from(value), round % 60_000);
                answered.store(round, Ordering::Release);
            }
        });
        for round in 1..=rounds {
            let mut span = jit.alloc(CODE_LEN).expect("memory");
            let value = u32::try_from(round % 60_000).expect("small");
            jit.write(&mut span, 0, &code_returning(value))
                .expect("ours");
            jit.publish().expect("cores can be synchronized");
            let rx = span.rx().as_ptr().expose_provenance();
            entry.store(rx as u64, Ordering::Relaxed);
            asked.store(round, Ordering::Release);
            while answered.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
            jit.release(span).expect("once");
        }
    });
}

#[test]
fn many_are_released_at_once_and_the_others_stay() {
    let (jit, other) = (
        allocator(JitConfig::new().pools(3)),
        allocator(JitConfig::new()),
    );
    let mut spans: Vec<Option<Span>> = Vec::new();
    for n in 0..10_000_usize {
        let owner = if n % 1000 == 7 { &other } else { &jit };
        spans.push((n % 10 != 3).then(|| owner.alloc(1 + n * 31 % 3000).expect("memory")));
    }
    let kept = jit.alloc(100).expect("memory");
    let foreign = spans
        .iter()
        .flatten()
        .filter(|s| other.query(s.rx().addr().get()).is_some());
    let foreign = foreign.count();
    assert_eq!((foreign, jit.release_many(&mut spans)), (10, 10));
    assert_eq!(spans.iter().flatten().count(), 10, "they stay the caller's");
    assert_eq!(jit.statistics().spans, 1);
    assert_eq!(other.release_many(&mut spans), 0);
    assert_eq!(other.statistics().spans, 0);
    assert_eq!(jit.release_many(&mut spans), 0, "nothing is left");
    assert_eq!(jit.query(kept.rx().addr().get()), Some(kept.info()));
    jit.release(kept).expect("once");
}
