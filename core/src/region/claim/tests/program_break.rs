//! The program break.

extern crate std;
use super::super::*;
use super::host::*;

#[test]
fn the_break_is_kept_from_growing() {
    let with = |at: usize| {
        let mut host = Host::new(47, PageSize::KIB_4).mapped(0x50_0000, 0x60_0000);
        host.space.program_break = Some(at);
        host
    };
    let request = above().block_break();
    for at in [0x60_0000, 0x5f_f001] {
        let (got, report) = check(&with(at), &request);
        assert_eq!(report.block_break, BreakBlock::Blocked);
        assert_eq!(got[0], (0x60_0000, 0x60_1000, Purpose::Break));
    }
    let (_, report) = check(&with(0x60_0000).mapped(0x60_0000, 0x60_1000), &request);
    assert_eq!(report.block_break, BreakBlock::Already);
    // Above, the claim itself is in its way.
    let (got, report) = check(&with(6 * GIB), &request);
    assert_eq!((got.len(), report.block_break), (1, BreakBlock::Already));
    let (_, report) = check(&Host::new(47, PageSize::KIB_4), &request);
    assert_eq!(report.block_break, BreakBlock::Unknown);
    let mut limited = with(0x60_0000);
    limited.limit = 0;
    let (_, report) = check(&limited, &request);
    let refused = Error::os(ErrorKind::Exhausted, 12);
    assert_eq!(report.block_break, BreakBlock::Failed(refused));
    let host = with(0x60_0000);
    let claim = claim(&host, &request, &mut []).expect("valid");
    let full = ErrorKind::Exhausted.into();
    assert_eq!(claim.report().block_break, BreakBlock::Failed(full));
    assert_eq!(host.state.lock().reserved, 0);
}

#[test]
fn what_the_break_gave_in_the_range_is_told() {
    for (heap, brk, inside) in [
        ((5 * GIB, 6 * GIB), 6 * GIB, GIB),
        ((5 * GIB, 6 * GIB), 6 * GIB - 100, GIB),
        ((3 * GIB, 6 * GIB), 6 * GIB, 2 * GIB),
        ((GIB, 2 * GIB), 2 * GIB, 0),
    ] {
        let mut host = Host::new(47, PageSize::KIB_4).mapped(heap.0, heap.1);
        host.space.program_break = Some(brk);
        let (_, report) = check(&host, &above());
        assert_eq!(report.heap_bytes, inside, "{heap:x?}");
    }
}
