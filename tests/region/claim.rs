//! R12 and R13, the claiming half: what an emulator of 32-bit guests asks of a real process, each
//! case in a process of its own; and the same policy on simulated hosts.

use crate::common::{CoreFile, emulated, run_on_stack, skip_emulated};
use core::{ffi::c_void, ptr::null_mut};
use hostmem::{
    OsProvider,
    page::{AddressRange, PageRange},
    provider::{ErrorKind, MapFlags, PageProvider, ProcessMap, Within},
    region::{BreakBlock, Claim, ClaimRequest, Claimed, GuardedStack, Purpose, claim, survey},
};
use hostmem_test_support::{
    fault::{Signal, faults},
    isolate, seccomp,
};
use std::{
    fs::File,
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
};

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

/// Sets a limit of this process, for good.
fn set_limit(resource: libc::__rlimit_resource_t, bytes: usize) {
    let limit = libc::rlimit {
        rlim_cur: bytes as u64,
        rlim_max: bytes as u64,
    };
    // SAFETY: the structure outlives the call.
    let done = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
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

/// How many bytes of a range are mapped by nobody.
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
fn r12_what_others_map_lands_below_4_gib() {
    isolate::isolated!("r12_what_others_map_lands_below_4_gib", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let mut slots = [None; 1024];
        let claim = claim_above(&mut slots);
        let report = *claim.report();
        let (stack_start, stack_end) = stack();
        let room = stack_end - report.stack_room..stack_start;
        let top = report.range.expect("there are such addresses").last();
        let whole = AddressRange::new(4 * GIB, top).expect("not empty");
        assert_eq!(free_bytes(whole), room.len(), "all but the stack's room");
        assert_eq!(free_bytes(hole()), 0);

        for len in [1, 4096, 1 << 16, MIB, 64 * MIB, 512 * MIB] {
            for _ in 0..2 {
                let at = map_anywhere(len).expect("there is room below");
                assert!(at + len <= 4 * GIB, "{len} bytes at {at:#x}");
            }
        }
        // Until nothing is left below: what is larger than the room has nowhere to go.
        let mut len = 512 * MIB;
        while len >= report.stack_room {
            match map_anywhere(len) {
                Ok(at) => assert!(at + len <= 4 * GIB, "{len} bytes at {at:#x}"),
                Err(errno) => {
                    assert_eq!(errno, libc::ENOMEM);
                    len /= 2;
                }
            }
        }
        // What is smaller fills up the low addresses before it gets there, if it does.
        while let Ok(at) = map_anywhere(MIB) {
            let high = room.contains(&at) && room.contains(&(at + MIB - 1));
            assert!(at + MIB <= 4 * GIB || high, "{at:#x}");
            let low = AddressRange::new(1 << 20, 4 * GIB - 1).expect("not empty");
            if high {
                let mut longest = 0;
                hostmem::provider::walk_gaps(&OS, low, &mut |gap| {
                    longest = longest.max(gap.last() - gap.start() + 1);
                    true
                })
                .expect("/proc is mounted");
                assert!(longest <= 2 * MIB, "{longest:#x} were free below");
                break;
            }
        }
        assert_eq!(free_bytes(hole()), 0);
    });
}

#[test]
fn the_stack_still_grows() {
    isolate::isolated!("the_stack_still_grows", || {
        if skip_emulated("maps its guest's stack at its full length") {
            return;
        }
        set_limit(libc::RLIMIT_STACK, 16 * MIB);
        let mut slots = [None; 1024];
        let claim = claim_above(&mut slots);
        assert!(claim.report().stack_room >= 128 * MIB);
        let (start, end) = stack();
        let lowest = end - 9 * MIB;
        assert!(lowest < start, "it has not grown so far yet");
        // Page by page, as calls would; whichever thread this is.
        let mut at = start;
        while at > lowest {
            at -= 4096;
            let byte: *mut u8 = core::ptr::with_exposed_provenance_mut(at);
            // SAFETY: below the stack, where nothing is mapped: the kernel makes it grow, or this
            // process ends.
            unsafe { byte.write_volatile(0x5a) };
            // SAFETY: written just now.
            assert_eq!(unsafe { byte.read_volatile() }, 0x5a);
        }
        assert!(stack().0 <= lowest);
    });
}

