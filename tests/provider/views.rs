//! P1, P2, P4, P7 and P9 on the real system, seen from outside: through `/proc` and by faults
//! taken.

use crate::common::{call, is_of_test, map_dual, skip_emulated, unmap_dual, write_code};
use hostmem::{
    OsProvider,
    counted::{Counted, Limits},
    page::{AddressRange, PageRange, PageSize},
    provider::{
        Commit, DualMapProvider, DualRequest, DualStep, ErrorKind, Fork, Leave, PageProvider,
        PageWish, Place, Placement, Request, Target,
    },
};
use hostmem_test_support::{
    fault::{Signal, faults},
    hugetlb::with_huge_pages,
    isolate::{isolated, or_skip},
    maps,
};

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
fn p4_each_view_refuses_what_the_other_is_for() {
    let mapping = map_dual(&OS);
    // SAFETY: two pages, and ours alone.
    unsafe { write_code(&mapping, 0, 7) };
    let (rw, rx) = (mapping.rw().start().as_ptr(), mapping.rx().start().as_ptr());
    // SAFETY: published just now.
    assert_eq!(unsafe { call(rx) }, 7);
    let fault = faults(|| {
        // SAFETY: this is to fault; the support code runs it in a process of its own.
        unsafe { rx.write_volatile(0) };
    });
    let fault = fault.expect("the executable view cannot be written");
    assert_eq!((fault.signal, fault.address), (Signal::Segv, rx.addr()));
    let fault = faults(|| {
        // SAFETY: as above.
        unsafe { call(rw) };
    });
    let fault = fault.expect("the writable view cannot be executed");
    assert_eq!((fault.signal, fault.address), (Signal::Segv, rw.addr()));
    // SAFETY: published, and unchanged by the attempts.
    assert_eq!(unsafe { call(rx) }, 7);
    unmap_dual(&OS, mapping);
}

