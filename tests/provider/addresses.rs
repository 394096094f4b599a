//! Where the addresses of a process end, under limits and filters too, and who asks.

use crate::common::skip_emulated;
use core::{
    ptr::without_provenance_mut,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig},
    page::AddressRange,
    provider::{PageProvider, Place, ProcessMap, Request},
};
use hostmem_test_support::{
    isolate::{isolated, or_skip},
    seccomp::{answer_when, refuse_when},
};
use std::io;

const OS: OsProvider = OsProvider::new();

/// Tries to map a page exactly there; returns the errno of a refusal.
fn map_at(addr: usize) -> Result<(), i32> {
    let len = OS.page_size().bytes();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let at = without_provenance_mut(addr);
    // SAFETY: replaces nothing.
    let got = unsafe { libc::mmap(at, len, libc::PROT_NONE, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    assert_eq!(got.addr(), addr);
    // SAFETY: mapped just now.
    assert_eq!(unsafe { libc::munmap(got, len) }, 0);
    Ok(())
}

fn user() -> Option<AddressRange> {
    OS.address_space().user
}

/// The last page can be mapped, or is, and there is none behind it.
fn check_end() {
    let page = OS.page_size().bytes();
    let last = user().expect("the kernel tells").last();
    assert_eq!((last + 1) % page, 0);
    let last_page = last + 1 - page;
    assert!(matches!(map_at(last_page), Ok(()) | Err(libc::EEXIST)));
    assert_eq!(map_at(last + 1), Err(libc::ENOMEM), "nothing lies behind");
    let bits = usize::BITS - last.leading_zeros();
    assert_eq!(OS.probe_now().address_bits, Some(bits));
}

#[test]
fn the_end_is_that_of_the_kernel() {
    check_end();
}

#[test]
fn the_last_page_can_be_had() {
    let page = OS.page_size().bytes();
    let last = user().expect("the kernel tells").last();
    let place = Place::Exact(last + 1 - page);
    match OS.reserve(&Request::bytes(page).place(place)) {
        // SAFETY: reserved just now, and not used.
        Ok(range) => unsafe { OS.release(range) }.expect("a whole reservation can go"),
        Err(e) => assert_eq!(e.kind(), hostmem::provider::ErrorKind::Taken),
    }
}

/// Sets the limit of addresses that this process may have.
fn limit_addresses(bytes: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads one structure.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0);
}

#[test]
fn what_a_limit_refuses_is_not_the_end() {
    if skip_emulated("has no limit of addresses") {
        return;
    }
    isolated!("what_a_limit_refuses_is_not_the_end", || {
        limit_addresses(1);
        let (limited, bits) = (user(), OS.probe_now().address_bits);
        limit_addresses(libc::RLIM_INFINITY);
        assert_eq!((limited, bits), (None, None), "nothing can be found out");
        check_end();
    });
}

#[test]
fn what_a_filter_refuses_is_not_the_end() {
    isolated!("what_a_filter_refuses_is_not_the_end", || {
        let exact = u64::from(libc::MAP_FIXED_NOREPLACE.cast_unsigned());
        let filter = refuse_when(libc::SYS_mmap, 3, exact, exact, libc::EPERM);
        if or_skip(filter).is_some() {
            assert_eq!(user(), None);
        }
    });
}

/// Counts calls that ask for a place, and says that it is taken.
fn count(_: &[usize; 6]) -> isize {
    ASKED.fetch_add(1, Relaxed);
    -isize::try_from(libc::EEXIST).expect("a small number")
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn who_places_nothing_does_not_look_for_the_end() {
    isolated!("who_places_nothing_does_not_look_for_the_end", || {
        let exact = u64::from(libc::MAP_FIXED_NOREPLACE.cast_unsigned());
        if or_skip(answer_when(libc::SYS_mmap, 3, exact, exact, count)).is_none() {
            return;
        }
        let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, JitConfig::new());
        let jit = jit.expect("metadata can be reserved");
        let _span = jit.alloc(300).expect("there is memory");
        let range = OS.reserve(&Request::bytes(1 << 20).align(1 << 20));
        range.expect("there are addresses");
        assert_eq!(ASKED.load(Relaxed), 0);
        let _end = user();
        assert!(ASKED.load(Relaxed) > 0, "this asks");
    });
}

#[test]
fn the_end_is_found_in_few_calls_and_once() {
    /// Answers as a kernel with 56 bits and no last page: nothing is ever mapped.
    fn answer(arguments: &[usize; 6]) -> isize {
        ASKED.fetch_add(1, Relaxed);
        let page = OS.page_size().bytes();
        let exists = arguments[0] + arguments[1] <= (1 << 56) - page;
        let errno = if exists { libc::EEXIST } else { libc::ENOMEM };
        -isize::try_from(errno).expect("a small number")
    }
    isolated!("the_end_is_found_in_few_calls_and_once", || {
        let exact = u64::from(libc::MAP_FIXED_NOREPLACE.cast_unsigned());
        if or_skip(answer_when(libc::SYS_mmap, 3, exact, exact, answer)).is_none() {
            return;
        }
        let end = (1 << 56) - OS.page_size().bytes();
        assert_eq!(user(), AddressRange::new(0, end - 1));
        let asked = ASKED.load(Relaxed);
        assert!(asked <= 12, "{asked} calls");
        assert_eq!(user(), AddressRange::new(0, end - 1));
        assert_eq!(ASKED.load(Relaxed), asked, "it is remembered");
        assert_eq!(OS.probe_now().address_bits, Some(56));
    });
}
