//! Requests that say where.

use super::{adapted, make, model::Model, need_jit, unable};
use crate::{
    Outcome, SplitMix64,
    harness::{Region, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    jit::{CodeProvider, JitAllocator, JitConfig, JitError, Mapping, Span},
    page::AddressRange,
    provider::{Capabilities, DualView, ErrorKind, Place, Placement, Provider, Within},
    sim::{Calls, Faulty},
};

/// Anywhere, aligned.
const fn aligned(align: usize) -> Placement {
    Placement {
        align,
        ..Placement::ANYWHERE
    }
}

pub(super) fn spans_are_aligned_as_asked<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for (granule, pools) in [(16, 1), (64, 1), (64, 3), (2048, 3), (4096, 3)] {
        let config = JitConfig::new().granularity(granule).pools(pools);
        let mut model = Model::new(make(p, config).expect("an allocator can be made"));
        let mut random = SplitMix64::new(0xa119);
        for seed in 0..120 {
            let align = 1 << random.below(18);
            let size = random.between(1, 20_000);
            // The model looks at the alignment.
            let result = model.alloc_with(size, aligned(align), seed);
            result.unwrap_or_else(|e| panic!("{size} bytes aligned to {align}: {e}"));
            if seed % 3 == 0 {
                model.release(random.below(model.live.len()));
            }
        }
        model
            .alloc_with(100, aligned(4 << 20), 1)
            .expect("alignments above that of a block can be had");
        model.expect_all_intact();
        model.expect_blocks();
        model.release_all();
        model.expect_blocks();
    }
    Outcome::Passed
}

pub(super) fn granules_longer_than_a_page_are_aligned<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    undisturbed("code in a window", || {
        let region = Region::pages(p, (4 << 20) / p.page_size().bytes());
        // Holes in the window begin a page behind an aligned address.
        let start = region.addr().next_multiple_of(64 << 10) + region.page();
        let window = AddressRange::new(start, region.range().addresses().last());
        let rx = Placement::within(window.expect("the region is longer"));
        let config = JitConfig::new().granularity(4096).pools(3).rx(rx);
        let mut model = Model::new(make(p, config).ok()?);
        // Not before the metadata has its place, which could be this one.
        drop(region);
        for seed in 0..20 {
            model.alloc(16 << 10, seed).ok()?;
            model.alloc_with(16 << 10, aligned(16 << 10), seed).ok()?;
        }
        for live in &model.live {
            assert!(live.rx().is_multiple_of(live.granule), "{live:?}");
        }
        model.release_all();
        Some(Outcome::Passed)
    })
}

pub(super) fn bad_placements_are_refused<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    model.alloc(100, 1).expect("a small span can be had");
    let anchor = model.live[0].rx();
    let place = |place| Placement {
        place,
        ..Placement::ANYWHERE
    };
    for placement in [
        aligned(0),
        aligned(3),
        aligned(usize::MAX),
        place(Place::Exact(anchor)),
        place(Place::Hint(anchor)),
    ] {
        let result = model.alloc_with(64, placement, 1);
        assert_eq!(result, Err(JitError::InvalidPlacement), "{placement:?}");
    }
    for size in [0, usize::MAX, isize::MAX.unsigned_abs() + 1] {
        let result = model.alloc_with(size, Placement::ANYWHERE, 1);
        assert_eq!(result, Err(JitError::InvalidSize), "{size:#x} bytes");
    }
    let huge = aligned(1 << (usize::BITS - 1));
    let result = model.alloc_with(64, huge, 1);
    assert!(result.is_err(), "only null is aligned so");
    // Places without room: below the first page, around it, and between two spans of this block.
    for (start, last) in [(0, 4095), (anchor, anchor + 63), (anchor - 64, anchor - 1)] {
        let within = AddressRange::new(start, last).expect("not empty");
        let result = model.alloc_with(64, Placement::within(within), 1);
        assert!(
            matches!(result, Err(JitError::Map(_))),
            "{within:?}: {result:?}"
        );
    }
    model.expect_all_intact();
    model.expect_blocks();
    Outcome::Passed
}

pub(super) fn holes_of_a_window_are_used_to_the_last<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let mut model = Model::new(make(p, JitConfig::new()).expect("an allocator can be made"));
    for seed in 0..64 {
        model.alloc(256, seed).expect("small spans can be had");
    }
    let at = |n: usize| model.live[n].rx();
    // Spans lie one behind the other in a new block: the window is the middle of it.
    let window = AddressRange::new(at(16), at(48) - 1).expect("in this order");
    let inside: Vec<usize> = (16..48).map(at).collect();
    for &rx in &inside {
        let n = model.live.iter().position(|l| l.rx() == rx);
        model.release(n.expect("it is live"));
    }
    let mut placed = Vec::new();
    while placed.len() < 64 {
        match model.alloc_with(128, Placement::within(window), 7) {
            Ok(()) => placed.push(model.live.last().expect("just allocated").rx()),
            Err(error) => {
                let full = matches!(error, JitError::Map(e) if e.kind() != ErrorKind::Other);
                assert!(full, "a full window: {error:?}");
                break;
            }
        }
    }
    placed.sort_unstable();
    let all: Vec<usize> = (0..64).map(|n| inside[0] + 128 * n).collect();
    assert_eq!(placed, all, "every hole of the window was used");
    model.expect_all_intact();
    model.release_all();
    Outcome::Passed
}