#[test]
fn what_others_unmap_is_claimed_by_renewing() {
    isolate::isolated!("what_others_unmap_is_claimed_by_renewing", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let len = 3 * MIB;
        let library = map_anywhere(len).expect("there is room");
        assert!(library > 8 * GIB, "{library:#x}");
        let mut slots = [None; 1024];
        let mut claim = claim_above(&mut slots);
        let unmap = |at: usize| {
            // SAFETY: mapped by this test, and not used.
            let done = unsafe { libc::munmap(core::ptr::without_provenance_mut(at), len) };
            assert_eq!(done, 0);
        };
        unmap(library);
        let again = map_anywhere(len).expect("there is room");
        assert_eq!(again, library, "the kernel prefers high addresses");
        unmap(again);
        assert!(claim.renew().settled);
        let low = map_anywhere(len).expect("there is room");
        assert!(low + len <= 4 * GIB, "{low:#x}");
    });
}

/// What a thread on a guarded stack finds out: where it is, and whether it can use it.
extern "C" fn on_guarded_stack(_: *mut c_void) -> *mut c_void {
    let page = core::hint::black_box([7u8; 1 << 18]);
    let sum: usize = page
        .iter()
        .step_by(4096)
        .map(|&byte| usize::from(byte))
        .sum();
    assert_eq!(sum, 7 * 64);
    core::ptr::without_provenance_mut((&raw const page).addr())
}

#[test]
fn r12_threads_run_on_guarded_stacks_above() {
    isolate::isolated!("r12_threads_run_on_guarded_stacks_above", || {
        let mut slots = [None; 1024];
        let high = AddressRange::new(8 * GIB, usize::MAX).expect("not empty");
        let len = 2 * MIB;
        let stack = GuardedStack::new(Within::new(OS, high), len, 1).expect("there is room");
        let _claim = claim_above(&mut slots);
        let (base, page) = (stack.base(), OS.page_size().bytes());
        assert_eq!((stack.len_bytes(), base.addr().get() % page), (len, 0));
        let whole = stack.range_with_guards();
        assert_eq!(whole.len_bytes(), len + 2 * page);

        // SAFETY: the stack is mapped, writable, and no other code's; the function takes nothing.
        let at = unsafe { run_on_stack(base.as_ptr(), len, on_guarded_stack) };
        assert!(
            at.addr() > 8 * GIB && stack.range().contains(at.addr()),
            "{at:?}"
        );

        for guard in [
            base.as_ptr().wrapping_sub(1),
            base.as_ptr().wrapping_add(len),
        ] {
            // SAFETY: the guard faults, which is what is tested; that process ends with it.
            let fault = faults(|| unsafe { guard.write_volatile(1) }).expect("a guard");
            assert_eq!((fault.signal, fault.address), (Signal::Segv, guard.addr()));
        }
        // SAFETY: the thread has ended.
        unsafe { stack.release() }.expect("it can go");
        assert_eq!(free_bytes(whole.addresses()), whole.len_bytes());
    });
}

