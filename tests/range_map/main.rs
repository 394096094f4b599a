//! The range map through its public face: edges of the address space, arguments, memory that runs
//! out, and a signal handler.
#![cfg(all(
    target_os = "linux",
    feature = "linux",
    feature = "sim",
    target_pointer_width = "64"
))]

mod changes;
#[cfg(all(target_os = "linux", feature = "linux"))]
#[path = "../common/mod.rs"]
mod common;
mod signals;

use hostmem::{
    OsProvider,
    page::{AddressRange, PageSize},
    provider::ErrorKind,
    range_map::{GapOrder, GapRequest, RangeMap, Value},
    sim::{Calls, Faulty, Policy, Sim},
};

const PAGE: usize = 0x1000;
type Map<T> = RangeMap<T, OsProvider>;

fn map_of<T: Value>(bounds: AddressRange) -> Map<T> {
    RangeMap::on(OsProvider::new(), bounds, PageSize::KIB_4, 64 << 20).expect("made")
}

/// The addresses from `start` up to `end`.
fn from_to(start: usize, end: usize) -> AddressRange {
    AddressRange::new(start, end - 1).expect("not empty")
}

fn pages(start: usize, count: usize) -> AddressRange {
    AddressRange::from_len(start, count * PAGE).expect("in the address space")
}

/// R1.
#[test]
fn gaps_of_a_window_are_cut_off_at_its_ends() {
    let map = map_of::<u8>(AddressRange::LOW_4G);
    map.insert_new(pages(0x10_0000, 2), 1).expect("free");
    let window = from_to(0xf_f000, 0x10_3000);
    let gaps: Vec<_> = map.gaps(window).collect();
    assert_eq!(
        gaps,
        [from_to(0xf_f000, 0x10_0000), from_to(0x10_2000, 0x10_3000)]
    );
    assert_eq!(map.gaps(pages(0x10_0000, 2)).count(), 0);
    assert_eq!(map.largest_gap(pages(0x10_1000, 1)), None);
    let ranges: Vec<_> = map.ranges(window).collect();
    assert_eq!(ranges, [(pages(0x10_0000, 2), 1)]);
    assert_eq!(map.ranges(from_to(0x10_1fff, 0x10_2000)).count(), 1);
    assert_eq!(map.ranges(from_to(0x10_2000, 0x10_3000)).count(), 0);
    // Pages that a window has in part are no gaps of it.
    let gaps: Vec<_> = map.gaps(from_to(0xf_e001, 0x10_3fff)).collect();
    assert_eq!(
        gaps,
        [from_to(0xf_f000, 0x10_0000), from_to(0x10_2000, 0x10_3000)]
    );
}

/// R2, as far as it is about the map.
#[test]
fn a_page_replaced_many_times_stays_one_page() {
    let map = map_of::<u32>(AddressRange::LOW_4G);
    let page = pages(0x5000, 1);
    map.insert_new(page, 0).expect("free");
    let before = map.statistics();
    for n in 1..=32_768 {
        assert_eq!(map.insert(page, n), Ok(1));
        assert_eq!(map.query(0x5abc), Some((page, n)));
    }
    let after = map.statistics();
    assert_eq!((after.ranges, after.pages), (1, 1));
    assert_eq!(after.nodes, before.nodes);
    assert!(after.metadata_bytes <= before.metadata_bytes);
}

/// R7.
#[test]
fn pages_above_two_to_the_32_are_others_than_those_below() {
    let base = 1 << 46;
    let map = map_of::<u8>(pages(base, 1 << 33));
    let far = base + (PAGE << 32);
    for k in 0..300 {
        map.insert_new(pages(base + 2 * k * PAGE, 1), 1)
            .expect("free");
        map.insert_new(pages(far + 2 * k * PAGE, 1), 2)
            .expect("free");
    }
    for k in 0..300 {
        assert_eq!(map.remove(pages(base + 2 * k * PAGE, 1)), Ok(1));
        let page = pages(far + 2 * k * PAGE, 1);
        assert_eq!(map.query(page.start()), Some((page, 2)));
    }
    assert_eq!(map.statistics().ranges, 300);
    // A range longer than that, and one gap.
    assert_eq!(map.insert(pages(base, (1 << 32) + 100), 3), Ok(50));
    assert_eq!(
        map.query(far),
        Some((pages(base, (1 << 32) + 100), 3)),
        "one range, however long"
    );
    assert_eq!(map.remove(pages(base + PAGE, 1 << 32)), Ok(1 << 32));
    assert_eq!(map.query(base), Some((pages(base, 1), 3)));
    assert_eq!(map.query(far + 99 * PAGE), Some((pages(far + PAGE, 99), 3)));
}

