//! Requests for gaps, and the statistics of a map.

#[cfg(doc)]
use super::RangeMap;
use crate::page::AddressRange;

/// Which gap is taken of those that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapOrder {
    /// The one at the lowest address.
    Lowest,
    /// The one at the highest address.
    Highest,
    /// The one whose start is nearest to that of the page with this address; the lower one of two.
    Nearest(usize),
}

/// A request for [`RangeMap::find_gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRequest {
    /// Bytes; whole pages, not 0.
    pub len: usize,
    /// The alignment of the aligned byte's address; a power of two.
    pub align: usize,
    /// How many bytes behind the start the aligned byte lies; a multiple of the page size or of
    /// the alignment, whichever is less. It may lie outside the gap.
    pub offset: usize,
    /// Where the gap may lie. Pages count that are wholly inside.
    pub within: AddressRange,
    /// Which one.
    pub order: GapOrder,
}

impl GapRequest {
    /// Asks for `len` bytes at the lowest address where they fit.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            align: 1,
            offset: 0,
            within: AddressRange::ALL,
            order: GapOrder::Lowest,
        }
    }

    /// Asks for another order.
    #[must_use]
    pub const fn order(self, order: GapOrder) -> Self {
        Self { order, ..self }
    }

    /// Asks for addresses within a range.
    #[must_use]
    pub const fn within(self, within: AddressRange) -> Self {
        Self { within, ..self }
    }

    /// Asks that the byte `offset` bytes behind the start is aligned.
    #[must_use]
    pub const fn aligned(self, align: usize, offset: usize) -> Self {
        Self {
            align,
            offset,
            ..self
        }
    }
}

/// The statistics of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Ranges.
    pub ranges: usize,
    /// Pages that the ranges cover.
    pub pages: usize,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Bytes of the nodes of the tree.
    pub node_bytes: usize,
    /// Bytes of memory that the map holds, nodes for later changes included.
    pub metadata_bytes: usize,
    /// Bytes of nodes that a forked child left behind: a lock was held when it was forked, and what
    /// the lock guarded was built anew. They are not in the other numbers, and go with the map.
    pub abandoned_bytes: usize,
}
