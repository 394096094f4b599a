//! Under a limit of file sizes (`ulimit -f`) no call ends the process, smaller blocks serve, and
//! where there are none the next kind of mapping does.

use crate::{
    code::{Jit, OS, allocator, run as run_code},
    common::{CODE_LEN, code_returning, skip_emulated, unmap_dual},
};
use hostmem::{
    jit::{JitConfig, JitError, Mapping, Span},
    provider::{
        DualError, DualMapProvider, DualRequest, DualStep, ErrorKind, PageProvider, PageWish,
    },
};
use hostmem_test_support::{
    hugetlb::with_huge_pages,
    isolate::{isolated, isolated_by, or_skip, run, test_path},
    seccomp,
};

const LARGE: usize = 2 << 20;
const KIB: usize = 1 << 10;

/// Limits the files of this process; the hard limit stays, so that it can be raised again.
fn limit(bytes: usize) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is live, and written.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    assert_eq!(got, 0, "limits can be asked for");
    limit.rlim_cur = u64::try_from(bytes)
        .expect("64 bits are enough")
        .min(limit.rlim_max);
    // SAFETY: the limit is live, and read only.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(set, 0, "a soft limit can be moved");
}

fn new(mapping: Mapping) -> Jit {
    allocator(JitConfig::new().mapping(mapping))
}

/// Allocates a function, and runs it.
fn function(jit: &Jit, len: usize) -> Result<Span, JitError> {
    let mut span = jit.alloc(len)?;
    jit.write(&mut span, 0, &code_returning(321)).expect("ours");
    assert_eq!(run_code(&span), 321);
    Ok(span)
}

fn expect_refused(result: Result<Span, JitError>, kind: ErrorKind) {
    let Err(JitError::Map(error)) = result else {
        panic!("a block too long: {result:?}");
    };
    expect_too_long(&error, kind);
}

fn expect_too_long(error: &DualError, kind: ErrorKind) {
    assert_eq!((error.kind(), error.errno()), (kind, Some(libc::EFBIG)));
}

/// Asks everything that makes files, under limits from nothing to plenty.
fn check() {
    let page = OS.page_size().bytes();
    for bytes in [0, 1, KIB, page - 1] {
        limit(bytes);
        let probe = OS.probe_now();
        assert_eq!(probe.best_dual(), None, "{bytes}: {probe:?}");
        for (step, result) in probe.dual() {
            let error = result.expect_err("no file can be a page long");
            assert_eq!(error.errno(), Some(libc::EFBIG), "{bytes}, {step}");
        }
        let dual = new(Mapping::Dual);
        for size in [1, 100_000] {
            expect_refused(function(&dual, size), ErrorKind::Denied);
        }
        let auto = new(Mapping::Auto);
        let span = function(&auto, 100_000).expect("blocks are mapped once");
        let (mapping, reason) = auto.mapping();
        assert_eq!(mapping, Mapping::Toggle);
        expect_too_long(&reason.expect("it is kept"), ErrorKind::Denied);
        auto.release(span).expect("once");
    }
    for (bytes, block) in [(page, page), (24 * KIB, 16 * KIB), (100 * KIB, 64 * KIB)] {
        let (block, bytes) = (block.max(page), bytes.max(page));
        limit(bytes);
        assert!(OS.probe_now().best_dual().is_some(), "a page can be mapped");
        for mapping in [Mapping::Dual, Mapping::Auto] {
            let jit = new(mapping);
            let spans: Vec<Span> = (0..200)
                .map(|_| function(&jit, 1000).expect("smaller blocks serve"))
                .collect();
            assert!(jit.blocks().all(|b| b.rx.len_bytes() == block), "{bytes}");
            assert_eq!(jit.mapping(), (Mapping::Dual, None));
            expect_refused(function(&jit, 200_000), ErrorKind::Exhausted);
            // What is mapped serves whatever the limit becomes.
            limit(0);
            let mut spans = spans;
            for _ in 0..10 {
                jit.release(spans.pop().expect("there are more"))
                    .expect("once");
                spans.push(function(&jit, 1000).expect("its place is free"));
            }
            assert!(jit.decommit_unused() < jit.statistics().reserved);
            expect_refused(function(&jit, 200_000), ErrorKind::Denied);
            limit(usize::MAX);
            spans.push(function(&jit, 200_000).expect("there is no limit"));
            limit(bytes);
            for span in spans {
                jit.release(span).expect("once");
            }
            jit.decommit_unused();
        }
    }
    limit(usize::MAX);
}

