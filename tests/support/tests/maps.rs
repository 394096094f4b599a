//! The tables of `/proc` are read as they stand.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;

use common::{Map, PAGE, RW, memfd};
use hostmem_test_support::isolate::isolated;
use hostmem_test_support::maps::{self, Perms};

#[test]
fn every_field_is_parsed() {
    let text = "7f00-8f00 rw-s 00001000 fd:01 42      /a b (deleted)\n\
                ffff0000-ffff1000 --xp 00000000 00:00 0\n";
    let [first, second] = &maps::parse(text).expect("it is well formed")[..] else {
        panic!("two lines")
    };
    assert_eq!((first.start, first.end), (0x7f00, 0x8f00));
    assert_eq!(
        first.perms,
        Perms {
            read: true,
            write: true,
            execute: false,
            shared: true
        }
    );
    assert_eq!((first.offset, first.inode), (0x1000, 42));
    assert_eq!(
        (first.device.as_str(), first.path.as_str()),
        ("fd:01", "/a b (deleted)")
    );
    assert_eq!(
        second.perms,
        Perms {
            execute: true,
            ..Perms::default()
        }
    );
    assert_eq!(second.path, "");
    assert!(first.contains(0x7f00) && !first.contains(0x8f00));
    assert!(first.overlaps(0x8eff, 0x9000) && !first.overlaps(0x8f00, 0x9000));
}

#[test]
fn malformed_text_is_refused() {
    for text in [
        "nonsense",
        "1-2 rw 0 0:0 0",
        "1 rw-p 0 0:0 0",
        "1-2 rw-p x 0:0 0",
    ] {
        assert_eq!(maps::parse(text), None, "{text}");
    }
}

#[test]
fn a_mapping_appears_and_goes() {
    let map = Map::anonymous(3 * PAGE, RW).expect("memory is left");
    let address = map.start.addr();
    let found = maps::find(address)
        .expect("/proc is mounted")
        .expect("it is mapped");
    assert!(found.contains(address + 3 * PAGE - 1));
    assert_eq!(
        found.perms,
        Perms {
            read: true,
            write: true,
            ..Perms::default()
        }
    );
    let pid = i32::try_from(std::process::id()).expect("a pid is an int");
    assert!(
        maps::of(pid)
            .expect("the process lives")
            .iter()
            .any(|m| m.contains(address))
    );
    assert_eq!(maps::kernel_page_size(address).ok(), Some(Some(PAGE)));
    assert_eq!(maps::smaps_field(address, "Rss").ok(), Some(Some(0)));
    assert_eq!(maps::smaps_field(address, "NoSuchField").ok(), Some(None));
    assert_eq!(
        maps::kernel_page_size(0).ok(),
        Some(None),
        "page zero is not mapped"
    );
}

#[test]
fn two_views_share_an_inode() {
    let file = memfd(0).expect("memfd_create works");
    file.set_len(4096).expect("a page fits");
    let views = [0, 1].map(|_| Map::of_file(&file, PAGE, RW).expect("it can be mapped"));
    let [a, b] = views.map(|v| maps::find(v.start.addr()).ok().flatten().expect("mapped"));
    assert_eq!((a.inode, &a.device, &a.path), (b.inode, &b.device, &b.path));
    assert!(a.path.starts_with("/memfd:test"), "{}", a.path);
}

#[test]
fn descriptors_are_counted_with_their_flags() {
    // Isolated: other tests of this binary open files at the same time.
    isolated("descriptors_are_counted_with_their_flags", || {
        let before = maps::count_fds().expect("/proc is mounted");
        assert_eq!(
            maps::count_fds().ok(),
            Some(before),
            "counting leaves none open"
        );
        let file = File::open("/dev/null").expect("it exists");
        let bare = memfd(0).expect("memfd_create works");
        let fds = maps::open_fds().expect("/proc is mounted");
        assert_eq!(fds.len(), before + 2);
        let of = |f: &File| {
            fds.iter()
                .find(|fd| fd.number == f.as_raw_fd())
                .expect("it is open")
        };
        assert!(of(&file).cloexec);
        assert_eq!(of(&file).target.to_str(), Some("/dev/null"));
        assert!(!of(&bare).cloexec);
        drop((file, bare));
        assert_eq!(maps::count_fds().ok(), Some(before));
    });
}
