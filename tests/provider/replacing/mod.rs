//! Replacing calls that fail: what was unmapped before, and is somebody else's now, is not taken
//! for the caller's.
//!
//! Kernels before 6.12 unmap what a map replaces, and may then fail; another thread can map into
//! the hole before anybody looks. A handler stands for such a kernel and such a thread: it answers
//! the replacing call of one range.

mod moves;

use crate::common::{skip_emulated, undoes_maps};
use core::{
    ffi::c_void,
    ptr::without_provenance_mut,
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsProvider,
    page::{Access, Ceiling, PageRange},
    provider::{
        Commit, DualMapProvider, DualRequest, Error, ErrorKind, PageProvider, Request, Target,
    },
};
use hostmem_test_support::{
    isolate::{isolated, or_skip, skip},
    maps,
    seccomp::answer_when,
};

const OS: OsProvider = OsProvider::new();

/// `MREMAP_FIXED` and `MAP_FIXED`: flags of calls that replace.
const MREMAP_FIXED: u64 = 2;
const MAP_FIXED: u64 = 0x10;

/// The argument that has the flags, of `mmap` and `mremap` alike.
const FLAGS: u8 = 3;

/// The range whose replacement fails, and how.
static START: AtomicUsize = AtomicUsize::new(0);
static LEN: AtomicUsize = AtomicUsize::new(0);
static ERRNO: AtomicI32 = AtomicI32::new(0);
static UNMAPS: AtomicBool = AtomicBool::new(false);
static STRANGER: AtomicBool = AtomicBool::new(false);

/// What another thread writes into its mapping.
const PATTERN: u8 = 0x5a;

fn map(at: usize, len: usize, protection: i32, flags: i32) -> *mut c_void {
    let at = without_provenance_mut(at);
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the flags of all callers replace nothing.
    unsafe { libc::mmap(at, len, protection, flags, -1, 0) }
}

/// Fails as a kernel does that unmaps first, if `UNMAPS`; if `STRANGER`, another thread is quicker.
fn answer(arguments: &[usize; 6]) -> isize {
    let (start, len) = (START.load(Relaxed), LEN.load(Relaxed));
    let mut targets = arguments.iter().filter(|&&argument| argument == start);
    assert!(targets.next().is_some(), "only one range is replaced here");
    if UNMAPS.load(Relaxed) {
        // SAFETY: the range is the test's, and not used while it is replaced.
        let unmapped = unsafe { libc::munmap(without_provenance_mut(start), len) };
        assert_eq!(unmapped, 0);
    }
    if STRANGER.load(Relaxed) {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let got = map(start, len, access, libc::MAP_FIXED_NOREPLACE);
        assert_eq!(got.addr(), start);
        // SAFETY: mapped just now, writable.
        unsafe { got.cast::<u8>().write_bytes(PATTERN, len) };
    }
    -isize::try_from(ERRNO.load(Relaxed)).expect("a small number")
}

/// What happens in place of a replacing call.
#[derive(Clone, Copy)]
struct Failure {
    errno: i32,
    unmaps: bool,
    stranger: bool,
}

impl Failure {
    fn of(errno: i32) -> Self {
        Self {
            errno,
            unmaps: false,
            stranger: false,
        }
    }

    fn that_unmaps(self) -> Self {
        Self {
            unmaps: true,
            ..self
        }
    }

    fn with_stranger(self) -> Self {
        Self {
            stranger: true,
            ..self.that_unmaps()
        }
    }

    /// Answers calls that replace `range` from now on.
    fn install(self, call: libc::c_long, fixed: u64, range: PageRange) -> bool {
        START.store(range.addr(), Relaxed);
        LEN.store(range.len_bytes(), Relaxed);
        ERRNO.store(self.errno, Relaxed);
        UNMAPS.store(self.unmaps, Relaxed);
        STRANGER.store(self.stranger, Relaxed);
        or_skip(answer_when(call, FLAGS, fixed, fixed, answer)).is_some()
    }
}

/// Has the kernel say that it is 2.6, which unmaps first.
fn pretend_an_old_kernel() {
    const UNAME26: libc::c_ulong = 0x0002_0000;
    // SAFETY: changes what uname says, and nothing else.
    assert_ne!(unsafe { libc::personality(UNAME26) }, -1);
}

