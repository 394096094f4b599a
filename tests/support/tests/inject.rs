//! A refused call does not happen, and its caller sees the errno.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/traced.rs"]
mod traced;

use std::thread;

use common::{Map, PAGE, RW, errno, memfd};
use hostmem_test_support::maps;
use hostmem_test_support::trace::{Injection, Plan};
use traced::traced;

/// A length that nothing but these tests maps.
const MARK: usize = 1237 * PAGE;

/// Refuses the nth mmap of MARK bytes.
fn at(nth: u64, errno: i32) -> Injection {
    Injection::at(nth, libc::SYS_mmap, errno).when(|args| args[1] == MARK as u64)
}

fn map() -> Option<i32> {
    errno(Map::anonymous(MARK, RW))
}

#[test]
fn the_second_mmap_of_a_length_fails() {
    let plan = Plan::new().inject(at(2, libc::ENOMEM));
    let report = traced("the_second_mmap_of_a_length_fails", plan, || {
        assert_eq!([map(), map(), map()], [None, Some(libc::ENOMEM), None]);
    });
    let Some(report) = report else { return };
    let calls = report
        .calls_of(libc::SYS_mmap)
        .filter(|call| call.args[1] == MARK as u64);
    let seen: Vec<_> = calls.map(|call| (call.injected, call.errno())).collect();
    assert_eq!(
        seen,
        [(false, None), (true, Some(libc::ENOMEM)), (false, None)]
    );
}

#[test]
fn a_refused_call_does_not_happen() {
    let plan = Plan::new()
        .inject(
            Injection::at(1, libc::SYS_munmap, libc::EINVAL).when(|args| args[1] == MARK as u64),
        )
        .inject(Injection::at(1, libc::SYS_ftruncate, libc::ENOSPC));
    let report = traced("a_refused_call_does_not_happen", plan, || {
        let map = Map::anonymous(MARK, RW).expect("memory is left");
        let is_mapped = || maps::find(map.start.addr()).is_ok_and(|mapping| mapping.is_some());
        map.write(7);
        map.unmap();
        assert!(is_mapped());
        assert_eq!(map.read(), 7);
        map.unmap();
        assert!(!is_mapped());
        let file = memfd(0).expect("memfd_create works");
        assert_eq!(errno(file.set_len(4096)), Some(libc::ENOSPC));
        assert_eq!(file.metadata().map(|metadata| metadata.len()).ok(), Some(0));
        assert!(file.set_len(4096).is_ok());
    });
    let Some(report) = report else { return };
    assert_eq!(report.calls().filter(|call| call.injected).count(), 2);
    assert_eq!(
        report.calls_of(libc::SYS_ftruncate).count(),
        2,
        "an injected call is recorded"
    );
}

#[test]
fn calls_are_counted_over_all_threads() {
    let plan = Plan::new().inject(at(5, libc::EAGAIN));
    let report = traced("calls_are_counted_over_all_threads", plan, || {
        let results: Vec<_> = (0..8).map(|_| thread::spawn(map)).collect();
        let results = results
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        assert_eq!(results.flatten().collect::<Vec<_>>(), [libc::EAGAIN]);
    });
    assert!(report.is_none_or(|report| report.calls().filter(|call| call.injected).count() == 1));
}

#[test]
fn every_position_can_fail() {
    let name = "every_position_can_fail";
    for nth in 1..=3 {
        let plan = Plan::new().inject(at(nth, libc::ENOMEM));
        let report = traced(name, plan, || {
            let failed: Vec<_> = (1..=3).filter(|_| map().is_some()).collect();
            assert_eq!(failed.len(), 1);
        });
        let Some(report) = report else { return };
        let calls = report
            .calls_of(libc::SYS_mmap)
            .filter(|call| call.args[1] == MARK as u64);
        assert_eq!(
            calls.map(|call| call.injected).position(|i| i),
            usize::try_from(nth - 1).ok()
        );
    }
}

#[test]
#[should_panic(expected = "counted from 1")]
fn there_is_no_call_number_zero() {
    let _ = Injection::at(0, libc::SYS_mmap, libc::ENOMEM);
}
