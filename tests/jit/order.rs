//! Code at promised addresses: lowest first, and at the offsets where it was before.

use crate::{
    code::{OS, allocator},
    common::{CODE_LEN, call, code_returning, emulated, random::Random},
};
use hostmem::{
    jit::{JitConfig, JitError, Span},
    page::{AddressRange, PageRange},
    provider::{ErrorKind, PageProvider, Placement, Request},
};
use hostmem_test_support::isolate::isolated;
use std::collections::BTreeMap;

/// A window of addresses that were free just now.
fn window(len: usize) -> AddressRange {
    let request = Request::bytes(len).align(1 << 20);
    let range: PageRange = OS.reserve(&request).expect("there are addresses");
    // SAFETY: reserved just now, and not used.
    unsafe { OS.release(range) }.expect("it is reserved");
    range.addresses()
}

#[test]
fn spans_are_handed_out_lowest_first() {
    isolated!("spans_are_handed_out_lowest_first", || {
        let range = window(64 << 20);
        // Writable views elsewhere.
        let below = AddressRange::new(1 << 16, range.start() - 1).expect("not empty");
        let config = JitConfig::new()
            .rx(Placement::lowest(range))
            .rw(Placement::within(below));
        let jit = allocator(config);
        let granule = config.granularity_bytes();
        let mut random = Random(5);
        // Starts and ends of what is live.
        let mut live: BTreeMap<usize, (usize, Span)> = BTreeMap::new();
        for step in 0..if emulated() { 500 } else { 5000 } {
            if random.below(5) < 3 || live.is_empty() {
                let size = 1 + random.up_to([64, 700, 9000]);
                let need = size.next_multiple_of(granule);
                // The lowest hole of the blocks that is long enough, by a look at all of them.
                let expected = jit.blocks().find_map(|block| {
                    let mut at = block.rx.addr() + granule;
                    for (start, (end, _)) in live.range(block.rx.addr()..block.rx.end()) {
                        if start - at >= need {
                            return Some(at);
                        }
                        at = *end;
                    }
                    (block.rx.end() - at >= need).then_some(at)
                });
                let span = jit.alloc(size).expect("memory");
                let rx = span.rx().addr().get();
                assert!(range.contains(rx));
                match expected {
                    Some(expected) => assert_eq!(rx, expected, "step {step}, {size} bytes"),
                    None => {
                        let last = live.last_key_value();
                        assert!(last.is_none_or(|(start, _)| rx > *start), "in a new block");
                    }
                }
                live.insert(rx, (rx + span.len_bytes(), span));
            } else {
                let n = random.below(live.len());
                let rx = *live.keys().nth(n).expect("so many");
                let (_, span) = live.remove(&rx).expect("it is there");
                jit.release(span).expect("once");
            }
        }
        let first = jit.blocks().next().expect("there is one");
        assert_eq!(
            first.rx.addr(),
            range.start(),
            "from the start of the window"
        );
    });
}

#[test]
fn a_cache_comes_back_at_its_offsets() {
    isolated!("a_cache_comes_back_at_its_offsets", || {
        let range = window(32 << 20);
        let below = AddressRange::new(1 << 16, range.start() - 1).expect("not empty");
        let config = JitConfig::new()
            .block_size(64 << 10, 1 << 20)
            .rx(Placement::lowest(range))
            .rw(Placement::within(below));
        let mut random = Random(9);
        let mut kept: Vec<(usize, usize, u32)> = Vec::new();
        {
            let jit = allocator(config);
            let mut spans = Vec::new();
            for n in 0..if emulated() { 200 } else { 2000 } {
                let size = CODE_LEN + random.up_to([100, 1000, 30_000]);
                let mut span = jit.alloc(size).expect("memory");
                jit.write(&mut span, 0, &code_returning(n)).expect("ours");
                spans.push((span, n));
                if n % 3 == 0 {
                    let (gone, _) = spans.swap_remove(random.below(spans.len()));
                    jit.release(gone).expect("once");
                }
            }
            // One that is longer than a block.
            let mut long = jit.alloc(200_000).expect("memory");
            jit.write(&mut long, 0, &code_returning(9999))
                .expect("ours");
            spans.push((long, 9999));
            for live in jit.spans() {
                let rx = live.span.rx;
                let (_, n) = spans
                    .iter()
                    .find(|(s, _)| s.rx() == rx)
                    .expect("it is live");
                kept.push((rx.addr().get() - range.start(), live.span.len, *n));
            }
            assert_eq!(kept.len(), spans.len());
        }
        let jit = allocator(config);
        let mut spans = Vec::new();
        for &(offset, len, value) in &kept {
            let mut span = jit.alloc_at(offset, len).expect("where it was");
            assert_eq!(span.rx().addr().get(), range.start() + offset);
            assert_eq!(span.len_bytes(), len);
            jit.write(&mut span, 0, &code_returning(value))
                .expect("ours");
            spans.push((span, value));
        }
        for (span, value) in &spans {
            // SAFETY: written just now.
            assert_eq!(unsafe { call(span.rx().as_ptr()) }, *value);
        }
        // Where something is, nothing else can be.
        for &(offset, len, _) in kept.iter().take(50) {
            for (offset, len) in [(offset, 64), (offset, len), (offset + len - 64, 64)] {
                let taken = jit.alloc_at(offset, len);
                let Err(JitError::Map(error)) = taken else {
                    panic!("{taken:?}")
                };
                assert_eq!(error.kind(), ErrorKind::Taken);
            }
        }
        // What is free serves as ever, and other offsets do not.
        let (freed, _) = spans.swap_remove(10);
        let (offset, len) = (freed.rx().addr().get() - range.start(), freed.len_bytes());
        jit.release(freed).expect("once");
        let again = jit.alloc_at(offset, len).expect("it is free");
        jit.release(again).expect("once");
        for offset in [0, 1, 65, offset + 1] {
            let refused = jit
                .alloc_at(offset, 64)
                .expect_err("no granule, or padding");
            assert_eq!(refused, JitError::InvalidPlacement, "{offset}");
        }
        for offset in [(32 << 20) - 32, 32 << 20, usize::MAX - 63, 1 << 40] {
            let Err(JitError::Map(error)) = jit.alloc_at(offset, 64) else {
                panic!("{offset:#x} lies outside")
            };
            assert_eq!(error.kind(), ErrorKind::OutsideRange);
        }
        let unordered = allocator(JitConfig::new());
        assert_eq!(
            unordered.alloc_at(64, 64).err(),
            Some(JitError::InvalidPlacement)
        );
    });
}
