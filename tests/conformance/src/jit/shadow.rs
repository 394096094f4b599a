//! A map of live spans, kept beside the allocator, that rejects overlap.

use alloc::collections::BTreeMap;
use hostmem_core::jit::SpanInfo;

/// Live spans by their addresses in both views.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    rx: BTreeMap<usize, SpanInfo>,
    /// Ends by starts in the writable view.
    rw: BTreeMap<usize, usize>,
}

impl Shadow {
    /// Adds a span. Its views must overlap no other views.
    #[track_caller]
    pub(super) fn insert(&mut self, span: SpanInfo) {
        let (rx, rw) = (span.rx.addr().get(), span.rw.addr().get());
        let rx_before = self.rx.range(..rx + span.len).next_back();
        let rx_free = rx_before.is_none_or(|(&start, old)| start + old.len <= rx);
        assert!(
            rx_free,
            "{span:?} overlaps {rx_before:?} in the executable view"
        );
        let rw_before = self.rw.range(..rw + span.len).next_back();
        let rw_free = rw_before.is_none_or(|(_, &end)| end <= rw);
        assert!(
            rw_free,
            "{span:?} overlaps {rw_before:x?} in the writable view"
        );
        self.rx.insert(rx, span);
        self.rw.insert(rw, rw + span.len);
    }

    #[track_caller]
    pub(super) fn remove(&mut self, span: SpanInfo) {
        let known = self.rx.remove(&span.rx.addr().get());
        assert_eq!(known, Some(span), "only live spans are taken out");
        self.rw.remove(&span.rw.addr().get());
    }

    /// Yields the live spans that start in a part of the executable view, by address.
    pub(super) fn within(&self, start: usize, end: usize) -> impl Iterator<Item = SpanInfo> + '_ {
        self.rx.range(start..end).map(|(_, span)| *span)
    }

    /// Counts the live spans.
    pub(super) fn len(&self) -> usize {
        self.rx.len()
    }

    /// Returns the live span around an address of the executable view.
    pub(super) fn around(&self, addr: usize) -> Option<SpanInfo> {
        let (start, span) = self.rx.range(..=addr).next_back()?;
        (addr - start < span.len).then_some(*span)
    }
}
