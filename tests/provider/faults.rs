//! P3 on the real system: every mapping call of a scripted run fails once, in the kernel's name.
//!
//! A tracer stands between a process of its own and the kernel, and answers the nth call with
//! `ENOMEM` instead of making it. (Calls of the *provider* that fail are the conformance suite's.)

use crate::common::{call, undoes_maps, write_code};
use hostmem::{
    OsProvider,
    page::{Access, PageRange},
    provider::{
        Commit, DualMapProvider, DualRequest, Error, ErrorKind, Leave, PageProvider, PageWish,
        Request, Target,
    },
};
use hostmem_test_support::{
    isolate, maps,
    trace::{Injection, Plan, TraceReport, Tracer},
};

const OS: OsProvider = OsProvider::new();
/// A length that nothing else maps, so that only the script's calls are failed.
const LEN: usize = 37 * 4096 * 16;
const HALF: usize = LEN / 37 * 18;

/// Makes a call until it succeeds: once more, if the tracer failed it.
fn persist<T>(mut call: impl FnMut() -> Result<T, Error>, unchanged: impl Fn()) -> T {
    match call() {
        Ok(value) => value,
        Err(error) => {
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(libc::ENOMEM))
            );
            unchanged();
            call().expect("only one call is failed")
        }
    }
}

/// Asserts that a range is mapped with an access, and by nothing else.
fn assert_access(range: PageRange, read: bool, write: bool) {
    let mappings = maps::of_self().expect("/proc is mounted");
    let mut next = range.addr();
    for mapping in mappings
        .iter()
        .filter(|m| m.overlaps(range.addr(), range.end()))
    {
        assert!(mapping.start <= next, "a hole at {next:#x}");
        assert_eq!(
            (mapping.perms.read, mapping.perms.write),
            (read, write),
            "{mapping:?}"
        );
        next = mapping.end;
    }
    assert!(next >= range.end(), "a hole at {next:#x}");
}

fn page_script(request: &Request<'_>) {
    let range = persist(|| OS.reserve(request), || ());
    let reserved = || assert_access(range, false, false);
    let how = Commit {
        pages: PageWish::Transparent,
        ..Commit::READ_WRITE
    };
    reserved();
    // SAFETY: reserved, and after a failure still so.
    persist(|| unsafe { OS.commit(range, how) }, reserved);
    // SAFETY: committed, and ours.
    unsafe { range.start().write_bytes(7, LEN) };
    let readable = || assert_access(range, true, true);
    // SAFETY: committed, and after a failure still so.
    persist(|| unsafe { OS.protect(range, Access::Read) }, readable);
    assert_access(range, true, false);
    let part = range.part(0, HALF, OS.page_size()).expect("whole pages");
    let contents = || {
        // SAFETY: committed and readable.
        let byte = unsafe { range.start().read() };
        assert_eq!(byte, 7, "a failed decommit keeps the contents");
    };
    // SAFETY: ours, and not used meanwhile.
    persist(|| unsafe { OS.decommit(part) }, contents);
    // SAFETY: reserved, and after a failure still so.
    persist(|| unsafe { OS.commit(part, Commit::READ_WRITE) }, || ());
    // SAFETY: committed just now.
    assert_eq!(unsafe { range.start().read() }, 0);
    // SAFETY: ours, and not used any more.
    persist(|| unsafe { OS.release(range) }, || ());
}

fn dual_script(rw: Target, rx: Target, leave: Leave) {
    let request = DualRequest {
        rw,
        rx,
        ..DualRequest::bytes(LEN)
    };
    // A failed strategy is not the end: the next one serves.
    // SAFETY: Into targets are reserved by the caller of this script.
    let mapping = unsafe { OS.map_dual(&request) }.expect("one call fails, not all strategies");
    // SAFETY: ours alone.
    unsafe { write_code(&mapping, HALF, 77) };
    let rx = mapping.rx().start().as_ptr().wrapping_add(HALF);
    // SAFETY: published just now.
    assert_eq!(unsafe { call(rx) }, 77);
    // SAFETY: no other code uses those pages.
    persist(|| unsafe { OS.purge_dual(&mapping, 0, HALF) }, || ());
    // SAFETY: ours.
    persist(|| unsafe { OS.refill_dual(&mapping, 0, HALF) }, || ());
    // SAFETY: published, and not purged.
    assert_eq!(unsafe { call(rx) }, 77);
    let mut mapping = Some(mapping);
    let unmap = || {
        let taken = mapping.take().expect("given back by a failure");
        // SAFETY: not used any more.
        unsafe { OS.unmap_dual(taken, leave) }.map_err(|(back, error)| {
            mapping = Some(back);
            error
        })
    };
    persist(unmap, || ());
}

fn script() {
    let fds = maps::count_fds().expect("/proc is mounted");
    page_script(&Request::bytes(LEN));
    page_script(&Request::bytes(LEN).within(hostmem::page::AddressRange::LOW_4G));
    dual_script(Target::ANYWHERE, Target::ANYWHERE, Leave::Hole);
    let reserve = || persist(|| OS.reserve(&Request::bytes(LEN)), || ());
    let (a, b) = (reserve(), reserve());
    dual_script(Target::Into(a), Target::Into(b), Leave::Reserved);
    for range in [a, b] {
        assert_access(range, false, false);
        // SAFETY: left reserved, and ours.
        persist(|| unsafe { OS.release(range) }, || ());
    }
    assert_eq!(maps::count_fds().expect("/proc is mounted"), fds);
    let left = maps::of_self().expect("/proc is mounted");
    let ours = |m: &&maps::Mapping| m.end - m.start == LEN || m.path.contains("memfd:");
    assert_eq!(
        left.iter().find(ours),
        None,
        "nothing of the script stays mapped"
    );
}

/// Runs the script with the `nth` call of `number` failed; says whether there was one.
fn with_failure(number: libc::c_long, nth: u64) -> Option<bool> {
    let mut report: Option<TraceReport> = None;
    // Of an older kernel a replacing map that fails leaves nothing that could be told from a hole
    // which somebody else has filled.
    let replaces = u64::from(libc::MAP_FIXED.cast_unsigned());
    let kept = number != libc::SYS_mmap || undoes_maps();
    let ours = move |args: &[u64; 6]| {
        // The length is the second argument of them all, the flags of a map are the fourth.
        let long = args[1] == LEN as u64 || args[1] == HALF as u64;
        long && (kept || args[3] & replaces == 0)
    };
    isolate::isolated_by(
        &isolate::test_path!("p3_every_system_call_fails_once"),
        |command| {
            let injection = Injection::at(nth, number, libc::ENOMEM).when(ours);
            let traced = Tracer::run(command, Plan::new().inject(injection))?;
            let output = traced.output.clone();
            report = Some(traced);
            Ok(output)
        },
        script,
    );
    report.map(|report| report.calls().any(|call| call.injected))
}

#[test]
fn p3_every_system_call_fails_once() {
    if isolate::is_isolated(&isolate::test_path!("p3_every_system_call_fails_once")) {
        isolate::isolated!("p3_every_system_call_fails_once", script);
        return;
    }
    let calls = [
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_ftruncate,
    ];
    for number in calls {
        let mut failed = 0;
        for nth in 1.. {
            match with_failure(number, nth) {
                Some(true) => failed += 1,
                Some(false) => break,
                None => return,
            }
        }
        println!("call {number} failed at {failed} places");
        assert!(failed > 0, "the script makes call {number}");
    }
}
