//! The JIT allocator on the real system: queries from a signal handler, many threads, barriers.

use crate::{
    code::{Jit, OS, allocator},
    common::{
        CODE_LEN, call, code_returning, emulated,
        signals::{handle, tick_every},
        threads::{Patience, Stop},
    },
};
use core::{
    cell::Cell,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};
use hostmem::{
    OsProvider, arch,
    jit::{JitAllocator, JitConfig, JitError, Span, SyncCores},
    page::PageSize,
    provider::{Capabilities, Error, ErrorKind, PageProvider},
    sim::{Calls, Faulty, Policy, Sim},
};
use hostmem_test_support::isolate::isolated;

/// A live span that the handler asks about, and what it found.
static ASKED: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
static ANSWERS: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);
static JIT: AtomicPtr<Jit> = AtomicPtr::new(ptr::null_mut());

extern "C" fn ask(_: libc::c_int) {
    let jit = JIT.load(Ordering::Relaxed);
    // SAFETY: set before the timer starts, to an allocator that outlives it.
    let Some(jit) = (unsafe { jit.as_ref() }) else {
        return;
    };
    let (start, len) = (ASKED.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    for inside in [0, 1, len / 2, len - 1] {
        let right = jit
            .query(start + inside)
            .is_some_and(|info| info.rx.addr().get() == start && info.len == len);
        WRONG.fetch_add(usize::from(!right), Ordering::Relaxed);
    }
    let stray = jit.query(ptr::from_ref(&WRONG).addr()).is_some() || jit.query(0).is_some();
    WRONG.fetch_add(usize::from(stray), Ordering::Relaxed);
    ANSWERS.fetch_add(1, Ordering::Relaxed);
}

/// Interrupts this thread every 50 microseconds of its processor time.
fn start_interrupting() {
    handle(libc::SIGPROF, ask);
    assert!(tick_every(50), "a timer");
}

#[test]
fn j3_query_answers_in_a_handler_that_interrupted_the_allocator() {
    isolated!(
        "j3_query_answers_in_a_handler_that_interrupted_the_allocator",
        || {
            // Small blocks, so that the index changes often.
            let jit = allocator(JitConfig::new().block_size(64 << 10, 64 << 10));
            let asked = jit.alloc(5000).expect("a strategy works");
            ASKED.store(asked.rx().addr().get(), Ordering::Relaxed);
            LEN.store(asked.len_bytes(), Ordering::Relaxed);
            JIT.store(ptr::from_ref(&jit).cast_mut(), Ordering::Relaxed);
            start_interrupting();
            let patience = Patience::new();
            let mut spans: Vec<Span> = Vec::new();
            let mut random = 1u64;
            while ANSWERS.load(Ordering::Relaxed) < 500 {
                for _ in 0..100 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let size = usize::try_from(random >> 50).expect("14 bits") + 1;
                    spans.push(jit.alloc(size).expect("a strategy works"));
                }
                for span in spans.drain(..) {
                    jit.release(span).expect("released once");
                }
                patience.check("a signal");
            }
            JIT.store(ptr::null_mut(), Ordering::Relaxed);
            let (answers, wrong) = (
                ANSWERS.load(Ordering::Relaxed),
                WRONG.load(Ordering::Relaxed),
            );
            assert_eq!(wrong, 0, "of {answers} interruptions");
            jit.release(asked).expect("released once");
        },
    );
}

