//! Two views of the same memory.

use super::{OS, commit, release, reserve};
use crate::common::{call, map_dual, skip_emulated, unmap_dual, write_code};
use hostmem::{
    page::AddressRange,
    provider::{DualMapProvider, DualRequest, ErrorKind, Leave, Placement, Request, Target},
};
use hostmem_test_support::{
    fault::{Signal, faults},
    isolate::isolated,
    maps,
};

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
        // SAFETY: this is to fault; the support code runs it in a process of its own.
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
        // SAFETY: mapped, readable, and no other code writes meanwhile.
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