pub(super) fn a_fragmented_window_is_filled<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    const PIECES: usize = 64;
    undisturbed("a window of many holes", || {
        for by_request in [false, true] {
            // Foreign mappings, and holes of four pages between them.
            let mut region = Region::pages(p, 8 * PIECES);
            let window = region.range().addresses();
            for n in 0..PIECES {
                region.release(8 * n..8 * n + 4).ok()?;
            }
            let near = Placement {
                place: Place::Near(window.start() + 4 * PIECES * region.page()),
                ..Placement::within(window)
            };
            // Not in the window, where they would take the place of code.
            let elsewhere = AddressRange::new(window.last() + 1, usize::MAX);
            let elsewhere = elsewhere.map_or(Placement::ANYWHERE, Placement::within);
            let config = JitConfig::new().metadata(1 << 20).rw(elsewhere);
            let (config, place) = if by_request {
                (config, near)
            } else {
                (config.rx(near), Placement::ANYWHERE)
            };
            let mut model = Model::new(make(p, config).ok()?);
            let size = region.page();
            let full = loop {
                let seed = model.live.len() as u64;
                // The model looks at the window of a request.
                let result = if by_request {
                    model.alloc_with(size, place, seed)
                } else {
                    model.alloc(size, seed)
                };
                match result {
                    Ok(()) => {}
                    Err(error) => break error,
                }
                let last = model.live.last().expect("just allocated");
                let end = last.rx() + last.len() - 1;
                assert!(
                    window.contains(last.rx()) && window.contains(end),
                    "{last:?} lies outside {window:?}"
                );
            };
            assert!(
                matches!(full, JitError::Map(e) if e.kind() == ErrorKind::Exhausted),
                "a full window: {full:?}"
            );
            // Padding takes a part of the first page of each hole, so three spans fit.
            if model.live.len() < 3 * PIECES / 2 {
                return None; // Somebody else took most of them.
            }
            model.expect_all_intact();
            model.expect_blocks();
            model.release(0);
            let again = if by_request {
                model.alloc_with(size, place, 1)
            } else {
                model.alloc(size, 1)
            };
            again.expect("what was released serves again");
            model.release_all();
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn a_page_is_enough_for_what_fits_in_it<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let page = p.page_size().bytes();
    undisturbed("a window of one page", || {
        let mut region = Region::pages(p, 3);
        region.release(1..2).ok()?;
        let window = AddressRange::from_len(region.at(1), page).expect("a page");
        let elsewhere = AddressRange::new(region.at(3), usize::MAX).map(Placement::within)?;
        let config = JitConfig::new().metadata(1 << 20).rw(elsewhere);
        // Metadata must not take the hole.
        let metadata = Within::new(p, AddressRange::new(region.at(3), usize::MAX)?);
        let jit: JitAllocator<P, _> = JitAllocator::on(p, metadata, adapted(p, config)).ok()?;
        let span = jit.alloc_with(page - 64, Placement::within(window));
        let Ok(span) = span else {
            // Is it free at all?
            return jit
                .alloc_with(64, Placement::within(window))
                .is_ok()
                .then(|| panic!("what fits into a page beside the padding did not: {span:?}"));
        };
        assert!(window.contains(span.rx().addr().get()), "{span:?}");
        jit.release(span).expect("an owned span is taken back");
        Some(Outcome::Passed)
    })
}

pub(super) fn a_placed_span_leaves_no_empty_block<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    for immediate in [false, true] {
        let config = JitConfig::new().pools(3).immediate_release(immediate);
        let mut model = Model::new(make(p, config).expect("an allocator can be made"));
        // A hole in the blocks of the short granules, for spans that belong to longer ones.
        model.alloc(64, 1).expect("a small span can be had");
        for size in [128, 256, 1024] {
            model
                .alloc_with(size, Placement::ANYWHERE, 2)
                .expect("a small span can be had");
            model.expect_blocks();
        }
        model.release_all();
        model.expect_blocks();
        let left = model.jit.statistics();
        assert!(left.blocks <= model.most_empty(), "{left:?}");
    }
    Outcome::Passed
}

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
        // What it is shrunk by is nobody's, and not a part of it.
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
