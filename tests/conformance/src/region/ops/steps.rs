//! What each call does, and must do.

use super::super::{
    array::{Page, Wanted},
    ensure,
};
use super::{LONGEST, Run, Spot};
use alloc::{string::String, vec::Vec};
use core::ops::Range;
use hostmem_core::{
    page::Access,
    provider::{Commit, ErrorKind, PageProvider},
    region::{PageState, RegionAllocator},
};

impl<P: PageProvider + Copy> Run<'_, P> {
    pub(super) fn map(
        &mut self,
        pages: usize,
        spot: Spot,
        guarded: bool,
        tag: u16,
        failures: u64,
    ) -> Result<(), String> {
        let wanted = Wanted {
            before: usize::from(guarded),
            len: (pages % LONGEST).max(1),
            after: 2 * usize::from(guarded),
            align: 1,
        };
        let (request, expected) = self.request(wanted, spot);
        let got = self.region.map(&request, Commit::READ_WRITE, tag);
        let Some(start) = self.placed(got, expected, wanted.total(), failures)? else {
            return Ok(());
        };
        let body = start + wanted.before..start + wanted.before + wanted.len;
        let whole = start..start + wanted.total();
        self.array.set(whole, PageState::Reserved, Some(tag));
        self.committed(body, Some(tag))
    }

    /// Takes note that pages were committed, and given out just now.
    fn committed(&mut self, range: Range<usize>, tag: Option<u16>) -> Result<(), String> {
        let state = PageState::Committed(Access::ReadWrite);
        self.array.recent = self.array.absolute(range.end);
        self.array.set(range.clone(), state, tag);
        self.array.fresh(range)
    }

    pub(super) fn reserve(
        &mut self,
        pages: usize,
        spot: Spot,
        align: usize,
        failures: u64,
    ) -> Result<(), String> {
        let exact = matches!(spot, Spot::Exact(_));
        let wanted = Wanted {
            before: 0,
            len: (pages % LONGEST).max(1),
            after: 0,
            align: if exact { 1 } else { 1 << (align % 6) },
        };
        let (request, expected) = self.request(wanted, spot);
        let expected = expected.map_err(|kind| match kind {
            // A provider knows of others' pages only that they are in use.
            ErrorKind::OutsideRange => ErrorKind::Taken,
            other => other,
        });
        let got = self.region.reserve(&request);
        if let Some(start) = self.placed(got, expected, wanted.len, failures)? {
            let range = start..start + wanted.len;
            self.array.recent = self.array.absolute(range.end);
            self.array.set(range, PageState::Reserved, Some(0));
        }
        Ok(())
    }

    pub(super) fn map_over(
        &mut self,
        range: Range<usize>,
        tag: u16,
        failures: u64,
    ) -> Result<(), String> {
        let pages = self.array.slice(range.clone());
        let foreign = pages.iter().any(|page| page.is_foreign());
        let committed = |page: &Page| match page {
            Page::Ours(ours) => matches!(ours.state, PageState::Committed(_)),
            _ => false,
        };
        let replaces = pages.iter().any(committed);
        let part = self.array.part(range.clone());
        // SAFETY: no other code uses pages of the region.
        let got = unsafe { self.region.map_over(part, Commit::READ_WRITE, tag) };
        let is_free = |region: &RegionAllocator<_, _>| {
            region.gaps(part.addresses()).next() == Some(part.addresses())
        };
        if got.is_err() && !foreign && replaces && is_free(&self.region) {
            // What was there is gone, as is said of errors then.
            self.array.free(range.clone());
        }
        let expected = if foreign {
            Err(ErrorKind::OutsideRange)
        } else {
            Ok(())
        };
        match self.succeeded(got, expected, range.clone(), failures)? {
            Some(()) => self.committed(range, Some(tag)),
            None => Ok(()),
        }
    }

    /// Calls the allocator as a provider, for pages that are in a state from which it can be
    /// called.
    pub(super) fn change(
        &mut self,
        range: Range<usize>,
        becomes: PageState,
        from: impl Fn(PageState) -> bool,
        failures: u64,
    ) -> Result<(), String> {
        if self.is_foreign(&range) {
            // Passed on, for what was mapped before; there is no such thing here.
            return Ok(());
        }
        let wrong = self
            .array
            .slice(range.clone())
            .iter()
            .find_map(|page| match page {
                Page::Ours(ours) if from(ours.state) => None,
                Page::Ours(_) => Some(ErrorKind::InvalidArgument),
                _ => Some(ErrorKind::OutsideRange),
            });
        let part = self.array.part(range.clone());
        let reserved = from(PageState::Reserved);
        let got = match becomes {
            PageState::Committed(_) if reserved => {
                // SAFETY: no other code uses pages of the region.
                unsafe { self.region.commit(part, Commit::READ_WRITE) }.map(drop)
            }
            PageState::Committed(access) => {
                // SAFETY: no other code uses pages of the region.
                unsafe { self.region.protect(part, access) }
            }
            _ => {
                // SAFETY: no other code uses pages of the region.
                unsafe { self.region.decommit(part) }
            }
        };
        let expected = wrong.map_or(Ok(()), Err);
        if self
            .succeeded(got, expected, range.clone(), failures)?
            .is_some()
        {
            self.array.set(range.clone(), becomes, None);
            if reserved && becomes != PageState::Reserved {
                return self.array.fresh(range);
            }
        }
        Ok(())
    }

    pub(super) fn unmap(&mut self, range: Range<usize>, failures: u64) -> Result<(), String> {
        if self.is_foreign(&range) {
            return Ok(());
        }
        // SAFETY: no other code uses pages of the region.
        let got = unsafe { self.region.unmap(self.array.part(range.clone())) };
        let pieces = self.array.runs(range.clone(), |page| !page.is_foreign());
        let pieces: Vec<_> = pieces.collect();
        for piece in pieces {
            let addresses = self.array.part(piece.clone()).addresses();
            let is_free = self.region.gaps(addresses).next() == Some(addresses);
            if got.is_err() && !is_free {
                // That failed; those behind it stay as well, which is looked at below.
                break;
            }
            self.array.free(piece);
        }
        self.succeeded(got, Ok(()), range, failures).map(drop)
    }

    pub(super) fn resize(
        &mut self,
        range: Range<usize>,
        new_pages: usize,
        moves: bool,
        failures: u64,
    ) -> Result<(), String> {
        let told = |page: &Page| match page {
            Page::Ours(ours) => Some((ours.state, ours.tag)),
            _ => None,
        };
        let pages = self.array.slice(range.clone());
        let first = told(&pages[0]).filter(|_| pages.iter().all(|p| told(p) == told(&pages[0])));
        let tag = match first {
            Some((PageState::Committed(_), tag)) if new_pages > 0 => Some(tag),
            _ => None,
        };
        let (old_end, new_end) = (range.end, range.start + new_pages);
        let room = self.array.free_at(old_end, new_end.saturating_sub(old_end));
        let elsewhere = self.array.choose(Wanted {
            before: 0,
            len: new_pages.max(1),
            after: 0,
            align: 1,
        });
        let must_move = moves && room.is_err();
        let room = if must_move {
            elsewhere.map(drop).ok_or(ErrorKind::Exhausted)
        } else {
            room
        };
        let expected = tag.ok_or(ErrorKind::InvalidArgument).and(room);
        let (part, len) = (self.array.part(range.clone()), self.array.bytes(new_pages));
        let how = Commit::READ_WRITE;
        let got = if moves {
            // SAFETY: no other code uses pages of the region.
            unsafe { self.region.remap(part, len, how) }
        } else {
            // SAFETY: no other code uses pages of the region.
            unsafe { self.region.resize(part, len, how) }
        };
        let Some(got) = self.succeeded(got, expected, range.clone(), failures)? else {
            return Ok(());
        };
        // What cannot grow where it lies for want of memory may elsewhere.
        let refused = self.failures() != failures || self.bounded;
        if must_move || moves && refused && got.addr() != part.addr() {
            let start = elsewhere.ok_or("moved where there was no room")?;
            let new = start..start + new_pages;
            let right = self.array.part(new.clone());
            ensure!(got == right, "{got:?} where {right:?} was expected");
            let state = PageState::Committed(how.access);
            self.array.set(new.clone(), state, tag);
            self.array.recent = self.array.absolute(new.end);
            let kept = range.len().min(new_pages);
            self.array.copied(range.start..range.start + kept, start);
            self.array.free(range);
            return self.array.fresh(start + kept..new.end);
        }
        let right = self.array.part(range.start..new_end);
        ensure!(got == right, "{got:?} where {right:?} was expected");
        if new_end < old_end {
            self.array.free(new_end..old_end);
        } else if new_end > old_end {
            self.committed(old_end..new_end, tag)?;
        }
        Ok(())
    }

    pub(super) fn release_unused(&mut self, least: usize, failures: u64) -> Result<(), String> {
        let got = self.region.release_unused(self.array.bytes(least));
        let runs: Vec<_> = self.array.free_runs(self.array.all()).collect();
        let mut released = 0;
        for run in runs.into_iter().filter(|run| run.len() >= least.max(1)) {
            let addresses = self.array.part(run.clone()).addresses();
            if got.is_err() && self.region.gaps(addresses).next().is_some() {
                // That failed; those behind it stay as well, which is looked at below.
                break;
            }
            released += run.len();
            self.array.belong(run, Page::Gone);
        }
        let all = self.array.all();
        if let Some(told) = self.succeeded(got, Ok(()), all, failures)? {
            let bytes = self.array.bytes(released);
            ensure!(told == bytes, "{told} bytes released, not {bytes}");
        }
        Ok(())
    }

    pub(super) fn adopt(&mut self, n: usize) -> Result<(), String> {
        if self.array.page(n) != Page::Gone {
            if !self.array.page(n).is_foreign() {
                // SAFETY: refused, since it is adopted already.
                let twice = unsafe { self.region.adopt(self.array.part(n..n + 1)) };
                let kind = twice.map_err(|error| error.kind());
                ensure!(kind == Err(ErrorKind::Taken), "{twice:?}: page {n} again");
            }
            return Ok(());
        }
        let end = (n..self.array.len()).find(|&n| self.array.page(n) != Page::Gone);
        let range = n..end.unwrap_or(self.array.len());
        let Some(part) = self.array.reserve_again(range.clone()) else {
            // Somebody else in this process was faster.
            return Ok(());
        };
        let failures = self.failures();
        // SAFETY: reserved just now, and the allocator's from now on.
        let got = unsafe { self.region.adopt(part) };
        if self
            .succeeded(got, Ok(()), range.clone(), failures)?
            .is_some()
        {
            self.array.belong(range, Page::Free);
        } else {
            self.array.release_again(part);
        }
        Ok(())
    }
}
