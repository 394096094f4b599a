//! What is measured: who finds room in a window of addresses.

use std::hint::black_box;

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// A mapping in a window: pages are numbered from the window's start.
///
/// One word, whoever is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first page.
    pub start: u32,
    /// How many pages.
    pub pages: u16,
    /// Whose they are: random, so that neighbours do not join.
    pub tag: u16,
}

impl Mapping {
    /// Returns the page behind the last one.
    pub const fn end(&self) -> u32 {
        self.start + self.pages as u32
    }
}

/// Finds room in a window and keeps book of what lies there. None touches the addresses.
///
/// Each panics where it has no room or no memory: nothing can be measured then.
pub trait Space {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// Maps exactly these pages, which are free.
    fn place(&mut self, mapping: Mapping);

    /// Maps so many pages wherever there is room; returns the first one.
    fn map(&mut self, pages: u16, tag: u16) -> u32;

    /// Unmaps a whole mapping.
    fn unmap(&mut self, mapping: Mapping);
}

/// Tells what lies in a window.
pub trait Lookup {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// Returns the tag of what lies `offset` bytes from the window's start.
    fn tag_at(&self, offset: u64) -> Option<u16>;
}

/// Keeps what lies where as it is told.
pub trait Tracker {
    /// What rows and notes call it.
    const NAME: &'static str;

    /// Adds a range where there is none.
    fn insert(&mut self, range: Mapping);

    /// Takes a whole range away.
    fn remove(&mut self, range: Mapping);

    /// Shows where each range starts, in pages, and its tag, in order.
    fn each(&self, visit: impl FnMut(u64, u16));
}

/// Nothing at all: measures what the harness itself costs.
#[derive(Debug)]
pub struct Nothing;

impl Space for Nothing {
    const NAME: &'static str = "harness";

    fn place(&mut self, mapping: Mapping) {
        black_box(mapping);
    }

    #[inline(never)]
    fn map(&mut self, pages: u16, tag: u16) -> u32 {
        u32::from(black_box(pages) ^ black_box(tag))
    }

    #[inline(never)]
    fn unmap(&mut self, mapping: Mapping) {
        black_box(mapping);
    }
}
