//! Page arithmetic against the same arithmetic in wider numbers.

use core::ptr::{NonNull, without_provenance_mut};
use hostmem::{
    page::{Access, AddressRange, Ceiling, PageRange, PageSize, RwxOptIn},
    provider::{ErrorKind, Place, Placement, Request},
};
use proptest::prelude::*;

fn wide(n: usize) -> u128 {
    n as u128
}

/// Addresses and lengths with an edge in most of them.
fn edgy() -> impl Strategy<Value = usize> {
    prop_oneof![
        any::<usize>(),
        (0..64u32, -2..=2i8).prop_map(|(bit, off)| (1usize << bit).wrapping_add_signed(off.into())),
        (0..16usize).prop_map(|n| usize::MAX - n),
        (0..64usize).prop_map(|n| n << 12),
    ]
}

fn page_sizes() -> impl Strategy<Value = PageSize> {
    prop_oneof![
        Just(PageSize::KIB_4),
        Just(PageSize::KIB_16),
        Just(PageSize::KIB_64)
    ]
}

fn range(start: usize, len: usize, page: PageSize) -> Option<PageRange> {
    PageRange::new(NonNull::new(without_provenance_mut(start))?, len, page)
}

proptest! {
    #[test]
    fn a_page_size_is_a_power_of_two(n in edgy()) {
        prop_assert_eq!(PageSize::new(n).is_some(), n != 0 && n & (n - 1) == 0);
    }

    #[test]
    fn rounding_is_the_nearest_multiple(n in edgy(), page in page_sizes()) {
        let size = wide(page.bytes());
        let up = wide(n).div_ceil(size) * size;
        prop_assert_eq!(page.round_up(n).map(wide), (up <= wide(usize::MAX)).then_some(up));
        prop_assert_eq!(wide(page.round_down(n)), wide(n) / size * size);
        prop_assert_eq!(page.is_aligned(n), wide(n).is_multiple_of(size));
    }

    #[test]
    fn a_page_range_is_aligned_not_empty_and_does_not_wrap(
        start in edgy(), len in edgy(), page in page_sizes(),
    ) {
        let size = wide(page.bytes());
        let valid = start != 0
            && len != 0
            && wide(start).is_multiple_of(size)
            && wide(len).is_multiple_of(size)
            && wide(start) + wide(len) <= wide(usize::MAX);
        let made = range(start, len, page);
        prop_assert_eq!(made.is_some(), valid);
        if let Some(made) = made {
            prop_assert_eq!((made.addr(), made.len_bytes()), (start, len));
            prop_assert_eq!(made.end(), start + len);
            prop_assert_eq!(made.addresses(), AddressRange::from_len(start, len).expect("valid"));
        }
    }

    #[test]
    fn a_part_lies_inside(offset in edgy(), len in edgy(), page in page_sizes()) {
        let whole = range(1 << 20, 1 << 20, page).expect("valid");
        let inside = wide(offset) + wide(len) <= wide(whole.len_bytes());
        let valid = inside && len != 0 && page.is_aligned(offset) && page.is_aligned(len);
        let part = whole.part(offset, len, page);
        prop_assert_eq!(part.is_some(), valid);
        if let Some(part) = part {
            prop_assert!(whole.contains_range(part) && whole.overlaps(part));
            prop_assert_eq!(part.addr() - whole.addr(), offset);
        }
    }

    #[test]
    fn ranges_overlap_exactly_where_they_share_an_address(
        a in 1..40usize, b in 1..40usize, len_a in 1..20usize, len_b in 1..20usize,
    ) {
        let page = PageSize::KIB_4;
        let make = |start: usize, len: usize| range(start << 12, len << 12, page).expect("valid");
        let (x, y) = (make(a, len_a), make(b, len_b));
        let shared = (a..a + len_a).any(|n| (b..b + len_b).contains(&n));
        prop_assert_eq!(x.overlaps(y), shared);
        prop_assert_eq!(x.contains_range(y), (b..b + len_b).all(|n| (a..a + len_a).contains(&n)));
        prop_assert_eq!(x.contains(b << 12), (a..a + len_a).contains(&b));
        let both = x.addresses().intersect(y.addresses());
        prop_assert_eq!(both.is_some(), shared);
    }

    #[test]
    fn address_ranges_agree_with_wide_arithmetic(start in edgy(), n in edgy(), probe in edgy()) {
        let made = AddressRange::from_len(start, n);
        let valid = n != 0 && wide(start) + wide(n) - 1 <= wide(usize::MAX);
        prop_assert_eq!(made.is_some(), valid);
        if let Some(made) = made {
            let inside = wide(probe) >= wide(start) && wide(probe) < wide(start) + wide(n);
            prop_assert_eq!(made.contains(probe), inside);
        }
        prop_assert_eq!(AddressRange::new(start, n).is_some(), start <= n);
        let around = AddressRange::around(start, n);
        prop_assert!(around.contains(start));
        prop_assert_eq!(around.contains(probe), start.abs_diff(probe) <= n);
    }

    #[test]
    fn plans_are_whole_pages_or_refused(
        len in edgy(), before in edgy(), after in edgy(), align in edgy(), page in page_sizes(),
    ) {
        let size = wide(page.bytes());
        let up = |n: usize| wide(n).div_ceil(size) * size;
        let total = up(before) + up(len) + up(after);
        let most = isize::MAX as u128;
        let valid = len != 0
            && align.is_power_of_two()
            && total <= most
            && [len, before, after].iter().all(|&n| up(n) <= wide(usize::MAX))
            && wide(align) <= most;
        let plan = Request::bytes(len).guards(before, after).align(align).plan(page);
        prop_assert_eq!(plan.is_ok(), valid);
        if let Ok(plan) = plan {
            prop_assert_eq!(wide(plan.total()), total);
            prop_assert_eq!(wide(plan.before()), up(before));
            prop_assert_eq!(wide(plan.body()), up(len));
        }
    }

    #[test]
    fn carving_keeps_an_aligned_part_and_loses_no_page(
        at in 1..10_000usize, len in 1..50usize, before in 0..8usize, align in 12..22u32,
    ) {
        let page = PageSize::KIB_4;
        let request = Request::bytes(len << 12).guards(before << 12, 0).align(1 << align);
        let plan = request.plan(page).expect("valid");
        let whole = range(at << 12, plan.len_with_slack(page).expect("small"), page);
        let whole = whole.expect("valid");
        let (kept, [head, tail]) = plan.carve(whole, page).expect("there is room");
        prop_assert!(plan.aligned(kept.addr()));
        prop_assert_eq!(kept.len_bytes(), plan.total());
        prop_assert_eq!(head.map_or(whole.addr(), |head| head.addr()), whole.addr());
        prop_assert_eq!(head.map_or(whole.addr(), PageRange::end), kept.addr());
        prop_assert_eq!(tail.map_or(whole.end(), |tail| tail.addr()), kept.end());
        prop_assert_eq!(tail.map_or(whole.end(), PageRange::end), whole.end());
    }

    #[test]
    fn starts_are_the_nearest_aligned_ones(
        floor in 0..1usize << 40, before in 0..8usize, align in 12..22u32,
    ) {
        let (page, align) = (PageSize::KIB_4, 1usize << align);
        let request = Request::bytes(1).guards(before << 12, 0).align(align);
        let plan = request.plan(page).expect("valid");
        let above = plan.start_at_or_above(floor).expect("far from the end");
        prop_assert!(above >= floor && above - floor < align && plan.aligned(above));
        if let Some(below) = plan.start_at_or_below(floor) {
            prop_assert!(below <= floor && floor - below < align && plan.aligned(below));
        }
    }
}