#[test]
fn the_last_page_of_the_address_space_is_a_page() {
    let map = map_of::<u16>(AddressRange::ALL);
    let last = AddressRange::new(usize::MAX - (PAGE - 1), usize::MAX).expect("a page");
    map.insert_new(last, 7).expect("free");
    map.insert_new(pages(0, 1), 8).expect("free");
    assert_eq!(map.query(usize::MAX), Some((last, 7)));
    assert_eq!(map.next_from(PAGE), Some((last, 7)));
    assert_eq!(map.query(0), Some((pages(0, 1), 8)));
    let gap = map.largest_gap(AddressRange::ALL);
    assert_eq!(gap, AddressRange::new(PAGE, last.start() - 1));
    let highest = map.find_gap(&GapRequest::bytes(PAGE).order(GapOrder::Highest));
    assert_eq!(highest, Ok(pages(last.start() - PAGE, 1)));
    assert_eq!(map.insert(AddressRange::ALL, 9), Ok(2));
    assert_eq!(map.query(12345), Some((AddressRange::ALL, 9)));
    assert_eq!(map.ranges(AddressRange::ALL).count(), 1);
    assert!(map.find_gap(&GapRequest::bytes(PAGE)).is_err());
    assert_eq!(map.remove(last), Ok(1));
    let only = map.find_gap(&GapRequest::bytes(PAGE).order(GapOrder::Nearest(0)));
    assert_eq!(only, Ok(last));
    assert_eq!(map.remove(AddressRange::ALL), Ok((1 << 52) - 1));
    assert_eq!(map.statistics().ranges, 0);
    assert_eq!(map.gaps(AddressRange::ALL).next(), Some(AddressRange::ALL));
}

#[test]
fn bad_arguments_have_errors_of_their_own_and_change_nothing() {
    let bounds = pages(0x10_0000, 16);
    let map = map_of::<u8>(bounds);
    map.insert_new(pages(0x10_4000, 2), 1).expect("free");
    let before = map.statistics();
    let kind = |range| map.insert(range, 2).map_err(|e| e.kind());
    assert_eq!(
        kind(from_to(0x10_0800, 0x10_2000)),
        Err(ErrorKind::InvalidArgument)
    );
    assert_eq!(
        kind(from_to(0x10_1000, 0x10_1fff)),
        Err(ErrorKind::InvalidArgument)
    );
    assert_eq!(kind(pages(0xf_f000, 2)), Err(ErrorKind::OutsideRange));
    assert_eq!(kind(pages(0x10_f000, 2)), Err(ErrorKind::OutsideRange));
    for (start, count) in [
        (0x10_3000, 2),
        (0x10_4000, 1),
        (0x10_5000, 3),
        (0x10_0000, 16),
    ] {
        let taken = map.insert_new(pages(start, count), 2);
        assert_eq!(taken.map_err(|e| e.kind()), Err(ErrorKind::Taken));
    }
    let find = |request: GapRequest| map.find_gap(&request).map_err(|e| e.kind());
    let ask = GapRequest::bytes;
    assert_eq!(find(ask(0)), Err(ErrorKind::InvalidArgument));
    assert_eq!(find(ask(100)), Err(ErrorKind::InvalidArgument));
    assert_eq!(
        find(ask(PAGE).aligned(3, 0)),
        Err(ErrorKind::InvalidArgument)
    );
    assert_eq!(
        find(ask(PAGE).aligned(2 * PAGE, 1)),
        Err(ErrorKind::InvalidArgument)
    );
    assert_eq!(find(ask(11 * PAGE)), Err(ErrorKind::Exhausted));
    assert_eq!(
        find(ask(PAGE).within(pages(0, 16))),
        Err(ErrorKind::Exhausted)
    );
    assert_eq!(find(ask(10 * PAGE)), Ok(pages(0x10_6000, 10)));
    let shifted = ask(2 * PAGE).aligned(8 * PAGE, PAGE);
    assert_eq!(find(shifted), Ok(pages(0x10_7000, 2)));
    assert_eq!(map.statistics(), before);
    assert_eq!(map.query(0x10_3fff), None);
    assert_eq!(map.query(0), None);
    let odd = RangeMap::<u8, _>::on(
        OsProvider::new(),
        from_to(0x800, 0x10_0000),
        PageSize::KIB_4,
        1 << 20,
    );
    assert_eq!(
        odd.map(drop).map_err(|e| e.kind()),
        Err(ErrorKind::InvalidArgument)
    );
}

#[test]
fn values_of_parts_change_and_equal_neighbours_become_one() {
    let map = map_of::<u8>(AddressRange::LOW_4G);
    map.insert(pages(0x1000, 4), 1).expect("inserted");
    map.insert(pages(0x5000, 4), 2).expect("inserted");
    assert_eq!(map.statistics().ranges, 2);
    assert_eq!(map.update(pages(0x3000, 4), |value| value + 1), Ok(4));
    let ranges: Vec<_> = map.ranges(AddressRange::ALL).collect();
    assert_eq!(
        ranges,
        [
            (pages(0x1000, 2), 1),
            (pages(0x3000, 2), 2),
            (pages(0x5000, 2), 3),
            (pages(0x7000, 2), 2),
        ]
    );
    assert_eq!(map.update(pages(0, 100), |_| 5), Ok(8));
    assert_eq!(map.query(0x4000), Some((pages(0x1000, 8), 5)));
    assert_eq!(map.statistics().ranges, 1);
}

