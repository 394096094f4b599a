//! Memory that is writable and executable is found, however it came to be.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/traced.rs"]
mod traced;

use core::ptr;

use common::{Map, PAGE, RW, RWX, RX, memfd};
use hostmem_test_support::trace::{Exposure, Plan, gained_exec, writable_and_executable};
use traced::traced;

/// Both findings for the body of a test: at once, and in turn.
fn audit(test_name: &str, body: impl FnOnce()) -> Option<[Vec<Exposure>; 2]> {
    let report = traced(test_name, Plan::new(), body)?;
    Some([
        writable_and_executable(&report.events),
        gained_exec(&report.events),
    ])
}

/// The calls and the pages of findings.
fn brief(exposures: &[Exposure]) -> Vec<(&str, u64)> {
    let page = PAGE as u64;
    exposures
        .iter()
        .map(|e| (e.call, (e.end - e.start) / page))
        .collect()
}

fn anonymous(pages: usize, prot: i32) -> Map {
    Map::anonymous(pages * PAGE, prot).expect("memory is left")
}

fn protect(map: Map, prot: i32) {
    map.protect(prot).expect("rights can be changed");
}

/// Returns a part of a mapping.
fn part(map: Map, first: usize, pages: usize) -> Map {
    Map {
        start: map.start.wrapping_add(first * PAGE),
        len: pages * PAGE,
    }
}

#[test]
fn an_ordinary_program_exposes_nothing() {
    let found = audit("an_ordinary_program_exposes_nothing", || {
        let file = memfd(0).expect("memfd_create works");
        file.set_len(4096).expect("a page fits");
        // Two views are the way to do without.
        Map::of_file(&file, PAGE, RW).expect("it can be mapped");
        Map::of_file(&file, PAGE, RX).expect("it can be mapped");
        protect(anonymous(1, RX), RW);
        protect(anonymous(1, libc::PROT_NONE), RX);
        std::thread::spawn(|| ()).join().expect("no panic");
    });
    assert_eq!(found.unwrap_or_default(), [vec![], vec![]]);
}

#[test]
fn a_mapping_made_writable_and_executable_is_found() {
    let found = audit("a_mapping_made_writable_and_executable_is_found", || {
        anonymous(3, RWX);
    });
    let Some([both, gained]) = found else { return };
    assert_eq!((brief(&both), brief(&gained)), (vec![("mmap", 3)], vec![]));
}

#[test]
fn an_attempt_that_failed_is_none() {
    let found = audit("an_attempt_that_failed_is_none", || {
        hostmem_test_support::harden::set_mdwe().expect("the host has MDWE");
        assert!(Map::anonymous(PAGE, RWX).is_err());
        assert!(anonymous(1, RW).protect(RX).is_err());
        assert!(anonymous(1, RW).protect(RWX).is_err());
    });
    assert_eq!(found.unwrap_or_default(), [vec![], vec![]]);
}

#[test]
fn rights_gained_later_are_found() {
    let found = audit("rights_gained_later_are_found", || {
        protect(anonymous(2, RW), RX);
        let map = anonymous(5, RX);
        protect(part(map, 1, 2), RWX);
        protect(part(map, 1, 2), libc::PROT_READ);
        // Only the two pages in the middle ever were writable.
        protect(map, RX);
    });
    let Some([both, gained]) = found else { return };
    assert_eq!(brief(&both), [("mprotect", 2)]);
    assert_eq!(brief(&gained), [("mprotect", 2), ("mprotect", 2)]);
}

#[test]
fn a_protection_that_fails_half_way_is_found() {
    let found = audit("a_protection_that_fails_half_way_is_found", || {
        let map = anonymous(3, RW);
        part(map, 1, 1).unmap();
        let failed = map.protect(RWX).map_err(|e| e.raw_os_error());
        assert_eq!(failed, Err(Some(libc::ENOMEM)));
    });
    let Some([both, gained]) = found else { return };
    assert_eq!(
        (brief(&both), brief(&gained)),
        (vec![("mprotect", 1)], vec![("mprotect", 1)])
    );
}

