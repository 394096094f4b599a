//! Spans in windows that are full, or that have one hole.

use super::{adapted, make, need_jit, placed::aligned, unable};
use crate::{
    Outcome,
    harness::{Region, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    jit::{CodeProvider, JitAllocator, JitConfig, JitError, Mapping, Span},
    page::AddressRange,
    provider::{Capabilities, DualView, ErrorKind, Place, Placement, Provider, Within},
    sim::{Calls, Faulty},
};

/// A provider that counts the calls which look for places.
fn counting<P: Provider + Copy>(p: P) -> Faulty<P> {
    let counting = Faulty::new(p);
    counting.only(Calls::MAP_DUAL | Calls::RESERVE);
    counting
}

/// Makes an allocator whose metadata is not counted.
fn counted<C: CodeProvider, P: Provider + Copy>(
    code: C,
    p: P,
    config: JitConfig,
) -> Option<JitAllocator<C, P>> {
    JitAllocator::on(code, p, adapted(p, config.metadata(1 << 20))).ok()
}

/// Yields the ways of mapping that a host has.
fn ways<P: Provider + Copy>(p: P) -> impl Iterator<Item = Mapping> {
    let all = [Mapping::Dual, Mapping::Toggle, Mapping::Auto];
    all.into_iter()
        .filter(move |way| unable(p, &JitConfig::new().mapping(*way)).is_none())
}

/// Asserts that a view has no place, and that this is said.
fn expect_unplaced(result: Result<Span, JitError>, view: DualView, kind: ErrorKind) {
    let error = match result {
        Err(JitError::Map(error)) => error,
        other => panic!("the {view} has no place: {other:?}"),
    };
    assert_eq!(
        (error.unplaced(), error.kind()),
        (Some(view), kind),
        "{error}"
    );
    assert_eq!(error.steps().count(), 0, "no strategy is to blame: {error}");
    assert!(!error.is_shortage(), "less would not do: {error}");
}

pub(super) fn a_full_window_is_asked_for_once<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let region = Region::pages(p, 64);
    let window = region.range().addresses();
    let near = Placement {
        place: Place::Near(window.start() + 5),
        ..Placement::within(window)
    };
    for way in ways(p) {
        let config = JitConfig::new().mapping(way);
        let counting = counting(p);
        let jit = counted(&counting, p, config).expect("an allocator can be made");
        for (size, placement) in [
            (1, near),
            (100_000, near),
            (64, Placement::within(window)),
            (3 << 20, Placement::within(window)),
        ] {
            let before = (counting.calls(), jit.statistics().spans);
            let result = jit.alloc_with(size, placement);
            expect_unplaced(result, DualView::Rx, ErrorKind::Exhausted);
            let now = (counting.calls() - 1, jit.statistics().spans);
            assert_eq!(now, before, "one call, whatever the length");
        }
        assert_eq!(jit.statistics().reserved, 0, "nothing was mapped");
        let configured = counted(&counting, p, config.rx(near)).expect("it can be made");
        let before = counting.calls();
        expect_unplaced(configured.alloc(64), DualView::Rx, ErrorKind::Exhausted);
        assert_eq!(counting.calls(), before + 1);
        // The window of a request, and that of the provider.
        let elsewhere = AddressRange::new(window.last() + 1, usize::MAX).expect("not the last");
        let within = Within::new(&counting, window);
        let narrowed = counted(within, p, config).expect("it can be made");
        let before = counting.calls();
        let dual = narrowed.mapping().0 != Mapping::Toggle;
        let view = if dual { DualView::Rw } else { DualView::Rx };
        expect_unplaced(narrowed.alloc(64), view, ErrorKind::Exhausted);
        assert_eq!(counting.calls(), before + 1);
        let outside = narrowed.alloc_with(64, Placement::within(elsewhere));
        let error = match outside {
            Err(JitError::Map(error)) => error,
            other => panic!("no address is in both: {other:?}"),
        };
        assert_eq!(error.kind(), ErrorKind::OutsideRange, "{error}");
        assert!(error.unplaced().is_some() || !dual, "{error}");
    }
    Outcome::Passed
}