/// Asks with the signal as it is for most processes, and ignored.
fn isolated_with(test: &str, disposition: libc::sighandler_t, body: impl FnOnce()) {
    isolated!(test, || {
        signal(disposition);
        body();
    });
}

fn signal(disposition: libc::sighandler_t) {
    // SAFETY: no handler is set.
    let before = unsafe { libc::signal(libc::SIGXFSZ, disposition) };
    assert_ne!(before, libc::SIG_ERR, "it can be set");
}

#[test]
fn memory_files_are_limited_and_nothing_dies() {
    if skip_emulated("writes the map of the process to a file of its own") {
        return;
    }
    let test = "memory_files_are_limited_and_nothing_dies";
    isolated_with(test, libc::SIG_DFL, check);
}

#[test]
fn memory_files_are_limited_with_the_signal_ignored() {
    let test = "memory_files_are_limited_with_the_signal_ignored";
    isolated_with(test, libc::SIG_IGN, check);
}

#[test]
fn files_in_directories_are_limited_and_nothing_dies() {
    if skip_emulated("writes the map of the process to a file of its own") {
        return;
    }
    let test = "files_in_directories_are_limited_and_nothing_dies";
    isolated_with(test, libc::SIG_DFL, || {
        limit(KIB);
        let refused = OS.probe_now();
        let directories = refused.dual().filter(|(s, _)| *s != DualStep::Memfd);
        assert!(directories.count() >= 3, "{refused:?}");
        limit(24 * KIB);
        let calls = [libc::SYS_memfd_create];
        if or_skip(seccomp::refuse(&calls, libc::ENOSYS)).is_none() {
            return;
        }
        let request = DualRequest::bytes(16 * KIB);
        // SAFETY: neither target is a range of ours.
        let mapping = unsafe { OS.map_dual(&request) }.expect("it may be that long");
        assert_ne!(mapping.step(), DualStep::Memfd);
        unmap_dual(&OS, mapping);
        // SAFETY: neither target is a range of ours.
        let long = unsafe { OS.map_dual(&DualRequest::bytes(64 * KIB)) };
        let long = long.expect_err("it may not be longer");
        for (step, error) in long.steps().skip(1) {
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(libc::EFBIG)),
                "{step}"
            );
        }
    });
}

#[test]
fn files_of_large_pages_are_limited_and_nothing_dies() {
    let test = "files_of_large_pages_are_limited_and_nothing_dies";
    // The number is set, and restored, by the process that starts this one.
    let start = |mut command| with_huge_pages(2, |_| run(&mut command));
    isolated_by(&test_path!(test), start, || {
        signal(libc::SIG_DFL);
        for (bytes, kind) in [(KIB, ErrorKind::Denied), (LARGE - 1, ErrorKind::Exhausted)] {
            limit(bytes);
            let pages = PageWish::Large {
                bytes: LARGE,
                or_base: false,
            };
            let request = DualRequest {
                pages,
                ..DualRequest::bytes(LARGE)
            };
            // SAFETY: neither target is a range of ours.
            let error = unsafe { OS.map_dual(&request) }.expect_err("it is too long");
            expect_too_long(&error, kind);
        }
        limit(usize::MAX);
    });
}

#[test]
fn a_question_that_is_refused_is_no_limit() {
    isolated!("a_question_that_is_refused_is_no_limit", || {
        let calls = [libc::SYS_prlimit64];
        if or_skip(seccomp::refuse(&calls, libc::EPERM)).is_none() {
            return;
        }
        let jit = new(Mapping::Dual);
        let span = function(&jit, CODE_LEN).expect("blocks can be mapped");
        jit.release(span).expect("once");
    });
}