#[test]
fn malloc_still_works_and_lands_low() {
    isolate::isolated!("malloc_still_works_and_lands_low", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let mut slots = [None; 1024];
        let _claim = claim_above(&mut slots);
        // More than the heap has left, and large ones, which are mapped.
        let mut kept = Vec::new();
        for n in 0..4096usize {
            // SAFETY: not zero.
            let memory = unsafe { libc::malloc(16 << (n % 8)) };
            assert!(!memory.is_null());
            kept.push(memory);
        }
        let large = 64 * MIB;
        // SAFETY: not zero.
        let memory = unsafe { libc::malloc(large) };
        assert!(!memory.is_null());
        assert!(memory.addr() + large <= 4 * GIB, "{memory:?}");
        // SAFETY: allocated above, that many bytes.
        unsafe { memory.cast::<u8>().write_bytes(0x5a, large) };
        kept.push(memory);
        for memory in kept {
            // SAFETY: allocated above, freed once.
            unsafe { libc::free(memory) };
        }
        // More than there is: cleanly.
        // SAFETY: not zero.
        assert!(unsafe { libc::malloc(8 * GIB) }.is_null());
        let thread = std::thread::spawn(|| (&raw const *Box::new(1)).addr());
        assert!(thread.join().expect("a thread starts and ends") != 0);
    });
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
fn r13_under_a_limit_the_claim_shrinks_and_leaves_something() {
    isolate::isolated!(
        "r13_under_a_limit_the_claim_shrinks_and_leaves_something",
        || {
            if skip_emulated("does not limit addresses") {
                return;
            }
            let mut slots = [None; 1024];
            let used = {
                let status =
                    std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
                let line = status.lines().find(|line| line.starts_with("VmSize:"));
                let number = line.and_then(|line| line.split_whitespace().nth(1));
                number
                    .and_then(|n| n.parse::<usize>().ok())
                    .expect("a number")
                    << 10
            };
            set_limit(libc::RLIMIT_AS, used + 5 * GIB);
            let mut claim = claim(OS, &above(), &mut slots).expect("a valid request");
            let report = *claim.report();
            let usable = claim.tally(Purpose::Usable);
            let error = report.error.expect("it was refused");
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(libc::ENOMEM))
            );
            // 1 GiB is spared by default.
            assert!(
                (4 * GIB - 64 * MIB..=4 * GIB).contains(&usable.bytes),
                "{usable:?}"
            );
            assert_eq!(claim.tally(Purpose::Hole).bytes, 0);
            assert!(
                report.missed.bytes > 64 * GIB && report.settled,
                "{report:?}"
            );
            let at = map_anywhere(512 * MIB).expect("something is left for others");
            assert_ne!(at, 0);
            assert_eq!(map_anywhere(2 * GIB), Err(libc::ENOMEM));
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
            map_anywhere(2 * GIB).expect("given back");
        },
    );
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
fn others_may_map_all_the_while() {
    isolate::isolated!("others_may_map_all_the_while", || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let churn = |seed: usize| {
            let mut rounds = 0usize;
            let mut kept = Vec::with_capacity(512);
            while !STOP.load(Ordering::Relaxed) {
                let len = 4096 * (1 + (seed + rounds) % 7);
                rounds += 1;
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
                let at = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
                assert_ne!(at, libc::MAP_FAILED, "there is always room somewhere");
                let word = at.cast::<usize>();
                // SAFETY: mapped just now, writable.
                unsafe { word.write(seed + rounds) };
                if rounds.is_multiple_of(3) && kept.len() < kept.capacity() {
                    kept.push((word, seed + rounds));
                } else {
                    // SAFETY: mapped above, and not kept.
                    unsafe { libc::munmap(at, len) };
                }
            }
            for (word, value) in kept {
                // SAFETY: mapped above, and no other code's: that is what is tested.
                assert_eq!(unsafe { word.read() }, value, "nothing was replaced");
            }
            rounds
        };
        let threads: Vec<_> = (0..3)
            .map(|n| std::thread::spawn(move || churn(n * 1000)))
            .collect();
        let mut slots: Box<[Option<Claimed>]> = vec![None; 1 << 16].into();
        for _ in 0..if emulated() { 2 } else { 40 } {
            let mut claim = claim(OS, &above(), &mut slots).expect("a valid request");
            assert!(claim.report().map.is_ok() && !claim.report().full);
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
        }
        STOP.store(true, Ordering::Relaxed);
        for thread in threads {
            assert!(thread.join().expect("no thread failed") > 0);
        }
        let claim = claim(OS, &above(), &mut slots).expect("a valid request");
        assert!(claim.report().settled, "nobody maps now");
        if emulated() {
            return;
        }
        let at = map_anywhere(MIB).expect("there is room below");
        assert!(at + MIB <= 4 * GIB);
    });
}

