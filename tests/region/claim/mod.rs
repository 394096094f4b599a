//! R12 and R13, the claiming half: what an emulator of 32-bit guests asks of a real process, each
//! case in a process of its own; and the same policy on simulated hosts.

mod limits;
mod others;
#[cfg(feature = "sim")]
mod sim;
mod stacks;

use crate::common::{CoreFile, emulated, skip_emulated};
use core::{ffi::c_void, ptr::null_mut};
use hostmem::{
    OsProvider,
    page::AddressRange,
    provider::{MapFlags, PageProvider, ProcessMap},
    region::{BreakBlock, Claim, ClaimRequest, Claimed, Purpose, claim, survey},
};
use hostmem_test_support::isolate;
use std::{fs::File, io::Read};

const OS: OsProvider = OsProvider::new();
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
type Slots = [Option<Claimed>; 1024];

fn hole() -> AddressRange {
    AddressRange::from_len(4 * GIB, 4 * GIB).expect("not empty")
}

fn above() -> ClaimRequest {
    ClaimRequest::above(4 * GIB).hole(hole())
}

/// Claims what an emulator of 32-bit guests does.
fn claim_above(slots: &mut Slots) -> Claim<'_, OsProvider> {
    let claim = claim(OS, &above(), slots).expect("a valid request");
    let report = claim.report();
    assert_eq!(report.map, Ok(()));
    assert!(report.settled && !report.full, "{report:?}");
    // An emulator has mappings of its own that no guest sees.
    assert!(report.missed.bytes == 0 || emulated(), "{report:?}");
    claim
}

/// Maps as somebody does who knows of no claim; the address, or the errno.
fn map_anywhere(len: usize) -> Result<usize, i32> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let at = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()
            .raw_os_error()
            .expect("from the system"));
    }
    Ok(at.addr())
}

/// The process map as text, read without mapping anything.
struct Snapshot {
    text: Vec<u8>,
    len: usize,
}

impl Snapshot {
    fn new() -> Self {
        let text = vec![1; MIB];
        Self { text, len: 0 }
    }

    fn take(&mut self) {
        let mut file = File::open("/proc/self/maps").expect("/proc is mounted");
        self.len = 0;
        loop {
            let read = file.read(&mut self.text[self.len..]).expect("readable");
            if read == 0 {
                break;
            }
            self.len += read;
        }
        assert!(self.len < self.text.len(), "all of it fits");
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).expect("paths here are text")
    }

    fn lines(&self) -> usize {
        self.text().lines().count()
    }
}

/// The main thread's stack now: its first address and the one behind it.
fn stack() -> (usize, usize) {
    let mut found = None;
    OS.walk(&mut |entry| {
        if entry.flags.contains(MapFlags::GROWS) {
            found = Some((entry.range.start(), entry.range.last() + 1));
        }
        true
    })
    .expect("/proc is mounted");
    found.expect("the main thread has a stack")
}

/// How many bytes of a range are not mapped.
fn free_bytes(range: AddressRange) -> usize {
    let mut free = 0;
    hostmem::provider::walk_gaps(&OS, range, &mut |gap| {
        free += gap.last() - gap.start() + 1;
        true
    })
    .expect("/proc is mounted");
    free
}

#[test]
fn r12_a_claim_costs_a_mapping_for_each_gap_and_goes_without_a_trace() {
    let test = "r12_a_claim_costs_a_mapping_for_each_gap_and_goes_without_a_trace";
    isolate::isolated!(test, || {
        let (mut before, mut during, mut after) =
            (Snapshot::new(), Snapshot::new(), Snapshot::new());
        let mut slots: Slots = [None; 1024];
        let gaps = survey(OS, &above()).expect("/proc is mounted");
        for snapshot in [&mut before, &mut during, &mut after] {
            snapshot.take();
        }
        before.take();
        let mut claim = claim_above(&mut slots);
        during.take();
        let got = [Purpose::Usable, Purpose::Hole].map(|purpose| claim.tally(purpose));
        // SAFETY: no other code uses the claim.
        let given_back = unsafe { claim.give_back() };
        after.take();
        given_back.expect("all can go");
        // Under the emulator lines of the test's own heap differ afterwards; why is open.
        assert!(
            emulated() || after.text() == before.text(),
            "{}\n{}",
            after.text(),
            before.text()
        );
        let all = got[0].bytes + got[1].bytes == gaps.bytes;
        assert!(all || emulated(), "{got:?}");
        let added = during.lines() - before.lines();
        assert!(
            added <= gaps.ranges || emulated(),
            "{added} mappings for {} gaps",
            gaps.ranges
        );
        eprintln!(
            "{} gaps, {added} mappings, {} scans",
            gaps.ranges,
            claim.report().scans
        );
    });
}

