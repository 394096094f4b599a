//! Huge pages are there for the closure and gone afterwards.
#![cfg(target_os = "linux")]

mod common;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs;
use std::panic::catch_unwind;
use std::thread;

use common::{Map, PAGE, RW, errno};
use hostmem_test_support::hugetlb::with_huge_pages;
use hostmem_test_support::isolate::or_skip;
use hostmem_test_support::maps::kernel_page_size;

const HUGE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;

/// Reads the number of pages that the pool shall have. (What other processes hold of a former,
/// larger pool is counted in `/proc/meminfo` alone.)
fn pool() -> usize {
    let text = fs::read_to_string("/proc/sys/vm/nr_hugepages").expect("/proc is mounted");
    text.trim().parse().expect("it is a number")
}

/// Reads the default size of huge pages, in bytes.
fn page_size() -> usize {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))
        .expect("the field exists");
    let kib = line.split_whitespace().next();
    1024 * kib.and_then(|n| n.parse::<usize>().ok()).expect("a number")
}

/// Holds several tests in one, since each changes what the others would see between their calls.
#[test]
fn the_pool_has_the_pages_inside_and_its_former_number_outside() {
    let before = pool();
    let size = page_size();
    let got = with_huge_pages(4, |given| {
        assert!((1..=4).contains(&given), "{given}");
        let map = Map::new(size, RW, HUGE, -1).expect("a page is free");
        map.write(1);
        assert_eq!(kernel_page_size(map.start.addr()).ok(), Some(Some(size)));
        map.unmap();
        let small = Map::anonymous(PAGE, RW).expect("memory is left");
        assert_eq!(kernel_page_size(small.start.addr()).ok(), Some(Some(PAGE)));
    });
    if or_skip(got).is_none() {
        return;
    }
    assert_eq!(pool(), before);

    let none = with_huge_pages(0, |given| {
        assert_eq!(given, 0);
        errno(Map::new(size, RW, HUGE, -1))
    });
    assert_eq!(none, Ok(Some(libc::ENOMEM)));

    let panicked = catch_unwind(|| with_huge_pages(2, |_| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(pool(), before, "restored after a panic");

    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                with_huge_pages(1, |_| {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            });
        }
    });
    assert_eq!(pool(), before);
}
