//! Memory for metadata: a small heap over one reserved range that commits as it grows.
//!
//! Every structure of hostmem keeps its book-keeping in an arena, outside what it describes, so
//! that nothing here needs a global allocator and no stray write into user memory can reach it.
//!
//! ```text
//!   ┌──────────────┬───────────────────────────────┐
//!   │  committed   │            reserved           │   one range, bounded when it is made
//!   └──────────────┴───────────────────────────────┘
//!    linked_list_allocator   grows by GROWTH, later by LARGE, never shrinks
//! ```
//!
//! The list is right for few, large and rare allocations, and wrong for a hot path: a call costs
//! microseconds when ten thousand small objects have left holes.

use crate::{
    page::{PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, PageWish, Request},
    sync::{Lock, RawMutex, Spin},
};
use core::{alloc::Layout, fmt, ptr::NonNull};
use linked_list_allocator::Heap;

/// Bytes committed at a time, at least: few system calls, little waste.
const GROWTH: usize = 64 << 10;

/// Bytes committed at a time where more than [`FEW_LARGE`] are: usual large pages, which are asked
/// for. What is read at random in megabytes is read through few entries of the address cache.
const LARGE: usize = 2 << 20;

/// Below this many committed bytes large pages would waste more than they help.
const FEW_LARGE: usize = 2 * LARGE;

/// The least reservation that [`Arena::new`] settles for when address space is short.
const LEAST: usize = 1 << 20;

/// A bounded heap for metadata.
pub struct Arena<P: PageProvider + Copy, R = Spin> {
    provider: P,
    range: PageRange,
    page: PageSize,
    state: Lock<State, R>,
}

struct State {
    list: Heap,
    committed: usize,
}

impl<P: PageProvider + Copy, R: RawMutex> Arena<P, R> {
    /// Reserves an arena of `max_len` bytes; where address space is short, of half as much, and so
    /// on down to 1 MiB. Commits nothing yet.
    ///
    /// # Errors
    ///
    /// What the provider says of the smallest reservation.
    pub fn new(provider: P, max_len: usize) -> Result<Self, Error> {
        let page = provider.page_size();
        let mut len = page.round_up(max_len).ok_or(ErrorKind::InvalidArgument)?;
        let range = loop {
            match provider.reserve(&Request::bytes(len)) {
                Err(e) if e.kind() == ErrorKind::Exhausted && len / 2 >= LEAST => {
                    len = page.round_down(len / 2);
                }
                result => break result?,
            }
        };
        Ok(Self {
            provider,
            range,
            page,
            state: Lock::new(State {
                list: Heap::empty(),
                committed: 0,
            }),
        })
    }

