//! What calls of the JIT allocator cost in system calls, and that one which is refused for want of
//! a place makes no file; counted by a tracer. And how memory that is short in one place is used to
//! the last.

mod shortage;

use crate::code::{OS, allocator, allocator_on};
use hostmem::{
    OsProvider,
    jit::{JitConfig, JitError, Mapping, Span},
    page::PageRange,
    provider::{
        DualMapProvider, DualRequest, DualView, ErrorKind, PageProvider, Place, Placement, Request,
        Target, Within,
    },
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::{
    isolate::{check, is_isolated, isolated, isolated_command, or_skip, test_path},
    trace::{Call, Plan, Tracer},
};
use std::collections::BTreeMap;

/// `which` of `getpriority(2)` in a mark: none that there is.
const MARK: u64 = 0x6d61_726b;

/// Leaves a mark in the trace.
fn mark(n: u64) {
    // SAFETY: the call fails, and changes nothing.
    unsafe { libc::syscall(libc::SYS_getpriority, MARK, n) };
}

/// Runs `body` between two marks.
fn marked<T>(n: u64, body: impl FnOnce() -> T) -> T {
    mark(n);
    let result = body();
    mark(n);
    result
}

/// System calls that start or end something, or wait, which are none of the allocator's.
const OTHERS: [libc::c_long; 9] = [
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
];

/// Numbers of system calls: no kernel has more.
const NUMBERS: libc::c_long = 480;

/// Runs `body` in a traced process, which leaves marks, and returns the calls between two marks of
/// one number; `None` in that process, or aloud where tracing is not permitted.
fn traced(test: &str, body: impl FnOnce()) -> Option<BTreeMap<u64, Vec<Call>>> {
    let path = &test_path!(test);
    if is_isolated(path) {
        isolated!(test, body);
        return None;
    }
    let all = (0..NUMBERS).filter(|number| !OTHERS.contains(number));
    let plan = all.fold(Plan::new(), Plan::observe);
    let report = or_skip(Tracer::run(isolated_command(path), plan))?;
    check(path, &report.output);
    let (mut between, mut open) = (BTreeMap::new(), None);
    for call in report.calls() {
        if call.number == libc::SYS_getpriority && call.args[0] == MARK {
            let n = call.args[1];
            open = match open {
                None => {
                    between.insert(n, Vec::new());
                    Some((n, call.tid))
                }
                Some(_) => None,
            };
        } else if let Some((n, tid)) = open
            && call.tid == tid
        {
            between.entry(n).or_insert_with(Vec::new).push(call.clone());
        }
    }
    Some(between)
}

/// Calls that make a file, or its memory.
fn makes_a_file(call: &Call) -> bool {
    let calls = [
        libc::SYS_memfd_create,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_unlinkat,
    ];
    calls.contains(&call.number)
}

/// Reserves a window of `len` bytes, for a test to fill.
fn window(len: usize) -> PageRange {
    let request = Request::bytes(len).align(1 << 20);
    OS.reserve(&request).expect("there are addresses")
}

/// Gives parts of a window of 1 MiB back: each `every`th page.
fn open_pages(window: PageRange, every: usize) {
    let page = OS.page_size();
    for n in (0..window.len_bytes() / page.bytes()).step_by(every) {
        let part = window.part(n * page.bytes(), page.bytes(), page);
        // SAFETY: a part of what the test reserved, and not used.
        unsafe { OS.release(part.expect("a page of it")) }.expect("it is reserved");
    }
}

/// Says whether an allocation was refused because the executable view has no place.
fn unplaced(result: Result<Span, JitError>) -> bool {
    let Err(JitError::Map(error)) = result else {
        return false;
    };
    let text = JitError::Map(error).to_string();
    assert!(text.contains("no place for the executable view"), "{text}");
    assert_eq!(error.steps().count(), 0, "no strategy was tried: {error}");
    error.unplaced() == Some(DualView::Rx) && error.kind() == ErrorKind::Exhausted
}

/// The mark that tells how many reads the map of the process takes is beyond this.
const READS: u64 = 100;

/// Returns how many reads the map of this process takes. Each gives whole lines of a page.
fn reads_of_the_map() -> u64 {
    let map = std::fs::read("/proc/self/maps").expect("/proc is mounted");
    let reads = map.len().div_ceil(OS.page_size().bytes() - 200);
    u64::try_from(reads).expect("few")
}

/// Refuses placed requests of several kinds; each between marks of its own number.
fn refuse_in_windows(live: usize) {
    let page = OS.page_size().bytes();
    let (full, tight) = (window(1 << 20), window(1 << 20));
    open_pages(tight, 2);
    let jit = allocator(JitConfig::new());
    let toggle = allocator(JitConfig::new().mapping(Mapping::Toggle));
    let auto = allocator(JitConfig::new().mapping(Mapping::Auto));
    let spans: Vec<Span> = (0..live)
        .map(|_| jit.alloc(64).expect("there is memory"))
        .collect();
    let inside = |range: PageRange| Placement::within(range.addresses());
    let near = |range: PageRange| Placement {
        place: Place::Near(range.addr() + 1000),
        ..inside(range)
    };
    // What is asked of a host once a process, and metadata that serves again.
    for jit in [&jit, &toggle, &auto] {
        for size in [64, 100_000] {
            assert!(unplaced(jit.alloc_with(size, near(full))));
        }
    }
    let before = jit.statistics();
    let outcomes = [
        marked(1, || jit.alloc_with(64, inside(full))),
        marked(2, || jit.alloc_with(64, near(full))),
        marked(3, || jit.alloc_with(100_000, near(full))),
        // Holes of a page each, and more than that is asked for.
        marked(4, || jit.alloc_with(page, near(tight))),
        marked(5, || jit.alloc_with(60_000, inside(tight))),
        marked(6, || toggle.alloc_with(64, near(full))),
        marked(7, || auto.alloc_with(64, near(full))),
    ];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert!(unplaced(outcome), "request {}", n + 1);
    }
    assert_eq!(jit.statistics().spans, before.spans);
    assert_eq!(jit.statistics().reserved, before.reserved);
    // All that a provider gives lies in the window; and near has nothing in reach.
    let low = Within::new(OS, full.addresses());
    let within = allocator_on(low, JitConfig::new());
    within.alloc(64).expect_err("it is full");
    let refused = marked(8, || within.alloc(64)).expect_err("it is full");
    let JitError::Map(error) = refused else {
        panic!("{refused}")
    };
    assert_eq!(error.unplaced(), Some(DualView::Rw), "{error}");
    let reach = Placement::near(full.addr() + (512 << 10), 256 << 10);
    let configured = allocator(JitConfig::new().rx(reach));
    assert!(unplaced(configured.alloc(64)));
    assert!(unplaced(marked(9, || configured.alloc(64))));
    // A place that is taken, asked of the provider itself.
    let exact = |view: DualView| {
        let taken = Target::Find(Placement {
            place: Place::Exact(full.addr()),
            ..Placement::ANYWHERE
        });
        let request = DualRequest::bytes(page);
        let request = match view {
            DualView::Rw => DualRequest {
                rw: taken,
                ..request
            },
            DualView::Rx => DualRequest {
                rx: taken,
                ..request
            },
        };
        // SAFETY: neither target is a range of anybody's.
        let error = unsafe { OS.map_dual(&request) }.expect_err("it is taken");
        assert_eq!(
            (error.kind(), error.unplaced()),
            (ErrorKind::Taken, Some(view))
        );
    };
    marked(READS + reads_of_the_map(), || ());
    marked(10, || exact(DualView::Rw));
    marked(11, || exact(DualView::Rx));
    spans
        .into_iter()
        .for_each(|span| jit.release(span).expect("once"));
    for range in [full, tight] {
        // SAFETY: reserved by the test, and not used.
        unsafe { OS.release(range) }.expect("holes in it do no harm");
    }
}