#[test]
fn without_proc_a_claim_gets_nearly_all() {
    isolate::isolated!("without_proc_a_claim_gets_nearly_all", || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let calls = [
            libc::SYS_openat,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open,
        ];
        let (stack_start, _) = stack();
        let mut slots: Box<[Option<Claimed>]> = vec![None; 1 << 14].into();
        if isolate::or_skip(seccomp::refuse(&calls, libc::ENOENT)).is_none() {
            return;
        }
        let claim = claim(OS, &above(), &mut slots).expect("a valid request");
        let report = claim.report();
        assert!(report.map.is_err() && !report.settled && !report.full);
        assert_eq!(report.scans, 2);
        let bytes = claim.tally(Purpose::Usable).bytes;
        let top = report.range.expect("there are such addresses").last();
        assert!(bytes > top - 16 * GIB, "{bytes:#x} of {top:#x}");
        assert_eq!(claim.tally(Purpose::Hole).bytes, 4 * GIB);
        let room = report.stack_room;
        // Kernels before 6.4 do not tell of the main thread's stack without /proc, and this thread
        // is another.
        if OS.address_space().stack.is_none() {
            isolate::skip("the kernel does not tell where the stack is");
            return;
        }
        let (start, end) = (stack_start - room + MIB, stack_start);
        let free = |range: PageRange| range.end() <= start || end <= range.addr();
        assert!(claim.usable().all(free), "room for the stack");
        // Smaller gaps may be left where others have more pages than there are tries: the test's
        // own heap reserves a gigabyte for its metadata.
        for len in [2 * room + MIB, 64 * MIB] {
            let at = map_anywhere(len).expect("there is room below");
            assert!(at + len <= 4 * GIB, "{len:#x} bytes at {at:#x}");
        }
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
fn room_is_left_below_a_stack_that_somebody_else_makes_grow() {
    /// Claims on the stack that it runs on, and returns the end of the highest range below it.
    extern "C" fn claim_here(_: *mut c_void) -> *mut c_void {
        let here = 0_u8;
        let here = (&raw const here).addr();
        let mut slots: Box<Slots> = Box::new([None; 1024]);
        let mut claim = claim(OS, &above(), &mut slots[..]).expect("a valid request");
        assert!(claim.report().is_complete(), "{:?}", claim.report());
        assert!(claim.renew().is_complete());
        let below = claim.ranges().filter(|claimed| claimed.range.addr() < here);
        let end = below.map(|claimed| claimed.range.end()).max();
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
        core::ptr::without_provenance_mut(end.unwrap_or(0))
    }
    let test = "room_is_left_below_a_stack_that_somebody_else_makes_grow";
    isolate::isolated!(test, || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        // A hole below the stack, as where valgrind makes it grow.
        let (len, whole) = (4 * MIB, 2 * GIB);
        let at = map_anywhere(whole).expect("addresses");
        let start: *mut u8 = core::ptr::with_exposed_provenance_mut(at);
        // SAFETY: mapped just now, and not used.
        assert_eq!(unsafe { libc::munmap(start.cast(), whole - len) }, 0);
        let stack = start.wrapping_add(whole - len);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: as above, the rest of it.
        assert_eq!(unsafe { libc::mprotect(stack.cast(), len, access) }, 0);
        // SAFETY: the stack is mapped, writable, and no other code's; the function takes nothing.
        let end = unsafe { run_on_stack(stack, len, claim_here) };
        let room = stack.addr() - end.addr();
        assert!(room >= 128 * MIB - len, "{room:#x} bytes of room");
    });
}

/// Answers whoever asks for a place as a kernel with addresses of so many bits, where all is taken.
fn answer_of<const BITS: u32>(arguments: &[usize; 6]) -> isize {
    let end = (1 << BITS) - OS.page_size().bytes();
    let exists = arguments[0] + arguments[1] <= end;
    let errno = if exists { libc::EEXIST } else { libc::ENOMEM };
    -isize::try_from(errno).expect("a small number")
}

fn claim_with_bits<const BITS: u32>(test: &str) {
    isolate::isolated!(test, || {
        let exact = u64::from(libc::MAP_FIXED_NOREPLACE.cast_unsigned());
        let filter = seccomp::answer_when(libc::SYS_mmap, 3, exact, exact, answer_of::<BITS>);
        if isolate::or_skip(filter).is_none() {
            return;
        }
        let mut slots = [None; 1024];
        let claim = claim(OS, &above(), &mut slots).expect("a valid request");
        let report = claim.report();
        assert_eq!(report.address_bits, Some(BITS));
        let end = (1 << BITS) - OS.page_size().bytes();
        assert_eq!(report.range, AddressRange::new(4 * GIB, end - 1));
        let missed = report.missed.bytes;
        assert!(missed > end / 2, "{missed:#x} of {end:#x}");
        assert!(!report.is_complete());
        let slots = &mut [None; 1024];
        let refused = hostmem::region::claim(OS, &above().require_complete(), slots);
        assert!(refused.is_err());
    });
}

#[test]
fn a_claim_reaches_to_the_end_of_56_bits() {
    claim_with_bits::<56>("a_claim_reaches_to_the_end_of_56_bits");
}

#[test]
fn a_claim_reaches_to_the_end_of_49_bits() {
    claim_with_bits::<49>("a_claim_reaches_to_the_end_of_49_bits");
}

#[test]
fn too_few_slots_are_told_and_refused_where_all_is_required() {
    let test = "too_few_slots_are_told_and_refused_where_all_is_required";
    isolate::isolated!(test, || {
        let mut slots = [None; 1];
        let mut few = claim(OS, &above(), &mut slots).expect("a valid request");
        assert!(few.report().full && !few.report().is_complete());
        // SAFETY: no other code uses the claim.
        unsafe { few.give_back() }.expect("all can go");
        let mut snapshots = [Snapshot::new(), Snapshot::new()];
        for snapshot in &mut snapshots {
            snapshot.take();
        }
        snapshots[0].take();
        let refused = claim(OS, &above().require_complete(), &mut slots);
        snapshots[1].take();
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Exhausted));
        let [before, after] = &snapshots;
        assert!(
            emulated() || before.text() == after.text(),
            "{}",
            after.text()
        );
        let mut slots = [None; 1024];
        let all = claim(OS, &above().require_complete(), &mut slots);
        let all = all.map(|claim| claim.report().is_complete());
        assert!(all == Ok(true) || emulated(), "{all:?}");
    });
}