/// Returns the middle of a reservation, committed and written to.
fn written_middle() -> PageRange {
    let page = OS.page_size().bytes();
    let whole = OS.reserve(&Request::bytes(48 * page)).expect("room");
    let middle = whole.part(16 * page, 16 * page, OS.page_size());
    let middle = middle.expect("inside");
    // SAFETY: reserved above.
    unsafe { OS.commit(middle, Commit::READ_WRITE) }.expect("memory");
    // SAFETY: committed just now.
    unsafe { middle.start().write_bytes(1, middle.len_bytes()) };
    middle
}

fn holds(range: PageRange, value: u8) -> bool {
    let bytes = core::ptr::NonNull::slice_from_raw_parts(range.start(), range.len_bytes());
    // SAFETY: mapped and readable where the tests ask, and no other code writes.
    unsafe { bytes.as_ref() }.iter().all(|&byte| byte == value)
}

/// Says whether all of the range is inaccessible and private.
fn is_reserved(range: PageRange) -> bool {
    let mappings = maps::of_self().expect("/proc is mounted");
    let ours = |m: &&maps::Mapping| m.overlaps(range.addr(), range.end());
    let mut next = range.addr();
    for mapping in mappings.iter().filter(ours) {
        if mapping.start > next || mapping.perms.read || mapping.perms.write {
            return false;
        }
        next = mapping.end;
    }
    next >= range.end()
}

fn kind<T>(result: Result<T, Error>) -> Result<T, ErrorKind> {
    result.map_err(Error::kind)
}

fn decommit(range: PageRange) -> Result<(), ErrorKind> {
    // SAFETY: the range is the test's, and not used meanwhile.
    kind(unsafe { OS.decommit(range) })
}

#[test]
fn another_threads_mapping_in_the_hole_is_not_ours() {
    isolated!("another_threads_mapping_in_the_hole_is_not_ours", || {
        pretend_an_old_kernel();
        let range = written_middle();
        let failure = Failure::of(libc::ENOMEM).with_stranger();
        if failure.install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(decommit(range), Err(ErrorKind::RangeLost));
            assert!(holds(range, PATTERN), "it is left alone");
        }
    });
}

#[test]
fn a_decommit_that_leaves_a_hole_reserves_it() {
    isolated!("a_decommit_that_leaves_a_hole_reserves_it", || {
        pretend_an_old_kernel();
        let range = written_middle();
        let failure = Failure::of(libc::ENOMEM).that_unmaps();
        if failure.install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(decommit(range), Ok(()), "that is what was wanted");
            assert!(is_reserved(range));
        }
    });
}

fn commit_code(range: PageRange) -> Result<(), ErrorKind> {
    let how = Commit {
        access: Access::ReadExec,
        ceiling: Ceiling::ReadExec,
        ..Commit::READ_WRITE
    };
    // SAFETY: the range is reserved, and the test's.
    kind(unsafe { OS.commit(range, how) }).map(drop)
}

#[test]
fn a_commit_that_leaves_a_hole_keeps_the_reservation() {
    isolated!("a_commit_that_leaves_a_hole_keeps_the_reservation", || {
        pretend_an_old_kernel();
        let range = written_middle();
        decommit(range).expect("nothing fails yet");
        let failure = Failure::of(libc::ENOMEM).that_unmaps();
        if failure.install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(commit_code(range), Err(ErrorKind::Exhausted));
            assert!(is_reserved(range));
        }
    });
}

#[test]
fn in_doubt_a_range_is_lost() {
    isolated!("in_doubt_a_range_is_lost", || {
        pretend_an_old_kernel();
        let range = written_middle();
        if Failure::of(libc::ENOMEM).install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(decommit(range), Err(ErrorKind::RangeLost));
            assert!(holds(range, 1), "whosever it is, it is left alone");
        }
    });
}

#[test]
fn what_policy_refuses_was_not_unmapped() {
    isolated!("what_policy_refuses_was_not_unmapped", || {
        pretend_an_old_kernel();
        let range = written_middle();
        if Failure::of(libc::EACCES).install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(decommit(range), Err(ErrorKind::Denied));
            assert!(holds(range, 1));
        }
    });
}

