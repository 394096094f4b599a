//! Refused system calls fail with the errno asked for, in every thread, and others still work.
#![cfg(target_os = "linux")]

mod common;

use std::sync::mpsc;
use std::thread;

use common::{Map, PAGE, RW, RWX, RX, errno, memfd};
use hostmem_test_support::isolate::{isolated, or_skip};
use hostmem_test_support::seccomp::{refuse, refuse_when};

/// Refuses `memfd_create` with `code` and checks that it is, in a thread older than the filter too.
fn memfd_fails_with(code: i32) {
    assert!(memfd(0).is_ok(), "memfd_create works before");
    let (go, wait) = mpsc::channel::<()>();
    let older = thread::spawn(move || {
        wait.recv().expect("the test sends");
        errno(memfd(0))
    });
    if or_skip(refuse(&[libc::SYS_memfd_create], code)).is_none() {
        return;
    }
    assert_eq!(errno(memfd(0)), Some(code));
    go.send(()).expect("the thread receives");
    assert_eq!(older.join().ok(), Some(Some(code)));
    assert!(Map::anonymous(PAGE, RW).is_ok(), "other calls still work");
}

#[test]
fn memfd_create_refused_with_enosys() {
    isolated("memfd_create_refused_with_enosys", || {
        memfd_fails_with(libc::ENOSYS)
    });
}

#[test]
fn memfd_create_refused_with_eperm() {
    isolated("memfd_create_refused_with_eperm", || {
        memfd_fails_with(libc::EPERM)
    });
}

#[test]
fn memfd_create_refused_with_eacces() {
    isolated("memfd_create_refused_with_eacces", || {
        memfd_fails_with(libc::EACCES)
    });
}

#[test]
fn only_the_matching_argument_is_refused() {
    isolated("only_the_matching_argument_is_refused", || {
        let exec = u64::from(libc::PROT_EXEC.cast_unsigned());
        let both = exec | u64::from(libc::PROT_WRITE.cast_unsigned());
        if or_skip(refuse_when(libc::SYS_mmap, 2, both, both, libc::EPERM)).is_none() {
            return;
        }
        assert_eq!(errno(Map::anonymous(PAGE, RWX)), Some(libc::EPERM));
        let page = Map::anonymous(PAGE, RX).expect("executable alone is permitted");
        // A second filter adds to the first.
        refuse_when(libc::SYS_mprotect, 2, exec, exec, libc::ENOMEM).expect("the first worked");
        assert_eq!(errno(page.protect(RX)), Some(libc::ENOMEM));
        page.protect(RW).expect("writable alone is permitted");
        assert_eq!(errno(Map::anonymous(PAGE, RWX)), Some(libc::EPERM));
    });
}

#[test]
#[should_panic(expected = "1..=4095")]
fn zero_is_no_errno() {
    let _ = refuse(&[libc::SYS_memfd_create], 0);
}