#[test]
fn history_survives_moving() {
    let found = audit("history_survives_moving", || {
        let map = anonymous(2, RW);
        let len = 4 * PAGE;
        // SAFETY: the range is a mapping of this test, which uses it no more.
        let moved = unsafe { libc::mremap(map.start.cast(), map.len, len, libc::MREMAP_MAYMOVE) };
        assert_ne!(moved, libc::MAP_FAILED);
        protect(
            Map {
                start: moved.cast(),
                len,
            },
            RX,
        );
    });
    let Some([both, gained]) = found else { return };
    assert_eq!(both, []);
    assert_eq!(
        gained.iter().map(|e| e.end - e.start).sum::<u64>(),
        4 * PAGE as u64
    );
}

#[test]
fn a_new_mapping_has_no_history() {
    let found = audit("a_new_mapping_has_no_history", || {
        let map = anonymous(2, RW);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let (start, len) = (map.start.cast(), map.len);
        // SAFETY: the range is a mapping of this test, to which no reference exists.
        let again = unsafe { libc::mmap(start, len, libc::PROT_READ, flags, -1, 0) };
        assert_eq!(again, start);
        protect(map, RX);
    });
    assert_eq!(found.unwrap_or_default(), [vec![], vec![]]);
}

#[test]
fn a_child_inherits_history() {
    let found = audit("a_child_inherits_history", || {
        let map = anonymous(1, RW);
        // SAFETY: the child makes two system calls.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(map.protect(RX).is_err());
            // SAFETY: _exit has no precondition.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        // SAFETY: `status` is a live, writable int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    });
    let Some([both, gained]) = found else { return };
    assert_eq!(
        (brief(&both), brief(&gained)),
        (vec![], vec![("mprotect", 1)])
    );
}

#[test]
fn memory_of_unknown_history_counts_as_writable() {
    let found = audit("memory_of_unknown_history_counts_as_writable", || {
        // SAFETY: with 0 it moves nothing.
        let top = unsafe { libc::sbrk(0) };
        let start = top.wrapping_byte_add(top.addr().wrapping_neg() % PAGE);
        // SAFETY: the break grows; the allocator copes with a break moved by others.
        unsafe { libc::sbrk(0x40_0000) };
        protect(
            part(
                Map {
                    start: start.cast(),
                    len: 0,
                },
                512,
                1,
            ),
            RX,
        );
    });
    let Some([both, gained]) = found else { return };
    assert_eq!(
        (brief(&both), brief(&gained)),
        (vec![], vec![("mprotect", 1)])
    );
}

#[test]
fn shared_memory_attached_executable_is_found() {
    let found = audit("shared_memory_attached_executable_is_found", || {
        // SAFETY: a new segment concerns no memory.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 2 * PAGE, libc::IPC_CREAT | 0o700) };
        let attach = |flags| {
            // SAFETY: it is attached at an address of the kernel's choice.
            let start = unsafe { libc::shmat(id, ptr::null(), flags) };
            assert_ne!(start.addr(), usize::MAX);
        };
        attach(0);
        attach(libc::SHM_EXEC | libc::SHM_RDONLY);
        attach(libc::SHM_EXEC);
        // SAFETY: the segment goes when the process ends; the command takes no buffer.
        unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    });
    let Some([both, gained]) = found else { return };
    assert_eq!((brief(&both), brief(&gained)), (vec![("shmat", 2)], vec![]));
}

#[test]
fn what_is_readable_is_executable_under_that_personality() {
    let found = audit(
        "what_is_readable_is_executable_under_that_personality",
        || {
            anonymous(1, RW);
            let flag = libc::c_ulong::from(libc::READ_IMPLIES_EXEC.cast_unsigned());
            // SAFETY: personality takes no pointer; what is mapped later gets more rights, not
            // fewer.
            assert_eq!(unsafe { libc::personality(flag) }, 0);
            let map = anonymous(7, RW);
            let found = hostmem_test_support::maps::find(map.start.addr())
                .ok()
                .flatten();
            assert!(
                found.is_some_and(|mapping| mapping.perms.execute),
                "the kernel does it"
            );
        },
    );
    let Some([both, _]) = found else { return };
    assert!(brief(&both).contains(&("mmap", 7)), "{both:?}");
    assert!(!brief(&both).contains(&("mmap", 1)), "{both:?}");
}
