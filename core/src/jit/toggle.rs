//! Pages that are writable for the time of a write, where blocks are mapped once.
//!
//! ```text
//!   Toggling ──► Writing ──► Writing ──► …      each in the frame of a call that writes
//!                 pages       pages
//! ```
//!
//! The lock is held while accesses change and not while bytes are written, so that a closure which
//! writes one span may write, shrink and release others. A page that several writers need is made
//! executable again by the last one. Their number has no bound, since each brings its own entry.

use super::{CodeProvider, JitAllocator, JitError, mapping::Way};
use crate::{
    page::{Access, PageRange},
    provider::PageProvider,
    sync::RawMutex,
};
use core::{
    cell::Cell,
    marker::PhantomPinned,
    pin::{Pin, pin},
    ptr::{self, NonNull},
};

/// The writes under way.
pub(super) struct Toggling {
    first: *const Writing,
    /// How many forks this process descends from: entries of the parent's threads are in no list.
    generation: u64,
}

// SAFETY: the entries that the list leads to are reached under the lock alone, and each of them
// stays in its place until its own thread has taken it out.
unsafe impl Send for Toggling {}

impl Toggling {
    pub(super) const NONE: Self = Self {
        first: ptr::null(),
        generation: 0,
    };

    /// Adds an entry.
    fn begin(&mut self, writing: Pin<&Writing>) {
        writing.next.set(self.first);
        writing.generation.set(self.generation);
        self.first = ptr::from_ref(writing.get_ref());
    }

    /// Takes an entry out; says whether it was in the list.
    fn end(&mut self, writing: Pin<&Writing>) -> bool {
        let this = ptr::from_ref(writing.get_ref());
        if writing.generation.get() != self.generation {
            return false;
        }
        if self.first == this {
            self.first = writing.next.get();
            return true;
        }
        let before = self.all().find(|other| other.next.get() == this);
        if let Some(before) = before {
            before.next.set(writing.next.get());
        }
        before.is_some()
    }

    /// Yields the writes under way.
    fn all(&self) -> impl Iterator<Item = &Writing> {
        // SAFETY: an entry is pinned in the frame of a call that takes it out before it returns,
        // under the lock, which is held here.
        let at = |entry: *const Writing| unsafe { entry.as_ref() };
        core::iter::successors(at(self.first), move |entry| at(entry.next.get()))
    }

    /// Returns the first part of `pages` from `from` bytes on that no write under way needs: where
    /// it begins and ends.
    fn unused(&self, pages: PageRange, from: usize) -> Option<(usize, usize)> {
        let (base, len) = (pages.addr(), pages.len_bytes());
        let mut at = from;
        // Each turn goes past one of them at least.
        while let Some(end) = self
            .all()
            .map(|writing| writing.part_of(base))
            .filter(|&(start, end)| start <= at && at < end)
            .map(|(_, end)| end)
            .max()
        {
            at = end;
        }
        let next = self
            .all()
            .map(|writing| writing.part_of(base))
            .filter(|&(start, end)| start > at && start < end)
            .map(|(start, _)| start)
            .min();
        let end = next.map_or(len, |next| next.min(len));
        (at < end).then_some((at, end))
    }
}

/// A write under way: an entry of the list.
struct Writing {
    pages: PageRange,
    /// Changed under the lock alone, as the rest is.
    next: Cell<*const Self>,
    generation: Cell<u64>,
    _pinned: PhantomPinned,
}

impl Writing {
    /// Returns where the pages begin and end, counted from `base`; what lies before it is cut off.
    fn part_of(&self, base: usize) -> (usize, usize) {
        let start = self.pages.addr();
        let end = start + self.pages.len_bytes();
        (start.saturating_sub(base), end.saturating_sub(base))
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Runs `write` while the pages around `len` bytes at `rw` are writable, and not executable.
    ///
    /// # Safety
    ///
    /// The bytes lie in a block of this allocator that is mapped once and stays mapped.
    #[cold]
    pub(super) unsafe fn toggled<T>(
        &self,
        rw: NonNull<u8>,
        len: usize,
        write: impl FnOnce() -> T,
    ) -> Result<T, JitError> {
        let start = self.page.round_down(rw.addr().get());
        let end = self.page.round_up(rw.addr().get() + len);
        // SAFETY: a block starts at a page, so the start of this page lies in it too.
        let first = unsafe { rw.sub(rw.addr().get() - start) };
        let pages = end.and_then(|end| PageRange::new(first, end - start, self.page));
        let writing = pin!(Writing {
            pages: pages.ok_or(JitError::OutOfBounds)?,
            next: Cell::new(ptr::null()),
            generation: Cell::new(0),
            _pinned: PhantomPinned,
        });
        let writing = writing.into_ref();
        let mut toggling = self.toggling.lock();
        // SAFETY: the pages lie in one block that is mapped once, committed to be toggled.
        unsafe { self.provider.protect(writing.pages, Access::ReadWrite) }
            .map_err(JitError::Protect)?;
        toggling.begin(writing);
        drop(toggling);
        let executable = Executable(self, writing);
        let result = write();
        executable.again().map(|()| result)
    }

    /// Makes what the parent's threads were writing executable in a forked child, which has none of
    /// them; what the forking thread itself was writing too.
    pub(super) fn end_writes_of_the_parent(&self) {
        if self.kind.way() != Way::Toggle {
            return;
        }
        let mut toggling = self.toggling.lock();
        let under_way = !toggling.first.is_null();
        // The entries are in frames of threads that are not there: they are not looked at.
        toggling.first = ptr::null();
        toggling.generation += 1;
        if under_way {
            for block in self.blocks() {
                // SAFETY: a whole block, committed to be toggled; the child's only thread is here.
                // A failure leaves pages that are writable and cannot be executed.
                let _ = unsafe { self.provider.protect(block.rx, Access::ReadExec) };
            }
        }
    }
}

/// Makes pages executable again, also when a writer panics.
struct Executable<'a, P: CodeProvider, M: PageProvider + Copy, R: RawMutex>(
    &'a JitAllocator<P, M, R>,
    Pin<&'a Writing>,
);

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Executable<'_, P, M, R> {
    fn again(self) -> Result<(), JitError> {
        let result = self.protect();
        core::mem::forget(self);
        result
    }

    fn protect(&self) -> Result<(), JitError> {
        let (jit, writing) = (self.0, self.1);
        let mut toggling = jit.toggling.lock();
        if !toggling.end(writing) {
            return Ok(()); // Of the parent, which this process was forked from meanwhile.
        }
        let (mut from, mut result) = (0, Ok(()));
        while let Some((start, end)) = toggling.unused(writing.pages, from) {
            from = end;
            if let Some(part) = writing.pages.part(start, end - start, jit.page) {
                // SAFETY: the pages lie in one block that is mapped once, committed to be toggled.
                let protected = unsafe { jit.provider.protect(part, Access::ReadExec) };
                result = result.and(protected.map_err(JitError::Protect));
            }
        }
        result
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> Drop for Executable<'_, P, M, R> {
    fn drop(&mut self) {
        // A panic is on its way, and says more than this could.
        let _ = self.protect();
    }
}