pub(super) fn the_longest_hole_is_used_at_once<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for way in ways(p) {
        undisturbed("holes in a window", || {
            let mut region = Region::pages(p, 64);
            let (page, window) = (region.page(), region.range().addresses());
            let elsewhere = AddressRange::new(window.last() + 1, usize::MAX)?;
            // Blocks would be longer than any hole.
            let block = (16 * page).max(64 << 10);
            let config = JitConfig::new().mapping(way).block_size(block, block);
            let config = config.rx(Placement::within(window));
            let counting = counting(p);
            // Metadata must not take the holes.
            let metadata = Within::new(p, elsewhere);
            let config = config.rw(Placement::within(elsewhere));
            let jit = counted(&counting, metadata, config)?;
            for hole in [1..3, 10..21, 40..45] {
                region.release(hole).ok()?;
            }
            let mut spans = Vec::new();
            for (size, pages, calls) in [(64, 11, 1), (10 * page, 11, 1), (4 * page, 16, 2)] {
                spans.push(jit.alloc(size).ok()?);
                let reserved = jit.statistics().reserved / page;
                if reserved != pages || counting.calls() != calls {
                    return None; // Somebody else mapped something there?
                }
            }
            for span in &spans {
                let rx = span.rx().addr().get();
                assert!(window.contains(rx), "{span:?} lies outside {window:?}");
            }
            for span in spans {
                jit.release(span).expect("an owned span is taken back");
            }
            Some(())
        });
    }
    Outcome::Passed
}

pub(super) fn longer_spans_than_blocks_have_longer_granules<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    // Two that are no longer than ordinary blocks or their granules can be many, and two that are.
    const MIB: usize = 1 << 20;
    let config = JitConfig::new().granularity(16).metadata(1 << 20);
    let config = config.block_size(64 << 10, 64 << 10);
    let jit = make(p, config).expect("an allocator can be made");
    let small = jit.alloc(16).expect("a small span can be had");
    for size in [100_000, MIB, 3 * MIB, 5 * MIB + 17] {
        let mut span = match jit.alloc(size) {
            Ok(span) => span,
            // A simulated host has few addresses.
            Err(JitError::Map(error)) if error.kind() == ErrorKind::Exhausted => continue,
            Err(error) => panic!("{size} bytes: {error}"),
        };
        let granule = span.len_bytes() - size;
        assert!(granule < 16 + size / 4096, "{granule} more than {size}");
        let (rx, whole) = (span.rx().addr().get(), span.info());
        assert_eq!(jit.query(rx + size / 2), Some(whole));
        assert_eq!(jit.query(rx + size - 1), Some(whole));
        jit.write(&mut span, size - 4, &[1, 2, 3, 4])
            .expect("it is ours");
        // What it is shrunk by belongs to no span, and not a part of it.
        jit.shrink(&mut span, size / 2).expect("it is ours");
        assert!((size / 2..size / 2 + 16 + size / 4096).contains(&span.len_bytes()));
        assert_eq!(jit.query(rx + size - 1), None);
        assert_eq!(jit.query(rx), Some(span.info()));
        let others: Vec<Span> = (0..100).map_while(|_| jit.alloc(40).ok()).collect();
        for other in &others {
            assert_eq!(
                other.len_bytes(),
                48,
                "as long as if there were no other block"
            );
        }
        if p.capabilities().contains(Capabilities::PURGE_DUAL) {
            assert!(jit.decommit_unused() >= size / 4, "the rest goes back");
        }
        for other in others {
            jit.release(other).expect("an owned span is taken back");
        }
        jit.release(span).expect("an owned span is taken back");
        assert_eq!(jit.query(rx), None);
        // Placed, and aligned.
        let aligned = jit.alloc_with(size, aligned(1 << 16));
        if let Ok(span) = aligned {
            assert!(span.rx().addr().get().is_multiple_of(1 << 16));
            jit.release(span).expect("an owned span is taken back");
        }
    }
    jit.release(small).expect("an owned span is taken back");
    let left = jit.statistics();
    assert!(left.reserved <= 4 * (64 << 10), "{left:?}");
    assert!(left.metadata <= 1 << 20, "{left:?}");
    Outcome::Passed
}
