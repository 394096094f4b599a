//! Claims under limits, with little told, and of few slots.

use super::{GIB, MIB, OS, Snapshot, above, map_anywhere, stack};
use crate::common::{emulated, limits::set_limit, skip_emulated};
use hostmem::{
    page::{AddressRange, PageRange},
    provider::{ErrorKind, PageProvider, ProcessMap},
    region::{ClaimRequest, Claimed, Others, Purpose, claim},
};
use hostmem_test_support::{isolate, seccomp};

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
fn a_claim_of_all_addresses_leaves_something_under_a_limit() {
    let test = "a_claim_of_all_addresses_leaves_something_under_a_limit";
    isolate::isolated!(test, || {
        if skip_emulated("does not limit addresses") {
            return;
        }
        let mut slots = [None; 1024];
        set_limit(libc::RLIMIT_AS, 8 * GIB);
        let all = ClaimRequest::range(AddressRange::ALL);
        let mut claim = claim(OS, &all, &mut slots).expect("a valid request");
        let report = *claim.report();
        assert!(claim.tally(Purpose::Usable).bytes > 4 * GIB, "{report:?}");
        assert_eq!(report.others, Others::Outside);
        map_anywhere(GIB).expect("a quarter is left for others");
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
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

/// Answers whoever asks for a place as a kernel with addresses of `BITS` bits, where all is taken.
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
    if skip_emulated("has memory of its own where the map of the process shows none") {
        return;
    }
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