#[test]
fn a_claim_may_be_made_and_given_back_many_times() {
    isolate::isolated!("a_claim_may_be_made_and_given_back_many_times", || {
        let (mut before, mut after) = (Snapshot::new(), Snapshot::new());
        let mut slots: Slots = [None; 1024];
        before.take();
        after.take();
        before.take();
        for _ in 0..if emulated() { 2 } else { 50 } {
            let mut claim = claim_above(&mut slots);
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
        }
        after.take();
        // As above.
        assert!(
            emulated() || after.text() == before.text(),
            "{}\n{}",
            after.text(),
            before.text()
        );
    });
}

#[test]
fn the_break_is_blocked_and_freed_again() {
    isolate::isolated!("the_break_is_blocked_and_freed_again", || {
        // SAFETY: asks for the break.
        let now = || unsafe { libc::sbrk(0) };
        let grow = || {
            // SAFETY: nothing is taken away.
            let got = unsafe { libc::sbrk(3 * 4096) };
            got.addr() != usize::MAX
        };
        assert!(grow(), "it can grow before");
        let before = now();
        // A range without the break, wherever that lies here.
        let nowhere = AddressRange::from_len(5 * GIB, 1 << 16).expect("not empty");
        let request = ClaimRequest::range(nowhere).block_break();
        let mut slots = [None; 4];
        let mut claim = claim(OS, &request, &mut slots).expect("a valid request");
        assert_eq!(claim.report().block_break, BreakBlock::Blocked);
        let page = OS.page_size().bytes();
        let block = claim.ranges().find(|c| c.purpose == Purpose::Break);
        let block = block.expect("it is in the list").range;
        assert_eq!(block.addr(), before.addr().next_multiple_of(page));
        assert_eq!(block.len_bytes(), page);
        assert!(!grow(), "nor now");
        assert_eq!(now(), before);
        let mut others = [None; 4];
        let second = hostmem::region::claim(OS, &request, &mut others).expect("valid");
        assert_eq!(second.report().block_break, BreakBlock::Already);
        // SAFETY: no other code uses the claim; the second one's range was the first one's.
        unsafe { claim.give_back() }.expect("all can go");
        assert!(grow(), "it can grow after");
    });
}

#[test]
fn what_a_64_bit_guest_wants_is_passed_through_where_there_is_none() {
    let test = "what_a_64_bit_guest_wants_is_passed_through_where_there_is_none";
    isolate::isolated!(test, || {
        let range = AddressRange::new(1 << 47, (1 << 48) - 1).expect("not empty");
        let mut slots = [None; 64];
        let mut claim = claim(OS, &ClaimRequest::range(range), &mut slots).expect("valid");
        let bits = OsProvider::probe().address_bits.expect("Linux tells");
        let report = *claim.report();
        assert_eq!(report.address_bits, Some(bits));
        if bits <= 47 {
            assert_eq!((report.range, claim.ranges().count()), (None, 0));
        } else {
            assert_eq!(free_bytes(report.range.expect("it has some")), 0);
        }
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
    });
}

#[test]
fn r12_an_untouched_claim_is_not_in_a_core_file() {
    let test = "r12_an_untouched_claim_is_not_in_a_core_file";
    isolate::isolated!(test, || {
        if skip_emulated("writes core files by itself") {
            return;
        }
        let core = CoreFile::prepare();
        let mut slots = [None; 1024];
        let _claim = claim_above(&mut slots);
        let Some(len) = core.and_then(CoreFile::len_bytes) else {
            return;
        };
        assert!(len < 64 << 20, "{len} bytes of core file");
    });
}

#[test]
fn the_c_library_agrees_where_the_break_is() {
    // SAFETY: asks for the break.
    let expected: *mut c_void = unsafe { libc::sbrk(0) };
    let told = OS.address_space().program_break.expect("Linux tells");
    // Another test's thread may have moved it meanwhile.
    assert!(
        told.abs_diff(expected.addr()) < 256 * MIB,
        "{told:#x}, {expected:?}"
    );
    assert!(OS.address_space().stack_limit.is_some());
    let (start, end) = stack();
    let stack = OS.address_space().stack;
    assert!(
        stack.is_none_or(|at| (start..end).contains(&at)),
        "{stack:x?}"
    );
    let user = OS.address_space().user.expect("Linux tells");
    assert!(user.last() >= (1 << 36) - 1 && user.contains(told));
}
