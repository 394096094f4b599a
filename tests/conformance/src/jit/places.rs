//! Where code lands.

use super::{
    make,
    model::{Model, cause},
    need_jit,
};
use crate::{
    Outcome, code,
    harness::{Region, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    jit::{JitConfig, SpanInfo},
    page::AddressRange,
    provider::{ErrorKind, Placement, Provider},
};

/// Makes an allocator whose views go into `bytes` bytes that are most probably free: they are
/// released only when its metadata has a place.
fn in_window<P: Provider + Copy>(
    p: P,
    bytes: usize,
    config: impl FnOnce(AddressRange) -> JitConfig,
) -> (Model<P>, AddressRange) {
    let region = Region::pages(p, bytes / p.page_size().bytes());
    let range = region.range().addresses();
    let jit = make(p, config(range)).expect("an allocator can be made");
    (Model::new(jit), range)
}

/// Divides a range in two.
fn halves(range: AddressRange) -> [AddressRange; 2] {
    let middle = range.start() + (range.last() - range.start()) / 2;
    [(range.start(), middle), (middle + 1, range.last())]
        .map(|(start, last)| AddressRange::new(start, last).expect("the range has two bytes"))
}

#[track_caller]
fn expect_in(range: AddressRange, start: usize, len: usize) {
    let span = AddressRange::from_len(start, len).expect("a span is not empty");
    assert!(
        range.contains_range(span),
        "{span:?} lies outside {range:?}"
    );
}

pub(super) fn views_keep_their_placement<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    undisturbed("spans in windows", || {
        for pick in [[0, 1], [1, 0], [0, 0]] {
            let (mut model, _) = in_window(p, 8 << 20, |all| {
                let [rw, rx] = pick.map(|n| Placement::within(halves(all)[n]));
                JitConfig::new().rw(rw).rx(rx)
            });
            let rw = model.jit.config().rw_placement().within;
            let rx = model.jit.config().rx_placement().within;
            for seed in 0..1000 {
                model.alloc(900, seed).ok()?;
            }
            for SpanInfo { rx: x, rw: w, len } in model.live.iter().map(|l| l.info()) {
                expect_in(rx, x.addr().get(), len);
                expect_in(rw, w.addr().get(), len);
            }
            model.release_all();
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn a_window_can_be_full<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    undisturbed("spans in a window that becomes full", || {
        // The writable views have a window of their own, or they might land in this one.
        let (mut model, both) = in_window(p, 2 << 20, |both| {
            let [rw, rx] = halves(both).map(Placement::within);
            JitConfig::new().rw(rw).rx(rx)
        });
        let [_, range] = halves(both);
        let mut bytes = 0;
        let full = loop {
            match model.alloc(2000, 1) {
                Ok(()) => bytes += 2048,
                Err(error) => break error,
            }
            assert!(bytes <= 1 << 20, "more was got than the window has");
        };
        assert_eq!(
            cause(full),
            Some(ErrorKind::Exhausted),
            "a full window: {full}"
        );
        for live in &model.live {
            expect_in(range, live.rx(), live.len());
        }
        // Every page of the window serves, in blocks as small as need be, unless somebody else
        // took some.
        if bytes < 1 << 19 {
            return None;
        }
        model.expect_all_intact();
        model.release(7);
        model
            .alloc(2000, 2)
            .expect("what was released serves again");
        model.release_all();
        Some(Outcome::Passed)
    })
}

pub(super) fn code_near_an_anchor_is_in_reach<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    const REACH: usize = 128 << 20;
    // Something that code calls: on a simulated host, which has its own space, a page of that.
    let function: fn(u16) -> Option<code::Code> = code::returning;
    let page = Region::pages(p, 1);
    let anchors: Vec<usize> = [function as *const () as usize, page.addr()].into();
    // On a host with few addresses, the metadata must not fill what is in reach.
    let config = JitConfig::new().metadata(1 << 20);
    let mut reached = 0;
    for anchor in anchors {
        let near = Placement::near(anchor, REACH);
        let mut model = Model::new(make(p, config.rx(near)).expect("it can be made"));
        for seed in 0..500 {
            match model.alloc(3000, seed) {
                Ok(()) => reached += 1,
                Err(error) => {
                    assert_eq!(
                        cause(error),
                        Some(ErrorKind::Exhausted),
                        "out of reach: {error}"
                    );
                    break;
                }
            }
        }
        for live in &model.live {
            expect_in(near.within, live.rx(), live.len());
        }
        model.release_all();
    }
    assert!(
        reached >= 500,
        "around one of the anchors there must be room"
    );
    Outcome::Passed
}