#[test]
fn p4_the_executable_view_cannot_even_be_made_writable() {
    let mapping = map_dual(&OS);
    let (start, len) = (mapping.rx().start().as_ptr(), mapping.len_bytes());
    // SAFETY: the range is ours; the call is to fail.
    let result = unsafe { libc::mprotect(start.cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!(result, -1);
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert_eq!(
        errno,
        Some(libc::EACCES),
        "it shows a file opened for reading only"
    );
    unmap_dual(&OS, mapping);
}

#[test]
fn views_go_where_they_are_told() {
    isolated!("views_go_where_they_are_told", || {
        // An anchor with room around it: the middle of a large reservation given back.
        let room = reserve(&Request::bytes(1 << 30));
        let anchor = room.addr() + (512 << 20);
        release(room);
        let reach = 128 << 20;
        let near = Placement::near(anchor, reach);
        let low = Placement::within(AddressRange::LOW_4G);
        for (rw, rx) in [
            (Placement::ANYWHERE, near),
            (low, near),
            (near, near),
            (near, low),
        ] {
            let (rw, rx) = (Target::Find(rw), Target::Find(rx));
            let request = DualRequest {
                rw,
                rx,
                ..DualRequest::bytes(64 << 10)
            };
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("there is room");
            for (target, view) in [(rw, mapping.rw()), (rx, mapping.rx())] {
                let Target::Find(placement) = target else {
                    panic!("only such targets above")
                };
                assert!(
                    placement.within.contains_range(view.addresses()),
                    "{view:?} {placement:?}"
                );
            }
            unmap_dual(&OS, mapping);
        }
    });
}

#[test]
fn views_replace_reservations_and_leave_them() {
    let len = 64 << 10;
    let (a, b) = (reserve(&Request::bytes(len)), reserve(&Request::bytes(len)));
    let (rw, rx) = (Target::Into(a), Target::Into(b));
    let request = DualRequest {
        rw,
        rx,
        ..DualRequest::bytes(len)
    };
    // SAFETY: both ranges are reserved, and no other code uses them.
    let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
    assert_eq!((mapping.rw(), mapping.rx()), (a, b));
    // SAFETY: ours alone.
    unsafe { write_code(&mapping, 128, 9) };
    // SAFETY: published just now.
    assert_eq!(unsafe { call(b.start().as_ptr().wrapping_add(128)) }, 9);
    // SAFETY: not used any more.
    unsafe { OS.unmap_dual(mapping, Leave::Reserved) }.expect("mapping over needs nothing");
    for range in [a, b] {
        commit(range);
        // SAFETY: committed just now.
        let bytes = unsafe { range.start().cast::<[u8; 192]>().read() };
        assert_eq!(bytes, [0; 192]);
        release(range);
    }
}

#[test]
fn p7_large_pages_are_used_when_there_are_any() {
    if skip_emulated("shows pages of its own in smaps") {
        return;
    }
    isolated!("p7_large_pages_are_used_when_there_are_any", || {
        let two_mib = PageSize::new(2 << 20).expect("a power of two");
        let pages = PageWish::Large {
            bytes: two_mib.bytes(),
            or_base: true,
        };
        let request = DualRequest {
            pages,
            ..DualRequest::bytes(two_mib.bytes())
        };
        let page_size_at = |view: PageRange| {
            maps::kernel_page_size(view.addr())
                .expect("/proc is mounted")
                .expect("mapped")
        };
        let done = or_skip(with_huge_pages(4, |given| {
            assert!(given >= 2, "{given} large pages are too few for the test");
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
            assert_eq!(
                (mapping.page_size(), mapping.step()),
                (two_mib, DualStep::MemfdLarge)
            );
            assert_eq!(page_size_at(mapping.rw()), two_mib.bytes());
            assert_eq!(page_size_at(mapping.rx()), two_mib.bytes());
            // SAFETY: ours alone.
            unsafe { write_code(&mapping, 4096, 11) };
            // SAFETY: published just now.
            let value = unsafe { call(mapping.rx().start().as_ptr().wrapping_add(4096)) };
            assert_eq!(value, 11);
            unmap_dual(&OS, mapping);

            let range = reserve(&Request::bytes(two_mib.bytes()).align(two_mib.bytes()));
            let how = Commit {
                pages,
                ..Commit::READ_WRITE
            };
            // SAFETY: reserved just now.
            let got = unsafe { OS.commit(range, how) }.expect("large pages are left");
            assert_eq!(got, two_mib);
            assert_eq!(page_size_at(range), two_mib.bytes());
            // SAFETY: committed just now.
            unsafe { range.start().write(1) };
            // SAFETY: ours, and not used meanwhile.
            unsafe { OS.decommit(range) }.expect("whole large pages are decommitted");
            commit(range);
            // SAFETY: committed just now.
            assert_eq!(unsafe { range.start().read() }, 0);
            release(range);
        }));
        if done.is_none() {
            return;
        }
        let done = or_skip(with_huge_pages(0, |_| {
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("the host's pages will do");
            assert_eq!(
                (mapping.page_size(), mapping.step()),
                (OS.page_size(), DualStep::Memfd)
            );
            unmap_dual(&OS, mapping);
            let pages = PageWish::Large {
                bytes: two_mib.bytes(),
                or_base: false,
            };
            // SAFETY: as above.
            let refused = unsafe { OS.map_dual(&DualRequest { pages, ..request }) };
            let error = refused.expect_err("there are no large pages");
            let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.errno())).collect();
            assert_eq!(steps, [(DualStep::MemfdLarge, Some(libc::ENOMEM))]);

            let range = reserve(&Request::bytes(two_mib.bytes()).align(two_mib.bytes()));
            let how = Commit {
                pages,
                ..Commit::READ_WRITE
            };
            // SAFETY: reserved just now.
            let error = unsafe { OS.commit(range, how) }.expect_err("there are no large pages");
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(libc::ENOMEM))
            );
            let or_base = PageWish::Large {
                bytes: two_mib.bytes(),
                or_base: true,
            };
            // SAFETY: still reserved, since a failed commit changes nothing.
            let got = unsafe {
                OS.commit(
                    range,
                    Commit {
                        pages: or_base,
                        ..how
                    },
                )
            };
            assert_eq!(got, Ok(OS.page_size()));
            release(range);
        }));
        assert!(done.is_some(), "the pool could be resized before");
    });
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
fn purging_gives_memory_back_and_empties_both_views() {
    if skip_emulated("shows no resident memory in smaps") {
        return;
    }
    let len = 1 << 20;
    // SAFETY: neither target is a range of ours.
    let mapping = unsafe { OS.map_dual(&DualRequest::bytes(len)) }.expect("a strategy works");
    let resident = || {
        let field = maps::smaps_field(mapping.rw().addr(), "Rss").expect("/proc is mounted");
        field.expect("mapped") * 1024
    };
    // SAFETY: the view is len bytes long, and ours.
    unsafe { mapping.rw().start().write_bytes(0xaa, len) };
    assert_eq!(resident(), len);
    // SAFETY: no other code uses those pages.
    unsafe { OS.purge_dual(&mapping, len / 4, len / 2) }.expect("memory files can be punched");
    assert_eq!(resident(), len / 2);
    // SAFETY: ours.
    unsafe { OS.refill_dual(&mapping, len / 4, len / 2) }.expect("there is memory");
    assert_eq!(resident(), len, "all of it is there before it is used");
    for view in [mapping.rw(), mapping.rx()] {
        let bytes = core::ptr::NonNull::slice_from_raw_parts(view.start(), len);
        // SAFETY: mapped, readable, and nobody writes meanwhile.
        let bytes = unsafe { bytes.as_ref() };
        let (middle, ends) = (len / 4..3 * len / 4, [0..len / 4, 3 * len / 4..len]);
        assert!(bytes[middle].iter().all(|&byte| byte == 0));
        assert!(
            ends.into_iter()
                .flat_map(|end| &bytes[end])
                .all(|&byte| byte == 0xaa)
        );
    }
    // SAFETY: refused before anything is touched.
    let error = unsafe { OS.purge_dual(&mapping, 0, 2 * len) }.expect_err("it leaves the mapping");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    unmap_dual(&OS, mapping);
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
