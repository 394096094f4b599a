//! Hosts with limits.

extern crate std;
use super::super::*;
use super::host::*;
use crate::provider::Within;
use std::vec;

#[test]
fn a_limit_of_addresses_shrinks_the_claim() {
    for page in PAGES {
        for (limit, spare) in [
            (16 * GIB, GIB),
            (5 * GIB + 0x3_0000, GIB),
            (GIB + (1 << 20), GIB),
            (700 << 20, 512 << 20),
            (GIB / 2, 0),
        ] {
            let mut host = Host::new(47, page).mapped(64 * GIB, 65 * GIB);
            host.limit = limit;
            let request = above().hole(span(4 * GIB, 8 * GIB)).spare(spare);
            let mut slots = slots();
            let claim = claim(&host, &request, &mut slots).expect("valid");
            let report = claim.report();
            let usable = claim.tally(Purpose::Usable);
            let rest = limit - spare - usable.bytes;
            assert!(rest < page.bytes(), "all was taken but {rest}");
            assert_eq!(usable.ranges, 1, "in one piece");
            assert_eq!(
                claim.tally(Purpose::Hole).bytes,
                0,
                "memory comes before the hole"
            );
            let error = report.error.expect("it was refused");
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(12))
            );
            assert!(report.missed.bytes > 1 << 46 && report.missed.ranges == 3);
            assert!(report.settled);
            assert!(host.state.lock().calls < 256, "halving is quick");
        }
    }
}

#[test]
fn nothing_is_got_where_nothing_can_be_had() {
    let mut host = Host::new(47, PageSize::KIB_4);
    host.limit = 0;
    let (got, report) = check(&host, &above());
    assert!(got.is_empty() && report.settled);
    assert_eq!(report.missed.bytes, (1 << 47) - 4 * GIB);
}

#[test]
fn a_host_that_does_not_tell_its_end_is_claimed_up_to_it() {
    let mut host = Host::new(47, PageSize::KIB_4);
    let user = host.space.user.take();
    // What lies behind the end is refused, as by a host that says no more than that.
    let host = Within::new(&host, user.expect("told above"));
    let mut slots = slots();
    let request = above();
    let claim = claim(&host, &request, &mut slots).expect("valid");
    assert_eq!(usable(&claim), [(4 * GIB, 1 << 47)]);
    assert_eq!(claim.report().address_bits, None);
}

#[test]
fn an_incomplete_claim_is_an_error_where_that_is_asked() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=3 {
        host = host.mapped((4 + n) * GIB, (4 + n) * GIB + 4096);
    }
    let request = above().require_complete();
    for count in 0..4 {
        let mut slots = vec![None; count];
        let kind = claim(&host, &request, &mut slots)
            .map(drop)
            .map_err(Error::kind);
        assert_eq!(kind, Err(ErrorKind::Exhausted), "{count} slots");
        assert_eq!(host.state.lock().reserved, 0, "nothing stays claimed");
        let partial = claim(&host, &above(), &mut slots).expect("valid");
        assert!(!partial.report().is_complete());
        let mut partial = partial;
        // SAFETY: no other code uses the claim.
        unsafe { partial.give_back() }.expect("all can go");
    }
    let mut slots = vec![None; 4];
    let all = claim(&host, &request, &mut slots).expect("enough slots");
    assert!(all.report().is_complete());
    // A limit, a map that cannot be read, and an end that is not known.
    let mut host = Host::new(47, PageSize::KIB_4);
    host.limit = GIB;
    let mut slots = vec![None; 4];
    let kind = claim(&host, &request, &mut slots)
        .map(drop)
        .map_err(Error::kind);
    assert_eq!(kind, Err(ErrorKind::Exhausted));
    let mut host = Host::new(47, PageSize::KIB_4);
    (host.map, host.space.stack) = (Err(ErrorKind::Denied.into()), Some(GIB));
    let kind = claim(&host, &request, &mut slots)
        .map(drop)
        .map_err(Error::kind);
    assert_eq!(kind, Err(ErrorKind::Denied));
    // Such a host has none of these addresses, which is all of them.
    let host = Host::new(32, PageSize::KIB_4);
    let none = claim(&host, &request, &mut slots).expect("nothing to claim");
    assert_eq!((none.ranges().count(), none.report().range), (0, None));
}