#[test]
fn j9_threads_never_get_overlapping_memory() {
    const THREADS: u32 = 8;
    let operations: u32 = if emulated() { 500 } else { 20_000 };
    let jit = &allocator(JitConfig::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut live: Vec<(Span, u32)> = Vec::new();
                let mut random = u64::from(thread) + 1;
                for n in 0..operations {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let draw = usize::try_from(random >> 40).expect("24 bits");
                    if live.len() < 200 && draw.is_multiple_of(2) {
                        let mut span = jit.alloc(CODE_LEN + draw % 1000).expect("memory");
                        // Both ends, so that an overlap at either is seen.
                        let value = (n * THREADS + thread) % 65_536;
                        let code = code_returning(value);
                        jit.write(&mut span, 0, &code).expect("ours");
                        let end = span.len_bytes() - CODE_LEN;
                        jit.write(&mut span, end, &code).expect("ours");
                        live.push((span, value));
                    } else if !live.is_empty() {
                        let (mut span, value) = live.swap_remove(draw % live.len());
                        let rx = span.rx().as_ptr();
                        // SAFETY: such a function was written at both ends.
                        assert_eq!(unsafe { call(rx) }, value);
                        let end = rx.wrapping_add(span.len_bytes() - CODE_LEN);
                        // SAFETY: such a function was written at both ends.
                        assert_eq!(unsafe { call(end) }, value);
                        if draw.is_multiple_of(3) {
                            jit.shrink(&mut span, CODE_LEN).expect("ours");
                            // SAFETY: the start stays.
                            assert_eq!(unsafe { call(rx) }, value);
                        }
                        let found = jit.query(rx.addr() + 1).expect("live");
                        assert_eq!((found.rx, found.len), (span.rx(), span.len_bytes()));
                        jit.release(span).expect("released once");
                    }
                }
                live.into_iter()
                    .for_each(|(span, _)| jit.release(span).expect("released once"));
            });
        }
    });
    let statistics = jit.statistics();
    assert_eq!((statistics.spans, statistics.used), (0, 0));
    assert!(
        statistics.blocks <= 1,
        "one empty block is kept: {statistics:?}"
    );
}

