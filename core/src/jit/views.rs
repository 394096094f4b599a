//! The mapping behind a block: two views of the same pages, or one range with both uses.

use crate::{
    page::{PageRange, PageSize},
    provider::DualMapping,
};

/// How a block is mapped.
pub(super) enum Views {
    /// Written through one view, executed through the other.
    Dual(DualMapping),
    /// One range, whose pages are of this size.
    Single(PageRange, PageSize),
}

impl Views {
    /// Returns the executable view.
    pub(super) const fn rx(&self) -> PageRange {
        match self {
            Self::Dual(mapping) => mapping.rx(),
            Self::Single(range, _) => *range,
        }
    }

    /// Returns the writable view.
    pub(super) const fn rw(&self) -> PageRange {
        match self {
            Self::Dual(mapping) => mapping.rw(),
            Self::Single(range, _) => *range,
        }
    }

    /// Returns the bytes of each view.
    pub(super) const fn len_bytes(&self) -> usize {
        self.rx().len_bytes()
    }

    /// Returns the size of the pages got.
    pub(super) const fn page_size(&self) -> PageSize {
        match self {
            Self::Dual(mapping) => mapping.page_size(),
            Self::Single(_, page) => *page,
        }
    }
}
