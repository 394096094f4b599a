//! P1, P2, P4, P7 and P9 on the real system, seen from outside: through `/proc` and by faults
//! taken.

mod dual;
mod large;

use crate::common::{is_of_test, map_dual, skip_emulated, unmap_dual};
use hostmem::{
    OsProvider,
    counted::{Counted, Limits},
    page::PageRange,
    provider::{
        Commit, DualMapProvider, DualRequest, ErrorKind, Fork, PageProvider, PageWish, Place,
        Request,
    },
};
use hostmem_test_support::{isolate::isolated, maps};

const OS: OsProvider = OsProvider::new();

fn reserve(request: &Request<'_>) -> PageRange {
    OS.reserve(request).expect("address space is left")
}

fn commit(range: PageRange) {
    // SAFETY: the tests commit what they reserved, once.
    unsafe { OS.commit(range, Commit::READ_WRITE) }.expect("memory is left");
}

fn release(range: PageRange) {
    // SAFETY: the tests release what they reserved and use no more.
    unsafe { OS.release(range) }.expect("whole reservations can be released");
}

/// Says whether any byte of the range is mapped.
fn is_mapped(range: PageRange) -> bool {
    let mappings = maps::of_self().expect("/proc is mounted");
    mappings
        .iter()
        .any(|mapping| mapping.overlaps(range.addr(), range.end()))
}

#[test]
fn p1_states_show_in_the_process_map() {
    isolated!("p1_states_show_in_the_process_map", || {
        let range = reserve(&Request::bytes(64 << 10));
        let perms = |addr| {
            let mapping = maps::find(addr).expect("/proc is mounted").expect("mapped");
            (
                mapping.perms.read,
                mapping.perms.write,
                mapping.perms.execute,
            )
        };
        assert_eq!(perms(range.addr()), (false, false, false));
        commit(range);
        assert_eq!(perms(range.addr()), (true, true, false));
        // SAFETY: committed, and ours.
        unsafe { range.start().write(9) };
        // SAFETY: ours, and not used meanwhile.
        unsafe { OS.decommit(range) }.expect("decommitting needs nothing");
        assert_eq!(perms(range.addr()), (false, false, false));
        commit(range);
        // SAFETY: committed, and ours.
        let byte = unsafe { range.start().read() };
        assert_eq!(byte, 0, "fresh memory reads zero");
        release(range);
        assert!(!is_mapped(range));
    });
}

#[test]
fn p2_an_exact_place_in_use_is_refused_and_nothing_changes() {
    if skip_emulated("shows memory of its own in the map of the process") {
        return;
    }
    isolated!(
        "p2_an_exact_place_in_use_is_refused_and_nothing_changes",
        || {
            let counted: Counted<_> = Counted::new(OS, "test", Limits::NONE).expect("mapped");
            let used = counted.reserve(&Request::bytes(64 << 10)).expect("mapped");
            let inside = used.addr() + counted.page_size().bytes();
            let requests = [
                Request::bytes(4096).place(Place::Exact(used.addr())),
                Request::bytes(4096).place(Place::Exact(inside)),
                Request::bytes(1 << 20).place(Place::Exact(used.addr())),
            ];
            // Everything is in place before the comparison: the buffer for the map too.
            let (mut before, mut after) = (
                String::with_capacity(1 << 16),
                String::with_capacity(1 << 16),
            );
            let read = |text: &mut String| {
                text.push_str(&std::fs::read_to_string("/proc/self/maps").expect("mounted"));
            };
            read(&mut before);
            before.clear();
            for request in requests {
                read(&mut before);
                let counters = counted.counters();
                let error = counted.reserve(&request).expect_err("the place is in use");
                assert_eq!(
                    (error.kind(), error.errno()),
                    (ErrorKind::Taken, Some(libc::EEXIST))
                );
                assert_eq!(counted.counters(), counters);
                read(&mut after);
                assert_eq!(before, after);
                before.clear();
                after.clear();
            }
        },
    );
}

#[test]
fn p9_mapping_leaves_no_descriptor_behind() {
    isolated!("p9_mapping_leaves_no_descriptor_behind", || {
        let before = maps::count_fds().expect("/proc is mounted");
        let mappings: Vec<_> = (0..100).map(|_| map_dual(&OS)).collect();
        let _probe = OS.probe_now();
        assert_eq!(maps::count_fds().expect("/proc is mounted"), before);
        mappings
            .into_iter()
            .for_each(|mapping| unmap_dual(&OS, mapping));
    });
}

