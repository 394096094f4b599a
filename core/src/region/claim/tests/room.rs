//! Room that is left: for stacks, for others, by request.

extern crate std;
use super::super::*;
use super::host::*;
use crate::provider::{MapFlags, Request};
use std::{vec, vec::Vec};

#[test]
fn room_is_left_below_what_grows() {
    let stack = 0x7fff_0000_0000;
    let grows = MapFlags::READ | MapFlags::WRITE | MapFlags::GROWS;
    let host = |limit| {
        let mut host = Host::new(47, PageSize::KIB_4)
            .with(stack - 0x2_1000, stack, grows)
            .mapped(stack - 64 * (1 << 20), stack - 63 * (1 << 20));
        host.space.stack_limit = limit;
        host
    };
    let ends = |host: &Host, request: &ClaimRequest| {
        let (got, report) = check(host, request);
        (
            got.iter()
                .map(|&(start, end, _)| (start, end))
                .collect::<Vec<_>>(),
            report.stack_room,
        )
    };
    let above = above();
    let room = 128 << 20;
    for limit in [None, Some(0), Some(8 << 20)] {
        let expected = vec![(4 * GIB, stack - room), (stack, 1 << 47)];
        assert_eq!(ends(&host(limit), &above), (expected, room), "{limit:?}");
    }
    // More than the default, and the gap that the host keeps below.
    let (got, room) = ends(&host(Some(GIB)), &above);
    assert_eq!(room, GIB + (1 << 20));
    assert_eq!(got[0].1, stack - room);
    assert_eq!(ends(&host(Some(usize::MAX)), &above).1, GIB, "no limit");
    assert_eq!(
        ends(&host(Some(1 << 46)), &above).1,
        (1 << 44) - 1,
        "an eighth at most"
    );
    // As the caller says: the mapping below is in the way of more than that.
    let (got, _) = ends(&host(None), &above.stack_room(32 << 20));
    let mib = 1 << 20;
    assert_eq!(
        got,
        [
            (4 * GIB, stack - 64 * mib),
            (stack - 63 * mib, stack - 32 * mib),
            (stack, 1 << 47)
        ]
    );
    for none in [0, 4096] {
        let (got, _) = ends(&host(None), &above.stack_room(none));
        assert_eq!(got[1].1, stack - 0x2_1000, "it is longer than that already");
    }
}

#[test]
fn of_many_that_grow_more_is_left_rather_than_less() {
    let grows = MapFlags::READ | MapFlags::GROWS;
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=9 {
        host = host.with(n * 100 * GIB, n * 100 * GIB + 4096, grows);
    }
    let (got, _) = check(&host, &above().stack_room(GIB));
    for n in 1..=9 {
        let room = n * 100 * GIB + 4096 - GIB..n * 100 * GIB;
        let free =
            |&(start, end, _): &(usize, usize, Purpose)| end <= room.start || room.end <= start;
        assert!(got.iter().all(free), "{n}: {got:x?}");
    }
    assert_eq!(got.len(), 8, "what lies between the last three is left too");
}

#[test]
fn what_is_to_be_left_is_left() {
    let host = Host::new(47, PageSize::KIB_4).mapped(16 * GIB, 17 * GIB);
    let request = above().leave(span(10 * GIB, 20 * GIB));
    let (got, _) = check(&host, &request);
    let both = [
        (4 * GIB, 10 * GIB, Purpose::Usable),
        (20 * GIB, 1 << 47, Purpose::Usable),
    ];
    assert_eq!(got, both);
    let (got, report) = check(&host, &above().leave(AddressRange::ALL));
    assert!(got.is_empty());
    assert_eq!(report.missed, Tally::default());
}

#[test]
fn where_the_host_looks_above_only_room_is_left_there() {
    let base = 0x2aaa_aaaa_0000;
    for (bytes, room) in [(4 * GIB, 4 * GIB), (1 << 20, 1 << 20), (0, 0)] {
        let mut host = Host::new(47, PageSize::KIB_64)
            .mapped(0x40_0000, 0x50_0000)
            .mapped(base, base + 0x10_0000)
            .mapped(base + 0x20_0000, base + 0x30_0000);
        host.layout = Layout::BottomUp(base);
        let mut slots = slots();
        let request = above().others_room(bytes);
        let mut claim = claim(&host, &request, &mut slots).expect("valid");
        let page = Request::bytes(1);
        if room == 0 {
            let error = Error::os(ErrorKind::Exhausted, 12);
            assert_eq!(claim.report().others, Others::Nowhere(error));
            assert_eq!(host.reserve(&page).map_err(Error::kind), Err(error.kind()));
            continue;
        }
        let Others::Room(left) = claim.report().others else {
            panic!("{:?}", claim.report());
        };
        assert_eq!(left.last() - left.start() + 1, room);
        assert!(claim.report().is_complete(), "{:?}", claim.report());
        for _ in 0..2 {
            let theirs = host.reserve(&page).expect("there is room");
            assert!(left.contains(theirs.addr()));
            assert_eq!(claim.renew().others, Others::Room(left), "it stays theirs");
        }
    }
    // Not in the room of a stack, where that is all that is free above.
    let grows = MapFlags::READ | MapFlags::GROWS;
    let mut host = Host::new(47, PageSize::KIB_4).with(0x7f00_0000_0000, 0x7f00_0010_0000, grows);
    host.layout = Layout::BottomUp(base);
    let (_, report) = check(&host, &above());
    let room = span(base, base + 4 * GIB);
    assert_eq!(report.others, Others::Room(room));
    // Where it is a limit, nothing is left.
    let mut host = Host::new(47, PageSize::KIB_4);
    (host.layout, host.limit) = (Layout::BottomUp(base), 16 * GIB);
    let mut slots = slots();
    let claim = claim(&host, &above().spare(0), &mut slots).expect("valid");
    assert!(matches!(claim.report().others, Others::Nowhere(_)));
    assert_eq!(claim.tally(Purpose::Usable).bytes, 16 * GIB);
    // Others land elsewhere by themselves.
    let host = Host::new(47, PageSize::KIB_4);
    let (_, report) = check(&host, &above());
    assert_eq!(report.others, Others::Outside);
}
