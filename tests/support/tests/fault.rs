//! Faults are reported with their signal and address, and leave the process as it was.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::panic::catch_unwind;
use std::thread;

use common::{Map, PAGE, RW, RX, memfd};
use hostmem_test_support::fault::{Fault, Signal, faults, faults_in_fork};

fn segv(map: Map) -> Option<Fault> {
    Some(Fault {
        signal: Signal::Segv,
        address: map.start.addr(),
    })
}

#[test]
fn what_the_rights_forbid_faults() {
    let rx = Map::anonymous(PAGE, RX).expect("memory is left");
    let rw = Map::anonymous(PAGE, RW).expect("memory is left");
    let none = Map::anonymous(PAGE, libc::PROT_NONE).expect("memory is left");
    let twice = |access: &dyn Fn()| {
        let here = faults(access);
        assert_eq!(here, faults_in_fork(access));
        here
    };
    assert_eq!(twice(&|| rx.write(1)), segv(rx));
    assert_eq!(twice(&|| rw.call()), segv(rw));
    assert_eq!(twice(&|| none.write(1)), segv(none));
    assert_eq!(twice(&|| assert_eq!(none.read(), 0)), segv(none));
    assert_eq!(twice(&|| assert_eq!(rx.read(), 0)), None);
    assert_eq!(twice(&|| rw.write(1)), None);
}

#[test]
fn nothing_behind_a_mapping_is_a_bus_error() {
    let file: File = memfd(0).expect("memfd_create works");
    let map = Map::of_file(&file, PAGE, RW).expect("beyond the end can be mapped");
    let expected = Some(Fault {
        signal: Signal::Bus,
        address: map.start.addr(),
    });
    assert_eq!(faults(|| map.write(1)), expected);
    assert_eq!(faults_in_fork(|| map.write(1)), expected);
}

#[test]
fn only_the_fork_writes_to_a_copy() {
    let map = Map::anonymous(PAGE, RW).expect("memory is left");
    assert_eq!(faults_in_fork(|| map.write(1)), None);
    assert_eq!(map.read(), 0);
    assert_eq!(faults(|| map.write(2)), None);
    assert_eq!(map.read(), 2);
}

#[test]
fn what_forks_do_not_inherit_is_seen() {
    let map = Map::anonymous(PAGE, RW).expect("memory is left");
    map.advise(libc::MADV_DONTFORK);
    assert_eq!(
        faults_in_fork(|| map.write(1)),
        segv(map),
        "the copy lacks it"
    );
    assert_eq!(faults(|| map.write(1)), None);
}

#[test]
fn threads_do_not_disturb_each_other() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let map = Map::anonymous(PAGE, RX).expect("memory is left");
                for _ in 0..50 {
                    assert_eq!(faults(|| map.write(1)), segv(map));
                    assert_eq!(faults_in_fork(|| map.write(1)), segv(map));
                }
            });
        }
    });
}

#[test]
fn a_panic_in_the_closure_is_no_fault() {
    assert!(catch_unwind(|| faults(|| panic!("on purpose"))).is_err());
    assert!(catch_unwind(|| faults_in_fork(|| panic!("on purpose"))).is_err());
    assert_eq!(faults(|| ()), None, "and the next call works");
}
