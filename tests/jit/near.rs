//! J8: code within reach of an anchor, in a window that others have fragmented and filled.

use crate::code::{Jit, OS, allocator};
use hostmem::{
    jit::{JitConfig, JitError, Span},
    page::{AddressRange, PageRange},
    provider::{ErrorKind, PageProvider, Place, Placement, Request},
};
use hostmem_test_support::isolate::isolated;

/// Fills a window with foreign mappings until only holes of one size are left, every second piece.
fn fragment(window: AddressRange, piece: usize) -> Vec<PageRange> {
    let count = (window.last() - window.start() + 1) / (2 * piece);
    (0..count)
        .filter_map(|n| {
            let at = Place::Exact(window.start() + 2 * n * piece);
            OS.reserve(&Request::bytes(piece).place(at)).ok()
        })
        .collect()
}

/// Fills what is left of a fragmented window by requests that say where; then it is given back.
fn place_by_request(near: Placement, mut foreign: Vec<PageRange>) {
    let jit = allocator(JitConfig::new());
    // The writable views, and other threads, take holes too.
    let reserved = jit.alloc(64).expect("anywhere");
    let placed = |jit: &Jit| {
        let span = jit.alloc_with(12 << 10, near)?;
        let start = span.rx().addr().get();
        let whole =
            near.within.contains(start) && near.within.contains(start + span.len_bytes() - 1);
        assert!(whole, "{span:?} lies outside {:?}", near.within);
        Ok(span)
    };
    let mut spans: Vec<Span> = (0..20).map(|_| placed(&jit).expect("holes")).collect();
    // Nearly full: all holes but one, and then that one too.
    let page = OS.page_size().bytes();
    let mut at = near.within.start();
    while at < near.within.last() {
        let request = Request::bytes(page).place(Place::Exact(at));
        foreign.extend(OS.reserve(&request).ok());
        at += page;
    }
    while let Ok(span) = placed(&jit) {
        spans.push(span); // What its blocks have left.
    }
    let before = jit.statistics();
    let error = placed(&jit).expect_err("the window is full");
    assert!(
        matches!(error, JitError::Map(e) if e.kind() == ErrorKind::Exhausted),
        "{error}"
    );
    assert_eq!(jit.statistics(), before, "a refused call changed something");
    for range in foreign.drain(..) {
        // SAFETY: reserved by the test, and not used.
        unsafe { OS.release(range) }.expect("whole");
    }
    spans.push(placed(&jit).expect("now there is room"));
    spans.push(reserved);
    spans
        .into_iter()
        .for_each(|span| jit.release(span).expect("once"));
}

#[test]
fn j8_near_means_near_or_an_error() {
    isolated!("j8_near_means_near_or_an_error", || {
        let room = OS
            .reserve(&Request::bytes(256 << 20).align(1 << 20))
            .expect("addresses");
        // SAFETY: reserved just now, and not used.
        unsafe { OS.release(room) }.expect("whole");
        let reach = 64 << 20;
        let anchor = room.addr() + (128 << 20);
        let near = Placement::near(anchor, reach);
        let inside = |span: &Span| {
            let start = span.rx().addr().get();
            near.within.contains(start) && near.within.contains(start + span.len_bytes() - 1)
        };
        // Thousands of holes of 16 KiB, each too small for an ordinary block.
        let foreign = fragment(near.within, 16 << 10);
        assert!(foreign.len() > 4000, "{} foreign mappings", foreign.len());
        let jit = allocator(JitConfig::new().rx(near));
        let spans: Vec<Span> = (0..50).map(|_| jit.alloc(4000).expect("holes")).collect();
        assert!(spans.iter().all(inside));
        assert!(
            matches!(jit.alloc(1 << 20), Err(JitError::Map(_))),
            "no hole is that large"
        );
        spans
            .into_iter()
            .for_each(|span| jit.release(span).expect("once"));
        drop(jit); // With the empty block that it kept.
        place_by_request(near, foreign);
        // Full, to the last page.
        let full = OS.reserve(&Request::bytes(2 * reach).place(Place::Exact(anchor - reach)));
        let full = full.expect("all of it was given back");
        let jit = allocator(JitConfig::new().rx(near));
        let error = jit.alloc(64).expect_err("the window is full");
        assert!(
            matches!(error, JitError::Map(e) if e.kind() == ErrorKind::Exhausted),
            "{error}"
        );
        // SAFETY: reserved just now, and not used.
        unsafe { OS.release(full) }.expect("whole");
        let span = jit.alloc(64).expect("now there is room");
        assert!(inside(&span));
        jit.release(span).expect("once");
    });
}
