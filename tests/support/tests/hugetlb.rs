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

/// Reads a size in kB, or a number, of `/proc/meminfo`.
fn meminfo(name: &str) -> usize {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name))
        .expect("the field exists");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("it is a number")
}

/// Holds several tests in one, since each changes what the others would see between their calls.
#[test]
fn the_pool_has_the_pages_inside_and_its_former_number_outside() {
    let before = meminfo("HugePages_Total");
    let size = meminfo("Hugepagesize") * 1024;
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
    assert_eq!(meminfo("HugePages_Total"), before);

    let none = with_huge_pages(0, |given| {
        assert_eq!(given, 0);
        errno(Map::new(size, RW, HUGE, -1))
    });
    assert_eq!(none, Ok(Some(libc::ENOMEM)));

    let panicked = catch_unwind(|| with_huge_pages(2, |_| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(meminfo("HugePages_Total"), before, "restored after a panic");

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
    assert_eq!(meminfo("HugePages_Total"), before);
}