#[test]
fn a_refused_place_makes_no_file_and_is_looked_for_once() {
    let test = "a_refused_place_makes_no_file_and_is_looked_for_once";
    let Some(calls) = traced(test, || refuse_in_windows(100_000)) else {
        return;
    };
    let reads = calls.keys().find_map(|n| n.checked_sub(READS));
    let reads = reads.expect("the map was measured");
    assert_eq!(calls.len(), 12, "each request was marked");
    for (n, calls) in calls {
        let names: Vec<_> = calls.iter().map(|call| call.number).collect();
        assert!(!calls.iter().any(makes_a_file), "request {n}: {names:?}");
        // One walk: four calls, and more only where the map is longer than two reads.
        let most = 4 + reads.saturating_sub(2);
        assert!(names.len() as u64 <= most, "request {n}: {names:?}");
    }
}

/// A window with a region in it answers without any system call.
#[test]
fn a_full_region_is_not_asked_of_the_system() {
    let test = "a_full_region_is_not_asked_of_the_system";
    let body = || {
        let region = RegionAllocator::<OsProvider>::on(OS, OS, RegionConfig::new());
        let region = region.expect("there is memory");
        let room = window(1 << 20);
        // SAFETY: reserved just now, and handed over.
        unsafe { region.adopt(room) }.expect("it is reserved");
        let jit = allocator_on(&region, JitConfig::new());
        let mut spans = Vec::new();
        let refused = loop {
            match jit.alloc(4000) {
                Ok(span) => spans.push(span),
                Err(error) => break error,
            }
        };
        let JitError::Map(error) = refused else {
            panic!("{refused}")
        };
        assert!(error.unplaced().is_some(), "{error}");
        // Both views take half of it each, and nearly all of that is used.
        assert!(spans.len() * 4096 >= (512 << 10) * 3 / 4, "{}", spans.len());
        assert!(marked(1, || jit.alloc(4000)).is_err());
        spans
            .into_iter()
            .for_each(|span| jit.release(span).expect("once"));
    };
    let Some(calls) = traced(test, body) else {
        return;
    };
    assert!(calls[&1].is_empty(), "{:?}", calls[&1]);
}

#[test]
fn a_first_allocation_takes_few_system_calls() {
    let test = "a_first_allocation_takes_few_system_calls";
    let body = || {
        for n in [1, 2, 3] {
            let (jit, span) = marked(n, || {
                let jit = allocator(JitConfig::new());
                let span = jit.alloc(64).expect("there is memory");
                (jit, span)
            });
            marked(10 + n, || jit.release(span).expect("once"));
        }
    };
    let Some(calls) = traced(test, body) else {
        return;
    };
    let count = |n: u64| {
        let names: Vec<_> = calls[&n].iter().map(|call| call.number).collect();
        eprintln!("allocation {n}: {names:?}");
        names.len()
    };
    // What a host is asked once a process counts in the first one alone.
    assert!(count(1) <= 12, "{}", count(1));
    assert!(count(2) <= 9 && count(3) <= 9, "{}, {}", count(2), count(3));
    for n in [11, 12, 13] {
        assert_eq!(count(n), 0, "the empty block is kept");
    }
}