#[test]
fn without_memory_nothing_changes_and_nothing_leaks() {
    let policy = Policy::new(PageSize::KIB_16).space(64 << 20);
    let sim = Sim::new(OsProvider::new(), policy).expect("mapped");
    let faulty = Faulty::new(&sim);
    {
        let map: RangeMap<u32, _> =
            RangeMap::on(&faulty, AddressRange::ALL, PageSize::KIB_4, 16 << 20).expect("made");
        faulty.only(Calls::COMMIT);
        let mut failures = 0;
        for n in 0..20_000_u32 {
            let place = (n as usize).wrapping_mul(0x9e37_79b9) % 100_000;
            let range = pages((4 * place + 1) * PAGE, 2);
            faulty.fail_randomly(0, 1);
            let before = map.statistics();
            if let Err(error) = map.insert(range, n) {
                assert_eq!(error.errno(), Some(12));
                assert_eq!(map.statistics(), before);
                assert!(map.query(range.start()).is_none_or(|(_, value)| value != n));
                failures += 1;
                faulty.fail_none();
                map.insert(range, n).expect("there is memory again");
            }
            assert_eq!(map.query(range.start()), Some((range, n)));
        }
        assert!(failures > 2, "{failures} failures");
    }
    assert_eq!(sim.take_misuse(), None);
    assert_eq!(sim.pages_in_use(), 0);
}

#[test]
fn values_may_have_64_bits_and_pages_one_byte() {
    let bounds = from_to(0, 1 << 47);
    let new = RangeMap::on(OsProvider::new(), bounds, PageSize::KIB_4, 16 << 20);
    let map: RangeMap<u64, _> = new.expect("made");
    for n in 0..10_000_usize {
        let value = (n as u64) << 40 | 5;
        map.insert_new(pages(n * 4 * PAGE, 3), value).expect("free");
    }
    for n in (0..10_000_usize).rev() {
        let value = (n as u64) << 40 | 5;
        assert_eq!(
            map.query(n * 4 * PAGE + 1),
            Some((pages(n * 4 * PAGE, 3), value))
        );
    }
    assert_eq!(map.update(bounds, |value| value | 1 << 63), Ok(30_000));
    assert!(
        map.ranges(bounds)
            .all(|(_, value)| value >> 63 == 1 && value & 7 == 5)
    );
    // From large values to small ones, where they lie.
    assert_eq!(map.insert(pages(4 * PAGE, 3), 1), Ok(3));
    assert_eq!(map.insert(pages(4 * PAGE, 3), u64::MAX), Ok(3));
    assert_eq!(map.query(4 * PAGE).map(|found| found.1), Some(u64::MAX));

    let byte = PageSize::new(1).expect("a power of two");
    let new = RangeMap::on(OsProvider::new(), bounds, byte, 16 << 20);
    let map: RangeMap<u32, _> = new.expect("made");
    let mut at = 7;
    for n in 1..5000 {
        let len = 1 + n * 7919 % 100_003;
        map.insert_new(from_to(at, at + len), 1).expect("free");
        assert_eq!(map.query(at + len - 1), Some((from_to(at, at + len), 1)));
        assert_eq!(map.query(at + len), None);
        at += len + 1 + n % 3;
    }
    assert_eq!(map.gaps(from_to(7, at)).count(), 4999);
    // Longer than 32 bits say, and far away.
    let far = from_to(1 << 40, (1 << 40) + (5 << 32) + 3);
    assert_eq!(map.insert(far, 2), Ok(0));
    assert_eq!(map.query(far.last()), Some((far, 2)));
    assert_eq!(map.remove(from_to((1 << 40) + 1, (1 << 40) + 2)), Ok(1));
    assert_eq!(
        map.query(1 << 40),
        Some((from_to(1 << 40, (1 << 40) + 1), 2))
    );
    let request = GapRequest::bytes(3).order(GapOrder::Lowest).aligned(16, 1);
    let gap = map.find_gap(&request).expect("there is room");
    assert_eq!((gap.start() + 1) % 16, 0);
    for bounds in [AddressRange::ALL, from_to(0, usize::MAX)] {
        let refused = RangeMap::<u8, _>::on(OsProvider::new(), bounds, byte, 1 << 20);
        assert_eq!(
            refused.err().map(|e| e.kind()),
            Some(ErrorKind::InvalidArgument)
        );
    }
    let half = from_to(0, 1 << 63);
    let map = RangeMap::<u8, _>::on(OsProvider::new(), half, byte, 1 << 20).expect("made");
    assert_eq!(map.insert(from_to((1 << 63) - 1, 1 << 63), 1), Ok(0));
    assert_eq!(map.query((1 << 63) - 1).map(|found| found.1), Some(1));
    assert_eq!(map.query((1 << 63) - 2), None);
}