#[test]
fn exact_places_are_checked_before_anything_is_mapped() {
    let page = PageSize::KIB_4;
    let kind = |request: Request<'_>| request.plan(page).map(drop).map_err(|e| e.kind());
    let at = |base| Request::bytes(0x1000).place(Place::Exact(base));
    assert_eq!(kind(at(0x10_0000)), Ok(()));
    assert_eq!(kind(at(0x10_0001)), Err(ErrorKind::InvalidArgument));
    assert_eq!(
        kind(at(usize::MAX & !0xfff)),
        Err(ErrorKind::InvalidArgument)
    );
    let low = AddressRange::LOW_4G;
    assert_eq!(kind(at(0xffff_f000).within(low)), Ok(()));
    assert_eq!(
        kind(at(0x1_0000_0000).within(low)),
        Err(ErrorKind::OutsideRange)
    );
    assert_eq!(
        kind(Request {
            len: 0x2000,
            ..at(0xffff_f000).within(low)
        }),
        Err(ErrorKind::OutsideRange)
    );
    assert_eq!(
        Placement::near(5, 10).within,
        AddressRange::new(0, 15).expect("valid")
    );
}

#[test]
fn a_ceiling_allows_what_its_name_says() {
    // SAFETY: only compared here.
    let rwx = unsafe { RwxOptIn::accept() };
    let accesses = [
        Access::None,
        Access::Read,
        Access::ReadWrite,
        Access::ReadExec,
        Access::ReadWriteExec(rwx),
    ];
    let allowed = |ceiling: Ceiling| accesses.map(|access| ceiling.allows(access));
    assert_eq!(allowed(Ceiling::Read), [true, true, false, false, false]);
    assert_eq!(
        allowed(Ceiling::ReadWrite),
        [true, true, true, false, false]
    );
    assert_eq!(allowed(Ceiling::ReadExec), [true, true, false, true, false]);
    assert_eq!(
        allowed(Ceiling::WriteXorExec),
        [true, true, true, true, false]
    );
    assert_eq!(allowed(Ceiling::ReadWriteExec(rwx)), [true; 5]);
}