#[test]
fn newer_kernels_unmap_nothing_before_a_map_can_succeed() {
    let test = "newer_kernels_unmap_nothing_before_a_map_can_succeed";
    isolated!(test, || {
        if !undoes_maps() {
            return skip("this kernel is older");
        }
        let range = written_middle();
        if Failure::of(libc::ENOMEM).install(libc::SYS_mmap, MAP_FIXED, range) {
            assert_eq!(decommit(range), Err(ErrorKind::Exhausted));
            assert!(holds(range, 1));
        }
    });
}

/// Maps pages of alternating access, which do not join, until the process may have no more.
fn use_up_mappings() {
    let page = OS.page_size().bytes();
    for n in 0.. {
        let access = if n % 2 == 0 {
            libc::PROT_READ
        } else {
            libc::PROT_NONE
        };
        if map(0, page, access, 0) == libc::MAP_FAILED {
            return;
        }
    }
}

/// The real limit, by kernels of either kind.
fn a_decommit_at_the_limit_of_mappings_changes_nothing() {
    let range = written_middle();
    let page = OS.page_size();
    let middle = range.part(4 * page.bytes(), 4 * page.bytes(), page);
    let middle = middle.expect("inside");
    use_up_mappings();
    // SAFETY: the range is the test's. Splitting it takes two mappings more.
    let result = unsafe { OS.decommit(middle) };
    // Asserting allocates, for which there is room in what the heap has.
    assert_eq!(kind(result), Err(ErrorKind::Exhausted));
    assert!(holds(range, 1));
}

#[test]
fn the_limit_of_mappings_tells_that_nothing_was_unmapped() {
    let test = "the_limit_of_mappings_tells_that_nothing_was_unmapped";
    if skip_emulated("has a limit of its own") {
        return;
    }
    isolated!(test, || {
        pretend_an_old_kernel();
        a_decommit_at_the_limit_of_mappings_changes_nothing();
    });
}

#[test]
fn at_the_limit_of_mappings_a_decommit_changes_nothing() {
    let test = "at_the_limit_of_mappings_a_decommit_changes_nothing";
    if skip_emulated("has a limit of its own") {
        return;
    }
    isolated!(test, a_decommit_at_the_limit_of_mappings_changes_nothing);
}

#[test]
fn a_view_that_could_not_be_mapped_leaves_anothers_mapping_alone() {
    let test = "a_view_that_could_not_be_mapped_leaves_anothers_mapping_alone";
    isolated!(test, || {
        pretend_an_old_kernel();
        let range = written_middle();
        decommit(range).expect("nothing fails yet");
        let failure = Failure::of(libc::ENOMEM).with_stranger();
        if failure.install(libc::SYS_mmap, MAP_FIXED, range) {
            let request = DualRequest {
                rw: Target::Into(range),
                ..DualRequest::bytes(range.len_bytes())
            };
            // SAFETY: the range is reserved, and the test's.
            let error = unsafe { OS.map_dual(&request) }.expect_err("a view fails");
            assert_eq!(error.kind(), ErrorKind::RangeLost);
            assert!(holds(range, PATTERN), "it is left alone");
        }
    });
}

#[test]
fn names_that_the_kernel_does_not_keep_are_asked_for_once() {
    /// Calls that were to name something.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    const PR_SET_VMA: u64 = 0x5356_4d41;
    fn refuse(_: &[usize; 6]) -> isize {
        ASKED.fetch_add(1, Relaxed);
        -isize::try_from(libc::EINVAL).expect("a small number")
    }
    isolated!(
        "names_that_the_kernel_does_not_keep_are_asked_for_once",
        || {
            let named = |name| {
                OS.reserve(&Request::bytes(1).name(name)).expect("room");
            };
            let filter = answer_when(libc::SYS_prctl, 0, u64::MAX, PR_SET_VMA, refuse);
            if or_skip(filter).is_none() {
                return;
            }
            named(c"no [brackets] in names");
            assert_eq!(ASKED.load(Relaxed), 0, "no kernel takes such a name");
            (0..3).for_each(|_| named(c"hostmem-test"));
            // None where the kernel refused names before there was a filter.
            assert!(ASKED.load(Relaxed) <= 1, "the first tells");
        },
    );
}
