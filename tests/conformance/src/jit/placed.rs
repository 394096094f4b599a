//! Requests that say where.

use super::{adapted, make, model::Model, need_jit};
use crate::{
    Outcome, SplitMix64,
    harness::{Region, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    jit::{JitAllocator, JitConfig, JitError},
    page::AddressRange,
    provider::{ErrorKind, Place, Placement, Provider, Within},
};

/// Anywhere, aligned.
pub(super) const fn aligned(align: usize) -> Placement {
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