/// The policy on hosts with pages of any size, with every state checked and every call failing
/// once.
#[cfg(feature = "sim")]
mod sim {
    use super::*;
    use hostmem::{
        page::PageSize,
        provider::{Error, Place, Request},
        sim::{Calls, Faulty, PageState, Policy, Sim},
    };

    const PAGES: [PageSize; 3] = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];

    fn host(page: PageSize) -> Sim<OsProvider> {
        Sim::new(OS, Policy::new(page).space(64 * MIB)).expect("a small host")
    }

    /// Reserves every `step`th page of a host, so that there are gaps.
    fn scatter(host: &Sim<OsProvider>, step: usize) -> usize {
        let (space, page) = (host.space(), host.page_size().bytes());
        let pages = (space.addr()..space.end()).step_by(step * page);
        let taken = pages.map(|at| host.reserve(&Request::bytes(1).place(Place::Exact(at))));
        taken.filter_map(Result::ok).count()
    }

    fn request(host: &Sim<OsProvider>) -> ClaimRequest {
        ClaimRequest::range(host.space().addresses()).spare(0)
    }

    #[test]
    fn r13_all_of_a_small_host_is_claimed_and_given_back() {
        for page in PAGES {
            let host = host(page);
            let taken = scatter(&host, 10);
            let fingerprint = host.fingerprint();
            let mut slots = vec![None; 4096];
            let mut claim = claim(&host, &request(&host), &mut slots).expect("valid");
            assert_eq!(host.pages_in_use(), 64 * MIB / page.bytes());
            assert_eq!(claim.ranges().count(), taken);
            assert!(claim.report().settled);
            let reserved = |at: usize| host.page_state(at) == PageState::Reserved;
            assert!(claim.usable().all(|range| reserved(range.addr())));
            // SAFETY: no other code uses the claim.
            unsafe { claim.give_back() }.expect("all can go");
            assert_eq!(host.fingerprint(), fingerprint);
            assert_eq!(host.take_misuse(), None);
        }
    }

    #[test]
    fn a_call_that_fails_costs_nothing_but_its_gap() {
        for kind in [ErrorKind::Exhausted, ErrorKind::Taken, ErrorKind::Denied] {
            for n in 0..40 {
                let host = host(PageSize::KIB_4);
                scatter(&host, 1000);
                let fingerprint = host.fingerprint();
                let faulty = Faulty::new(&host).with_error(Error::os(kind, 99));
                faulty.only(Calls::RESERVE);
                faulty.fail_nth(n);
                let mut slots = vec![None; 256];
                let mut claim = claim(&faulty, &request(&host), &mut slots).expect("valid");
                let listed: usize = claim.ranges().map(|c| c.range.len_bytes()).sum();
                let free = host.space().len_bytes() - host.pages_in_use() * 4096;
                let all = claim.report().missed.bytes == 0;
                assert_eq!(free == 0, all, "what is missing is reported");
                assert!(all, "the next scan makes up for it: {:?}", claim.report());
                assert!(listed > 0);
                // SAFETY: no other code uses the claim.
                unsafe { claim.give_back() }.expect("all can go");
                assert_eq!(host.fingerprint(), fingerprint, "call {n}");
                assert_eq!(host.take_misuse(), None);
            }
        }
    }

    #[test]
    fn a_stack_is_mapped_between_guards_or_not_at_all() {
        for page in PAGES {
            let host = host(page);
            let before = host.fingerprint();
            let faulty = Faulty::new(&host);
            for n in 0..2 {
                faulty.fail_nth(n);
                let error = GuardedStack::new(&faulty, MIB, 1).expect_err("a call failed");
                assert_eq!(error.errno(), Some(12));
                assert_eq!(host.fingerprint(), before);
            }
            for bad in [0, usize::MAX] {
                let error = GuardedStack::new(&faulty, bad, 1).expect_err("no such length");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            }
            let stack = GuardedStack::new(&faulty, MIB, page.bytes() + 1).expect("there is room");
            let (range, whole) = (stack.range(), stack.range_with_guards());
            assert_eq!(range.addr() - whole.addr(), 2 * page.bytes());
            assert_eq!(whole.end() - range.end(), 2 * page.bytes());
            assert_eq!(host.page_state(range.addr()), PageState::Committed);
            assert_eq!(host.page_state(range.end() - 1), PageState::Committed);
            assert_eq!(host.page_state(range.addr() - 1), PageState::Guard);
            assert_eq!(host.page_state(range.end()), PageState::Guard);
            faulty.fail_nth(0);
            // SAFETY: nobody runs on it.
            let (stack, error) = unsafe { stack.release() }.expect_err("the call failed");
            assert_eq!((error.errno(), stack.range()), (Some(12), range));
            // SAFETY: as above.
            unsafe { stack.release() }.expect("now it can go");
            assert_eq!(host.fingerprint(), before);
            assert_eq!(host.take_misuse(), None);
        }
    }

    #[test]
    fn what_cannot_be_released_stays_in_the_claim() {
        let host = host(PageSize::KIB_4);
        scatter(&host, 1000);
        let before = host.fingerprint();
        let faulty = Faulty::new(&host);
        faulty.only(Calls::RELEASE);
        let mut slots = vec![None; 256];
        let mut claim = claim(&faulty, &request(&host), &mut slots).expect("valid");
        let ranges = claim.ranges().count();
        faulty.fail_nth(3);
        // SAFETY: no other code uses the claim.
        let error = unsafe { claim.give_back() }.expect_err("the fourth cannot go");
        assert_eq!(error.errno(), Some(12));
        assert_eq!(claim.ranges().count(), 1, "of {ranges}");
        // SAFETY: as above.
        unsafe { claim.give_back() }.expect("now it can");
        assert_eq!(claim.ranges().count(), 0);
        assert_eq!(host.fingerprint(), before);
    }
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