#[test]
fn the_probe_leaves_nothing_behind() {
    isolated!("the_probe_leaves_nothing_behind", || {
        let _warm = OS.probe_now();
        let shape = || {
            let mappings = maps::of_self().expect("/proc is mounted");
            let lasting = mappings
                .into_iter()
                .filter(|m| !is_of_test(m.start, &m.path));
            lasting
                .map(|m| (m.start, m.end, m.perms))
                .collect::<Vec<_>>()
        };
        // What the test keeps of this makes its heap grow once.
        drop((shape(), shape()));
        let before = shape();
        let probe = OS.probe_now();
        assert_eq!(shape(), before);
        assert_eq!(probe.page_size, OS.page_size());
        assert!(
            probe.best_dual().is_some(),
            "some strategy works here: {probe:?}"
        );
        assert!(probe.address_bits.is_some());
    });
}

#[test]
fn names_show_in_the_process_map() {
    let range = reserve(&Request::bytes(1 << 20).name(c"hostmem-test-name"));
    let mapping = maps::find(range.addr())
        .expect("/proc is mounted")
        .expect("mapped");
    if mapping.path.is_empty() {
        hostmem_test_support::isolate::leave_out("this kernel was built without names");
    } else {
        assert_eq!(mapping.path, "[anon:hostmem-test-name]");
        assert_eq!((mapping.start, mapping.end), (range.addr(), range.end()));
    }
    release(range);
    let name = Some(c"hostmem-test-dual");
    let request = DualRequest {
        name,
        fork: Fork::Share,
        ..DualRequest::bytes(1 << 16)
    };
    // SAFETY: neither target is a range of ours.
    let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
    let shown = maps::find(mapping.rx().addr())
        .expect("/proc is mounted")
        .expect("mapped");
    assert!(shown.path.contains("hostmem-test-dual"), "{}", shown.path);
    unmap_dual(&OS, mapping);
}

#[test]
fn decommitted_neighbours_are_one_mapping_again() {
    isolated!("decommitted_neighbours_are_one_mapping_again", || {
        let page = OS.page_size().bytes();
        let range = reserve(&Request::bytes(512 * page));
        let pieces = || {
            let mappings = maps::of_self().expect("/proc is mounted");
            mappings
                .iter()
                .filter(|m| m.overlaps(range.addr(), range.end()))
                .count()
        };
        assert_eq!(pieces(), 1);
        let parts: Vec<_> = (0..256)
            .filter_map(|n| range.part(2 * n * page, page, OS.page_size()))
            .collect();
        parts.iter().for_each(|&part| commit(part));
        assert_eq!(pieces(), 512);
        for &part in &parts {
            // SAFETY: committed above, and not used.
            unsafe { OS.decommit(part) }.expect("decommitting needs nothing");
        }
        assert_eq!(pieces(), 1, "the kernel sees one reservation again");
        release(range);
    });
}

/// Returns the flags that the kernel keeps of the mapping at `addr`.
fn vm_flags(addr: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let start = format!("{addr:x}-");
    let ours = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let flags = ours.filter_map(|line| line.strip_prefix("VmFlags:")).next();
    flags.expect("a mapping starts there").to_owned()
}

#[test]
fn advice_reaches_the_kernel() {
    if skip_emulated("shows no flags in smaps") {
        return;
    }
    isolated!("advice_reaches_the_kernel", || {
        let len = 4 << 20;
        let plain = reserve(&Request::bytes(len).guards(len, len));
        let hidden = reserve(&Request::bytes(len).guards(len, len).exclude_from_dump());
        assert!(
            !vm_flags(plain.addr()).contains("dd"),
            "not excluded unless asked"
        );
        assert!(
            vm_flags(hidden.addr()).contains("dd"),
            "excluded from core files"
        );
        let body = plain.part(len, len, OS.page_size()).expect("inside");
        let how = Commit {
            pages: PageWish::Transparent,
            ..Commit::READ_WRITE
        };
        // SAFETY: reserved above.
        let got = unsafe { OS.commit(body, how) };
        assert_eq!(got, Ok(OS.page_size()), "advice promises nothing");
        let exists = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(vm_flags(body.addr()).contains("hg"), exists);
        release(plain);
        release(hidden);
    });
}
