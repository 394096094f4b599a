//! How long a block is beyond what its first span needs.

use super::{CodeProvider, JitAllocator, LargePages, mapping::Way};
use crate::{
    page::AddressRange,
    provider::{AHEAD, PageProvider, reserve_ahead},
    sync::RawMutex,
};

/// The window of the last request that found no place.
///
/// A request that is refused for want of a place costs a look at the process map, and is not to
/// cost two questions about limits as well: the next one for these addresses asks for a first
/// block.
#[derive(Clone, Copy)]
pub(super) struct FullWindow(Option<AddressRange>);

impl FullWindow {
    pub(super) const NONE: Self = Self(None);

    /// Remembers that a request for `window` was refused for want of a place, or that one found it.
    pub(super) fn note(&mut self, window: AddressRange, is_full: bool) {
        if is_full {
            self.0 = Some(window);
        } else if self.covers(window) {
            self.0 = None;
        }
    }

    /// Says whether a request for `window` may well find no place either. A window that moves with
    /// its anchor is another one each time, but as long as before.
    fn covers(self, window: AddressRange) -> bool {
        let reach = |range: AddressRange| range.last() - range.start();
        self.0
            .is_some_and(|full| full.intersect(window).is_some() && reach(window) <= reach(full))
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Returns how long a block in `window` may be that holds `least` bytes, and is `len` bytes
    /// long by the configuration: together its views take no more than a 64th of the addresses that
    /// are left, unless the span needs more or the block is a first one, which costs no system
    /// call.
    pub(super) fn len_ahead(
        &self,
        least: usize,
        len: usize,
        window: AddressRange,
        full: FullWindow,
    ) -> usize {
        let first = self.config.block_size_bytes();
        let needed = self.config.block_len(least, first, self.page);
        let needed = needed.map_or(len, |needed| needed.min(len));
        let in_window = (window.last() - window.start()) / AHEAD;
        if len.min(in_window) <= needed || full.covers(window) {
            return needed;
        }
        let views = match self.kind.way() {
            Way::Dual => 2,
            Way::Toggle | Way::ReadWriteExec(_) => 1,
        };
        let wanted = len.min(in_window).saturating_mul(views);
        let ahead = reserve_ahead(&self.provider, needed.saturating_mul(views), wanted) / views;
        let unit = match self.config.large_pages_wanted() {
            LargePages::Wish { bytes } | LargePages::Align { bytes } if ahead >= bytes => bytes,
            _ => 1,
        };
        let unit = unit.max(self.page.bytes());
        (ahead - ahead % unit).max(needed)
    }
}
