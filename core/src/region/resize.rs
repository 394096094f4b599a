//! Mappings that become longer or shorter.

use super::{
    PageState, RegionAllocator,
    record::{Mark, Notes, Record},
};
use crate::{
    page::{Access, PageRange},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Place, Request, linux},
    range_map::Pages,
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Makes a mapping shorter or longer where it lies: what is committed in `range`, all with one
    /// access and tag, becomes `new_len` bytes long, rounded up to whole pages. `how` is what new
    /// pages will be like; they are left out of core files where the others are, and have no name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length of zero or one that overflows, unless the range
    /// is committed, all alike, and for a longer one where the caller
    /// [mapped](RegionAllocator::map_with) some of it: it knows what a longer one shows;
    /// [`ErrorKind::Taken`] and [`ErrorKind::OutsideRange`] where the addresses behind it are not
    /// free; what [`RegionAllocator::map`] and [`RegionAllocator::unmap`] say. Nothing changes
    /// then.
    ///
    /// # Safety
    ///
    /// The mapping is the caller's, and no other code uses the memory that goes.
    pub unsafe fn resize(
        &self,
        range: PageRange,
        new_len: usize,
        how: Commit,
    ) -> Result<PageRange, Error> {
        let (new_len, _, mark) = self.to_resize(range, new_len)?;
        let pages = self.pages(range)?;
        let end = range.addr() + new_len;
        let new = (pages.0, self.page_of(end));
        if new.1 < pages.1 {
            // SAFETY: the tail is part of the caller's mapping, and no other code uses what goes,
            // by this function's condition.
            unsafe { self.unmap(self.range((new.1, pages.1)))? };
        } else if new.1 > pages.1 {
            let mut tail =
                Request::bytes(new_len - range.len_bytes()).place(Place::Exact(range.end()));
            if mark.notes.contains(Notes::NO_DUMP) {
                tail = tail.exclude_from_dump();
            }
            // mremap(2) has one number for all that is in the way.
            self.map(&tail, how, mark.tag)
                .map_err(|error| match is_want_of_room(error) {
                    true => error.with_like(linux::ENOMEM),
                    false => error,
                })?;
        }
        Ok(self.range(new))
    }

    /// Makes a mapping shorter or longer, where it lies or, if what is behind it is not free,
    /// elsewhere, and the pages where it was are free. `how` is what its memory is like, and what
    /// new pages will be like.
    ///
    /// Its memory is [moved](PageProvider::move_pages) where the provider below can, which is for
    /// whole mappings: what was moved does not join its neighbours, and part of a larger mapping
    /// leaves two. Otherwise its contents are copied: for a time there are both, and pages never
    /// touched are copied like any others.
    ///
    /// # Errors
    ///
    /// The errors of [`RegionAllocator::resize`], but for addresses that are not free;
    /// [`ErrorKind::InvalidArgument`] where it does not fit where it lies and is executable, since
    /// code knows its place, or has a ceiling that forbids to write the copy. Nothing changes then.
    ///
    /// # Safety
    ///
    /// The mapping is the caller's and was made by [`RegionAllocator::map`]; no other code uses it
    /// while this runs, nor by its old addresses afterwards if it moved.
    pub unsafe fn remap(
        &self,
        range: PageRange,
        new_len: usize,
        how: Commit,
    ) -> Result<PageRange, Error> {
        // SAFETY: resize asks that the mapping is the caller's, and that no other code uses what
        // goes: none uses any of it while this runs.
        match unsafe { self.resize(range, new_len, how) } {
            Err(error) if is_want_of_room(error) => {}
            result => return result,
        }
        let (new_len, access, mark) = self.to_resize(range, new_len)?;
        let writes = how.ceiling.allows(Access::ReadWrite);
        if access.executable() || how.access.executable() || !writes {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if how.access == access && self.inner.capabilities().contains(Capabilities::MOVE_PAGES) {
            // SAFETY: the mapping is the caller's, and no other code uses it while this runs, by
            // this function's condition.
            match unsafe { self.remap_moved(range, new_len, how, mark) } {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                result => return result,
            }
        }
        let writable = Commit {
            access: Access::ReadWrite,
            ..how
        };
        let recent = self.lock().recent;
        let new = self.map(&described(new_len, mark), writable, mark.tag)?;
        // SAFETY: to_resize has seen the old range committed, and no other code uses it, by this
        // function's condition; the new one was mapped above, readable and writable, and no other
        // code has its address yet.
        let moved = unsafe { self.move_memory((range, access), (new, how.access)) };
        if let Err(error) = moved {
            // SAFETY: mapped above, and no other code has its address yet. A failure wastes memory
            // that is known as the caller's, by its tag.
            let _ = unsafe { self.unmap(new) };
            self.lock().recent = recent;
            return Err(error);
        }
        Ok(new)
    }

    /// Moves a mapping elsewhere, where it becomes longer.
    ///
    /// # Safety
    ///
    /// The mapping is the caller's, and no other code uses it.
    unsafe fn remap_moved(
        &self,
        range: PageRange,
        new_len: usize,
        how: Commit,
        mark: Mark,
    ) -> Result<PageRange, Error> {
        let recent = self.lock().recent;
        let new = self.reserve_pages(&described(new_len, mark), mark.tag)?;
        let len = range.len_bytes();
        let head = new.part(0, len, self.page).ok_or(ErrorKind::Other)?;
        let mut done = Ok(());
        if let Some(tail) = new.part(len, new.len_bytes() - len, self.page) {
            // SAFETY: reserved above and not committed, and no other code has its address yet.
            done = unsafe { self.commit_pages(tail, how) }.map(drop);
        }
        // SAFETY: `range` is committed, as to_resize has seen, and no other code uses it, by this
        // function's condition; `head` was reserved above and not committed.
        let done = done.and_then(|()| unsafe { self.move_committed(range, head) });
        if let Err(error) = done {
            // SAFETY: reserved above, and no other code has its address yet. A failure wastes
            // addresses, which are known as the caller's by their tag.
            let _ = unsafe { self.unmap(new) };
            self.lock().recent = recent;
            return Err(error);
        }
        // Reserved pages become free without a call of the provider below. Where there is no memory
        // to note it, addresses are wasted.
        // SAFETY: the memory that was there has moved.
        let _ = unsafe { self.unmap(range) };
        Ok(new)
    }

    /// Copies what fits from one range to another, which gets its access then, and unmaps the
    /// first. That has its access again after an error.
    ///
    /// # Safety
    ///
    /// Both are committed, the second is readable and writable, and no other code uses either.
    unsafe fn move_memory(
        &self,
        (from, access): (PageRange, Access),
        (to, becomes): (PageRange, Access),
    ) -> Result<(), Error> {
        let is_hidden = !access.readable();
        if is_hidden {
            // SAFETY: committed, and used by no other code, by this function's conditions.
            unsafe { self.protect_pages(from, Access::Read)? };
        }
        let len = from.len_bytes().min(to.len_bytes());
        let (source, target) = (from.start().as_ptr(), to.start().as_ptr());
        // SAFETY: len bytes of both are committed; the first are readable, as they were or by the
        // call above, the second writable. Ranges that were given out do not overlap.
        unsafe { source.copy_to_nonoverlapping(target, len) };
        let mut done = Ok(());
        if becomes != Access::ReadWrite {
            // SAFETY: committed, and used by no other code, by this function's conditions.
            done = unsafe { self.protect_pages(to, becomes) };
        }
        if done.is_ok() {
            // SAFETY: no other code uses it, by this function's condition.
            done = unsafe { self.unmap(from) };
        }
        if done.is_err() && is_hidden {
            // SAFETY: still committed, as unmap did not take it, and used by no other code, by this
            // function's condition. It had this access before, and nothing else can be done.
            let _ = unsafe { self.protect_pages(from, access) };
        }
        done
    }

    /// Returns what a mapping is to be in bytes, and what it is like.
    fn to_resize(&self, range: PageRange, new_len: usize) -> Result<(usize, Access, Mark), Error> {
        let invalid = Error::of(ErrorKind::InvalidArgument);
        let rounded = self.page.round_up(new_len).filter(|len| *len > 0);
        let new_len = rounded.ok_or(invalid)?;
        range.addr().checked_add(new_len).ok_or(invalid)?;
        let pages = self.pages(range)?;
        let not_one = invalid.with_like(linux::EFAULT);
        let (access, mark) = self.committed_alike(pages).ok_or(not_one)?;
        // Only the caller knows how a mapping of its own continues.
        if new_len > range.len_bytes() && mark.notes.contains(Notes::PLACED) {
            return Err(invalid);
        }
        Ok((new_len, access, mark))
    }

    /// Returns access and mark of pages that are all committed with one access and tag. The
    /// mark has the notes of all of them.
    fn committed_alike(&self, pages: Pages) -> Option<(Access, Mark)> {
        let mut all: Option<(Access, Mark)> = None;
        for (_, record) in self.parts.current().entries(pages) {
            let Some(Record::Ours(PageState::Committed(access), mark)) = record else {
                return None;
            };
            let (is, so_far) = all.get_or_insert((access, mark));
            if (*is, so_far.tag) != (access, mark.tag) {
                return None;
            }
            so_far.notes |= mark.notes;
        }
        all
    }
}

/// Asks for addresses for what takes the place of a mapping with a mark.
fn described(len: usize, mark: Mark) -> Request<'static> {
    let request = Request::bytes(len);
    if mark.notes.contains(Notes::NO_DUMP) {
        request.exclude_from_dump()
    } else {
        request
    }
}

/// Says whether a mapping cannot grow where it lies, but may elsewhere.
fn is_want_of_room(error: Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Taken | ErrorKind::OutsideRange | ErrorKind::Exhausted
    )
}