#[test]
fn queries_are_exact_while_other_threads_map_and_unmap_blocks() {
    let jit = &allocator(JitConfig::new().block_size(64 << 10, 64 << 10));
    let kept: Vec<Span> = (0..100).map(|_| jit.alloc(3000).expect("memory")).collect();
    let stop = &AtomicBool::new(false);
    let changes: &[AtomicUsize; 2] = &Default::default();
    let enough = if emulated() { 50 } else { 1500 };
    std::thread::scope(|scope| {
        let _stop = Stop(stop);
        for changes in changes {
            scope.spawn(move || {
                let _stop = Stop(stop);
                while !stop.load(Ordering::Relaxed) {
                    let spans: Vec<Span> = (0..50)
                        .map(|_| jit.alloc(40_000).expect("memory"))
                        .collect();
                    spans
                        .into_iter()
                        .for_each(|span| jit.release(span).expect("once"));
                    changes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Each of the two threads maps and unmaps blocks, however few cores there are.
        let changed = || changes.iter().all(|n| n.load(Ordering::Relaxed) >= enough);
        let mut asked = 0u64;
        while (!changed() || asked < 1000) && !stop.load(Ordering::Relaxed) {
            for span in &kept {
                let found = jit.query(span.rx().addr().get() + 2999).expect("live");
                assert_eq!(
                    (found.rx, found.rw, found.len),
                    (span.rx(), span.rw(), 3008)
                );
                asked += 1;
            }
        }
    });
    kept.into_iter()
        .for_each(|span| jit.release(span).expect("once"));
}

#[test]
fn other_cores_are_synchronized_only_where_code_was_before() {
    let sim = Sim::new(OS, Policy::new(OS.page_size())).expect("mapped");
    let faulty = Faulty::new(&sim).with_error(Error::os(ErrorKind::Denied, libc::EPERM));
    faulty.only(Calls::SYNC_CORES);
    let jit: JitAllocator<_, OsProvider> =
        JitAllocator::on(&faulty, OS, JitConfig::new()).expect("valid");
    let mut first = jit.alloc(300).expect("memory");
    let mut second = jit.alloc(300).expect("memory");
    jit.write(&mut first, 0, &[0xcc; 64]).expect("ours");
    jit.write(&mut first, 64, &[0xcc; 200]).expect("ours");
    jit.write(&mut second, 0, &[0xcc; 300]).expect("ours");
    jit.write(&mut second, 0, &[]).expect("nothing to write");
    // Where CPUs fetch ahead it takes a barrier each.
    let fresh = 3 * u64::from(arch::FETCHES_AHEAD);
    assert_eq!(faulty.calls(), fresh, "fresh memory costs no system call");
    jit.write(&mut first, 10, &[0x90; 4]).expect("ours");
    assert_eq!(faulty.calls(), fresh + 1, "changed code does");
    jit.release(first).expect("once");
    let mut third = jit.alloc(300).expect("memory");
    jit.write(&mut third, 0, &[0xcc; 8]).expect("ours");
    assert_eq!(
        faulty.calls(),
        fresh + 2,
        "and so does memory that had code"
    );
    faulty.fail_nth(0);
    let error = jit
        .write(&mut third, 0, &[0x90; 8])
        .expect_err("the barrier fails");
    assert_eq!(
        error,
        JitError::SyncCores(Error::os(ErrorKind::Denied, libc::EPERM))
    );
    // SAFETY: live, readable, eight bytes.
    let bytes = unsafe { third.rx().cast::<[u8; 8]>().read() };
    assert_eq!(bytes, [0x90; 8], "the bytes are written all the same");
    let never = JitConfig::new().sync_cores(SyncCores::Never);
    let quiet: JitAllocator<_, OsProvider> = JitAllocator::on(&faulty, OS, never).expect("valid");
    let mut span = quiet.alloc(64).expect("memory");
    let before = faulty.calls();
    quiet.write(&mut span, 0, &[0x90; 8]).expect("ours");
    quiet.write(&mut span, 0, &[0xcc; 8]).expect("ours");
    assert_eq!(faulty.calls(), before);
}

#[test]
fn a_host_that_cannot_synchronize_cores_is_used_without_or_refused() {
    let policy = Policy::new(OS.page_size()).without(Capabilities::CORE_SYNC);
    let sim = Sim::new(OS, policy).expect("mapped");
    let config = JitConfig::new();
    let jit: JitAllocator<_, OsProvider> = JitAllocator::on(&sim, OS, config).expect("valid");
    assert!(!jit.syncs_cores());
    let mut span = jit.alloc(64).expect("memory");
    jit.write(&mut span, 0, &code_returning(1)).expect("ours");
    jit.write(&mut span, 0, &code_returning(2))
        .expect("without a barrier");
    // SAFETY: published just now.
    assert_eq!(unsafe { call(span.rx().as_ptr()) }, 2);
    jit.release(span).expect("once");
    let config = config.sync_cores(SyncCores::Required);
    let refused = JitAllocator::<_, OsProvider>::on(&sim, OS, config);
    assert_eq!(
        refused.map(drop).expect_err("it cannot"),
        JitError::Unsupported
    );
    assert_eq!(
        allocator(config).syncs_cores(),
        OS.capabilities().contains(Capabilities::CORE_SYNC)
    );
}

#[test]
fn a_host_without_what_the_allocator_needs_is_refused_at_once() {
    let policy = Policy::new(PageSize::KIB_16).without(Capabilities::DUAL);
    let sim = Sim::new(OS, policy).expect("mapped");
    let refused = JitAllocator::<_, OsProvider>::on(&sim, OS, JitConfig::new());
    assert_eq!(
        refused.map(drop).expect_err("no dual mappings"),
        JitError::Unsupported
    );
    for config in [
        JitConfig::new().granularity(48),
        JitConfig::new().granularity(8),
        JitConfig::new().block_size(1 << 20, 1 << 16),
        JitConfig::new().block_size(1000, 1 << 20),
        JitConfig::new().metadata(0),
    ] {
        let refused = JitAllocator::<_, _>::on(OS, OS, config);
        assert_eq!(
            refused.map(drop).expect_err("invalid"),
            JitError::Config(config.check().expect_err("invalid"))
        );
    }
}

#[test]
fn spans_can_be_made_on_one_thread_and_released_on_another() {
    let jit = &allocator(JitConfig::new());
    let span = jit.alloc(100).expect("memory");
    let len = Cell::new(0);
    len.set(span.len_bytes());
    std::thread::scope(|scope| {
        scope.spawn(move || jit.release(span).expect("once"));
    });
    assert_eq!((len.get(), jit.statistics().spans), (128, 0));
}
