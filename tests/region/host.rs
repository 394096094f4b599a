//! R12 as a whole: a process of which all above 4 GiB is a region's goes on as any other does.

use crate::{
    common::{CoreFile, run_on_stack, skip_emulated},
    space::{OS, Region, claim_above_4_gib},
};
use core::{
    ffi::{CStr, c_void},
    hint::black_box,
    ptr::without_provenance_mut,
};
use hostmem::{
    page::AddressRange,
    provider::{Commit, PageProvider, Request},
    region::{GuardedStack, RegionConfig},
};
use hostmem_test_support::isolate;
use std::{sync::Barrier, thread};

const MIB: usize = 1 << 20;
const LOW: AddressRange = AddressRange::LOW_4G;

/// Claims everything above 4 GiB for a region.
fn above_4_gib() -> Region {
    let region = Region::on(OS, OS, RegionConfig::new()).expect("metadata can be reserved");
    let report = claim_above_4_gib(&region);
    assert!(report.settled && report.missed.bytes == 0, "{report:?}");
    region
}

/// Threads of the standard library, all at a time: their stacks come from the C library, which
/// finds room for them below only.
fn threads_land_below() {
    const THREADS: usize = 8;
    let all = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| {
            scope.spawn(|| {
                let page = black_box([1_u8; 1 << 16]);
                all.wait();
                (&raw const page).addr()
            })
        });
        for thread in threads {
            let at = thread.join().expect("no thread fails");
            assert!(LOW.contains(at), "a stack at {at:#x}");
        }
    });
}

/// Libraries that hardly any program is linked with, and a function of each.
const LIBRARIES: [(&CStr, &CStr); 3] = [
    (c"libm.so.6", c"floor"),
    (c"libresolv.so.2", c"ns_get16"),
    (c"libanl.so.1", c"getaddrinfo_a"),
];

/// Opens a library that was not there before. Its mappings are the kernel's choice.
fn a_library_lands_below() {
    let is_new = |name: &CStr| {
        // SAFETY: opens nothing.
        let there = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        there.is_null()
    };
    let open = |name: &CStr| {
        // SAFETY: a library of the system, whose initialisers any program may run.
        unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) }
    };
    let mut new = LIBRARIES.into_iter().filter(|(name, _)| is_new(name));
    let opened = new.find_map(|(name, function)| {
        let handle = open(name);
        (!handle.is_null()).then_some((handle, name, function))
    });
    let Some((handle, name, function)) = opened else {
        isolate::skip("there is no library that is not loaded already");
        return;
    };
    // SAFETY: opened above; the name ends with a zero.
    let found = unsafe { libc::dlsym(handle, function.as_ptr()) };
    assert!(LOW.contains(found.addr()), "{function:?} at {found:p}");
    let name = name.to_str().expect("text");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let mut lines = 0;
    for line in maps.lines().filter(|line| line.contains(name)) {
        let end = line.split(['-', ' ']).nth(1).expect("a range");
        let end = usize::from_str_radix(end, 16).expect("an address");
        assert!(end <= 1 << 32, "{line}");
        lines += 1;
    }
    assert!(lines > 1, "{name} is mapped");
    if name == "libm.so.6" {
        // SAFETY: floor of the C library is such a function.
        let floor: extern "C" fn(f64) -> f64 = unsafe { core::mem::transmute(found) };
        assert_eq!(floor(black_box(2.5)), 2.0);
    }
    // SAFETY: opened above, closed once; nothing of it is used any more.
    assert_eq!(unsafe { libc::dlclose(handle) }, 0);
}

/// What a thread finds out on a big stack: that it can use nearly all of it.
extern "C" fn on_big_stack(_: *mut c_void) -> *mut c_void {
    let pages = [7_u8; 60 * MIB];
    let sum: usize = black_box(&pages)
        .iter()
        .step_by(4096)
        .map(|b| usize::from(*b))
        .sum();
    assert_eq!(sum, 7 * 60 * MIB / 4096);
    without_provenance_mut((&raw const pages).addr())
}

fn a_big_stack_lies_above(region: &Region) {
    let stack = GuardedStack::new(region, 64 * MIB, 1 << 16).expect("there is room");
    let base = stack.base().as_ptr();
    // SAFETY: the stack is mapped, writable, and no other code's; the function takes nothing.
    let at = unsafe { run_on_stack(base, stack.len_bytes(), on_big_stack) };
    assert!(stack.range().contains(at.addr()) && !LOW.contains(at.addr()));
    // SAFETY: the thread has ended.
    unsafe { stack.release() }.expect("it can go");
}

/// Leaves a region as R10 does: single pages that were written, every second one gone, then all.
fn use_and_free(region: &Region) {
    let page = Request::bytes(OS.page_size().bytes());
    let mut pages = Vec::new();
    for _ in 0..4000 {
        let mapped = region.map(&page, Commit::READ_WRITE, 0).expect("a page");
        // SAFETY: mapped just now.
        unsafe { mapped.start().write(1) };
        pages.push(mapped);
    }
    for first in [0, 1] {
        for page in pages.iter().skip(first).step_by(2) {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(*page) }.expect("it goes");
        }
    }
    assert_eq!(region.statistics().used, 0);
}

#[test]
fn r12_a_process_goes_on_when_all_above_4_gib_is_a_regions() {
    let test = "r12_a_process_goes_on_when_all_above_4_gib_is_a_regions";
    isolate::isolated!(test, || {
        if skip_emulated("has mappings that the guest does not see") {
            return;
        }
        let core = CoreFile::prepare();
        let region = above_4_gib();
        threads_land_below();
        a_library_lands_below();
        a_big_stack_lies_above(&region);
        use_and_free(&region);
        // What was written and freed is in no core file, nor are the addresses.
        if let Some(len) = core.and_then(CoreFile::len_bytes) {
            assert!(len < 64 << 20, "{len} bytes of core file");
        }
    });
}