    /// Allocates memory of `layout`; its contents are undefined.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] at the arena's bound, [`ErrorKind::InvalidArgument`] for a layout
    /// of size zero; what the provider says of a commit. Nothing changes then.
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, Error> {
        if layout.size() == 0 {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let mut state = self.state.lock();
        if let Ok(found) = state.list.allocate_first_fit(layout) {
            return Ok(found);
        }
        self.grow(&mut state, layout)?;
        state
            .list
            .allocate_first_fit(layout)
            .map_err(|()| ErrorKind::Exhausted.into())
    }

    /// Commits enough behind what is committed for `layout` to fit there.
    fn grow(&self, state: &mut State, layout: Layout) -> Result<(), Error> {
        // The list rounds sizes up to two words, and aligning may split off a hole of that size.
        let slack = layout.align().max(align_of::<usize>()) + 4 * size_of::<usize>();
        let want = layout
            .size()
            .checked_add(slack)
            .ok_or(ErrorKind::InvalidArgument)?;
        let want = self.page.round_up(want).ok_or(ErrorKind::InvalidArgument)?;
        let left = self.range.len_bytes() - state.committed;
        if want > left {
            return Err(ErrorKind::Exhausted.into());
        }
        let (len, how) = if state.committed < FEW_LARGE {
            // Both operands are whole pages, unless the page is larger than GROWTH: then want wins.
            (want.max(self.page.round_down(GROWTH)), Commit::READ_WRITE)
        } else {
            let end = self.range.addr() + state.committed;
            let whole = (end + want).next_multiple_of(LARGE.max(self.page.bytes())) - end;
            let how = Commit {
                pages: PageWish::Transparent,
                ..Commit::READ_WRITE
            };
            (whole, how)
        };
        let len = len.min(left);
        let part = self.range.part(state.committed, len, self.page);
        let part = part.ok_or(ErrorKind::Exhausted)?;
        // SAFETY: part lies in this arena's reservation, behind all that was ever committed; the
        // lock makes this the only grower.
        unsafe { self.provider.commit(part, how)? };
        if state.committed == 0 {
            // SAFETY: init needs an exclusive, writable range that outlives the list.
            // - exclusive: part is reserved by this arena and has not been handed out;
            // - writable: commit returned Ok for exactly this range;
            // - outlives: the list lives in self, whose Drop releases the range.
            unsafe { state.list.init(part.start().as_ptr(), len) };
        } else {
            // SAFETY: as above; part begins where the list's memory ends, since commits are
            // consecutive, as extend asks.
            unsafe { state.list.extend(len) };
        }
        state.committed += len;
        Ok(())
    }

    /// Frees what `alloc` returned.
    ///
    /// # Safety
    ///
    /// `memory` came from [`Arena::alloc`] of this arena with the same `layout`, was not freed
    /// since, and nobody uses it.
    pub unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
        let mut state = self.state.lock();
        // SAFETY: the caller's promise is deallocate's.
        unsafe { state.list.deallocate(memory, layout) };
    }

    /// Allocates a slice of `len` values, each `init`. It is never freed before the arena.
    ///
    /// # Errors
    ///
    /// As of [`Arena::alloc`]; [`ErrorKind::InvalidArgument`] where the size overflows or is zero.
    pub fn alloc_slice<T>(
        &self,
        len: usize,
        mut init: impl FnMut() -> T,
    ) -> Result<NonNull<[T]>, Error> {
        let layout = Layout::array::<T>(len).map_err(|_| ErrorKind::InvalidArgument)?;
        let first = self.alloc(layout)?.cast::<T>();
        for n in 0..len {
            // SAFETY: n < len values of T fit behind first, by the layout.
            let slot = unsafe { first.add(n) };
            // SAFETY: slot lies in the fresh allocation and is aligned for T, by the layout.
            unsafe { slot.write(init()) };
        }
        Ok(NonNull::slice_from_raw_parts(first, len))
    }

    /// Allocates memory for `value` and moves it there. It is never freed before the arena, and
    /// never dropped.
    ///
    /// # Errors
    ///
    /// As of [`Arena::alloc`]; `value` is dropped then.
    pub fn alloc_value<T>(&self, value: T) -> Result<NonNull<T>, Error> {
        let place = self.alloc(Layout::new::<T>())?.cast::<T>();
        // SAFETY: fresh memory with the layout of T.
        unsafe { place.write(value) };
        Ok(place)
    }

    /// Returns how much memory the arena holds, in bytes.
    pub fn committed_bytes(&self) -> usize {
        self.state.lock().committed
    }

    /// Returns how much of it is in use, in bytes.
    pub fn used_bytes(&self) -> usize {
        self.state.lock().list.used()
    }

    /// Returns the bound in bytes: the length of the reservation.
    pub const fn max_bytes(&self) -> usize {
        self.range.len_bytes()
    }

    /// Returns where the arena lies.
    pub const fn range(&self) -> PageRange {
        self.range
    }
}

impl<P: PageProvider + Copy, R> Drop for Arena<P, R> {
    fn drop(&mut self) {
        // SAFETY: the range came from reserve in new and was never released; whoever uses memory of
        // the arena borrows it or promised, in free and alloc_slice, to end before it.
        let released = unsafe { self.provider.release(self.range) };
        // There is nobody to tell: the range stays reserved, which wastes addresses and no more.
        let _ = released;
    }
}

impl<P: PageProvider + Copy, R> fmt::Debug for Arena<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
