//! A part of the reservation: memory of one kind, handed out from its start to its end.

use hostmem::{
    page::{PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider},
};
use std::ptr::NonNull;

/// Bytes committed at a time: a page each would be a system call for every few functions.
const STEP: usize = 64 << 10;

/// ```text
///   0        sealed        used       committed         len
///   ├──────────┼─────────────┼────────────┼──────────────┤
///    finalized  written       free         reserved
/// ```
pub(super) struct Part {
    range: PageRange,
    committed: usize,
    used: usize,
    sealed: usize,
}

impl Part {
    /// Takes a reserved range.
    pub(super) const fn new(range: PageRange) -> Self {
        Self {
            range,
            committed: 0,
            used: 0,
            sealed: 0,
        }
    }

    /// Hands `size` bytes out, which read zero, and can be read and written.
    pub(super) fn allocate<P: PageProvider>(
        &mut self,
        provider: &P,
        size: usize,
        align: u64,
        how: Commit,
    ) -> Result<NonNull<u8>, Error> {
        let align = usize::try_from(align).ok().filter(|a| a.is_power_of_two());
        let align = align.ok_or(ErrorKind::InvalidArgument)?;
        let base = self.range.addr();
        let start = (base + self.used)
            .checked_next_multiple_of(align)
            .map(|start| start - base);
        let end = start.and_then(|start| start.checked_add(size));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(ErrorKind::Exhausted.into());
        };
        if end > self.range.len_bytes() {
            return Err(ErrorKind::Exhausted.into());
        }
        self.commit_up_to(provider, end, how)?;
        self.used = end;
        // SAFETY: start lies in the range, whose end is not before end.
        Ok(unsafe { self.range.start().add(start) })
    }

    fn commit_up_to<P: PageProvider>(
        &mut self,
        provider: &P,
        end: usize,
        how: Commit,
    ) -> Result<(), Error> {
        if end <= self.committed {
            return Ok(());
        }
        let page = provider.page_size();
        let step = end
            .checked_next_multiple_of(STEP.max(page.bytes()))
            .map_or(self.range.len_bytes(), |end| {
                end.min(self.range.len_bytes())
            });
        let pages = self
            .range
            .part(self.committed, step - self.committed, page)
            .ok_or(ErrorKind::InvalidArgument)?;
        // SAFETY: the pages are reserved and not committed yet, and no other code has their
        // address.
        unsafe { provider.commit(pages, how) }?;
        self.committed = step;
        Ok(())
    }

    /// Returns the pages that were written and not sealed, if there are any.
    pub(super) fn open(&self, page: PageSize) -> Option<PageRange> {
        let end = page.round_up(self.used)?;
        self.range.part(self.sealed, end - self.sealed, page)
    }

    /// Says that the open pages are sealed: what comes next begins behind them.
    pub(super) fn seal(&mut self, open: PageRange) {
        self.sealed += open.len_bytes();
        self.used = self.sealed;
    }
}
