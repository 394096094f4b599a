//! Forks: what a child does about a change that was under way.
//!
//! A change notes its pages before it asks the provider below, and forgets them after the tree has
//! it. A child that finds the lock held copies the tree, which is whole after every step, into one
//! of its own, and does with the pages noted what [`Undo`] says. So a range is never free in the
//! tree and mapped, or half of what a record says.
//!
//! The change may have been interrupted on the forking thread, by a handler that forked. It resumes
//! in the child, in the tree and under the lock that were left behind: it sees that before it asks
//! the provider below, and after it has noted what was done, and begins again in the child's own
//! tree. Nothing else is placed in its pages until then.

use super::{
    PageState, RegionAllocator,
    allocator::State,
    lock::Held,
    record::{Mark, Record},
};
use crate::{
    arena::Arena,
    fork::ForkChild,
    provider::{Error, ErrorKind, PageProvider},
    range_map::{Pages, Tree, Writer},
    sync::{Lock, RawMutex},
};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How a child treats the pages of a change that it finds under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// They come from what is free or go there: they are made inaccessible, and set aside for the
    /// change that may resume.
    Free,
    /// The caller maps them: they are left as they are, and set aside.
    Leave,
    /// They stay given out: they are made reserved.
    Reserve,
    /// Their access changes: they get the one that is on record.
    Restore,
    /// They move to pages that begin there: both are left as they are, and set aside.
    Move(u64),
}

/// The change that is under way.
pub(super) struct Journal {
    undo: AtomicU32,
    start: AtomicU64,
    end: AtomicU64,
    to: AtomicU64,
}

impl Journal {
    const fn new() -> Self {
        Self {
            undo: AtomicU32::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            to: AtomicU64::new(0),
        }
    }

    #[inline]
    fn note(&self, undo: Undo, (start, end): Pages) {
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        let undo = match undo {
            Undo::Free => 1,
            Undo::Leave => 2,
            Undo::Reserve => 3,
            Undo::Restore => 4,
            Undo::Move(to) => {
                self.to.store(to, Ordering::Relaxed);
                5
            }
        };
        self.undo.store(undo, Ordering::Release);
    }

    /// Forgets the pages.
    #[inline]
    pub(super) fn clear(&self) {
        self.undo.store(0, Ordering::Release);
    }

    fn noted(&self) -> Option<(Undo, Pages)> {
        let undo = match self.undo.load(Ordering::Acquire) {
            0 => return None,
            1 => Undo::Free,
            2 => Undo::Leave,
            3 => Undo::Reserve,
            4 => Undo::Restore,
            _ => Undo::Move(self.to.load(Ordering::Relaxed)),
        };
        let pages = (
            self.start.load(Ordering::Relaxed),
            self.end.load(Ordering::Relaxed),
        );
        Some((undo, pages))
    }
}

/// The parts that a forked child makes anew where the lock was held.
pub(super) struct Parts<M: PageProvider + Copy, R> {
    pub(super) tree: Tree<Record>,
    pub(super) state: Lock<State, R>,
    pub(super) arena: Arena<M, R>,
    pub(super) journal: Journal,
    /// The change that was under way in the parts which these took the place of.
    inherited: Option<(Undo, Pages)>,
    /// Bytes of the nodes that were left behind for these.
    pub(super) abandoned: usize,
}

impl<M: PageProvider + Copy, R: RawMutex> Parts<M, R> {
    /// Makes a tree without ranges of the pages up to `end`.
    pub(super) fn new(metadata: M, max_bytes: usize, end: u64) -> Result<Self, Error> {
        let arena: Arena<M, R> = Arena::new(metadata, max_bytes)?;
        // SAFETY: all changes are given this arena, which is owned beside the tree; the tree
        // reaches no node when it is dropped.
        let tree = unsafe { Tree::new(&arena, 0, end) };
        Ok(Self {
            tree,
            state: Lock::new(State {
                writer: Writer::new(),
                adopted: 0,
                used: 0,
                recent: 0,
            }),
            arena,
            journal: Journal::new(),
            inherited: None,
            abandoned: 0,
        })
    }

    /// Copies what the parts hold that a child found.
    fn copy_of(old: &Self, metadata: M, max_bytes: usize) -> Result<Self, Error> {
        let end = old.tree.high;
        let mut new = Self::new(metadata, max_bytes, end)?;
        let state = new.state.get_mut();
        let (mut foreign, mut ours) = (0, 0);
        let nodes = old.tree.copy_to(
            &new.tree,
            &mut state.writer,
            &new.arena,
            |record, pages| match record {
                Record::Foreign => foreign += pages,
                Record::Ours(..) => ours += pages,
            },
        )?;
        state.adopted = end - foreign;
        state.used = ours;
        new.inherited = old.journal.noted();
        new.abandoned = old.abandoned + nodes * Tree::<Record>::NODE_BYTES;
        Ok(new)
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> RegionAllocator<P, M, R> {
    /// Notes the pages of a change, before the provider below is asked. Says whether it is; if not,
    /// this is a child that was forked meanwhile, and the change is to begin again.
    #[inline]
    #[must_use]
    pub(super) fn begin(&self, held: &Held<'_, M, R>, undo: Undo, pages: Pages) -> bool {
        held.parts.journal.note(undo, pages);
        self.parts.is_current(held.parts) || self.begin_again(held, undo, pages)
    }

    #[cold]
    fn begin_again(&self, held: &Held<'_, M, R>, undo: Undo, pages: Pages) -> bool {
        held.parts.journal.clear();
        if self.parts.successor(held.parts).inherited.is_some() {
            // Nothing was done yet, so that the records left behind are those of before.
            self.resume(held.parts, undo, pages);
        }
        false
    }

    /// Forgets the pages of a change that is in the tree. Says whether it is done; if not, this is
    /// a child that was forked meanwhile, which undid it: it is to begin again.
    #[inline]
    #[must_use]
    pub(super) fn finish(&self, held: &Held<'_, M, R>, undo: Undo, pages: Pages) -> bool {
        held.parts.journal.clear();
        self.parts.is_current(held.parts) || self.finish_again(held.parts, undo, pages)
    }

    #[cold]
    fn finish_again(&self, old: &Parts<M, R>, undo: Undo, pages: Pages) -> bool {
        if self.parts.successor(old).inherited.is_none() {
            // The fork came after the tree had it.
            return true;
        }
        self.resume(old, undo, pages)
    }

    /// Ends in the child's own tree what was set aside for a change that resumed; says whether it
    /// is done with that.
    fn resume(&self, old: &Parts<M, R>, undo: Undo, pages: Pages) -> bool {
        let (first, second) = match undo {
            Undo::Reserve | Undo::Restore => return false,
            Undo::Free | Undo::Leave => (pages, None),
            Undo::Move(to) => (pages, Some((to, to + (pages.1 - pages.0)))),
        };
        let mut held = self.lock();
        for pages in [Some(first), second].into_iter().flatten() {
            let mut at = pages.0;
            while at < pages.1
                && let Some((piece, record)) = held.parts.entries((at, pages.1)).next()
            {
                at = piece.1;
                if !matches!(record, Some(Record::Ours(PageState::Interrupted, _))) {
                    continue;
                }
                let mut from = piece.0;
                while from < piece.1
                    && let Some((part, was)) = old.entries((from, piece.1)).next()
                {
                    from = part.1;
                    let becomes = match (undo, was) {
                        (_, Some(Record::Foreign)) => {
                            self.lose(&mut held, part);
                            continue;
                        }
                        (Undo::Free, _) => None,
                        (_, was) => was,
                    };
                    // Without memory for it the pages stay set aside.
                    let _ = self.record(&mut held, part, becomes);
                }
            }
        }
        undo != Undo::Free
    }

    /// Does with the pages of a change that was under way what it asks for; the records of `new`
    /// say what became of them.
    ///
    /// # Safety
    ///
    /// This is a forked child, and `new` is a copy of what it found.
    unsafe fn undo(&self, new: &Parts<M, R>) -> Result<(), Error> {
        let Some((mut undo, pages)) = new.inherited else {
            return Ok(());
        };
        let mut ranges = [Some(pages), None];
        if let Undo::Move(to) = undo {
            ranges[1] = Some((to, to + (pages.1 - pages.0)));
        }
        if self.signals.is_some() {
            // No handler interrupts a change, so none resumes.
            undo = match undo {
                Undo::Leave => Undo::Free,
                Undo::Move(_) => Undo::Reserve,
                undo => undo,
            };
        }
        let mut done = Ok(());
        for pages in ranges.into_iter().flatten() {
            // SAFETY: undo_one asks for a forked child and a copy of what it found, which are the
            // conditions of this function.
            let one = unsafe { self.undo_one(new, undo, pages) };
            done = done.and(one);
        }
        done
    }

    /// # Safety
    ///
    /// This is a forked child, and `new` is a copy of what it found.
    unsafe fn undo_one(&self, new: &Parts<M, R>, undo: Undo, pages: Pages) -> Result<(), Error> {
        let mut done = Ok(());
        let clears = matches!(undo, Undo::Free | Undo::Reserve);
        if clears {
            // SAFETY: all of it is the allocator's, in no view of a dual mapping; the thread that
            // was changing it is not here, or changes it again when it resumes.
            done = unsafe { self.inner.decommit(self.range(pages)) };
        }
        let lost = done.is_err_and(|error| error.kind() == ErrorKind::RangeLost);
        let mut at = pages.0;
        while at < pages.1
            && let Some((piece, record)) = new.entries((at, pages.1)).next()
        {
            at = piece.1;
            let mark = match record {
                Some(Record::Ours(_, mark)) => mark,
                _ => Mark::of(0),
            };
            let becomes = match (undo, record) {
                _ if lost => Some(Record::Foreign),
                (Undo::Restore, Some(Record::Ours(PageState::Committed(access), _))) => {
                    // SAFETY: committed, as the tree has it; the access is what it says.
                    let restored = unsafe { self.inner.protect(self.range(piece), access) };
                    done = done.and(restored);
                    continue;
                }
                (Undo::Restore, _) => continue,
                (Undo::Reserve, Some(Record::Ours(..))) if done.is_ok() => {
                    Some(Record::Ours(PageState::Reserved, Mark::of(mark.tag)))
                }
                (Undo::Free, _) if done.is_ok() && self.signals.is_some() => None,
                _ => Some(Record::Ours(PageState::Interrupted, mark)),
            };
            let mut state = new.state.lock();
            let writer = &mut state.writer;
            let had = new.tree.set_at(writer, &new.arena, piece, becomes, None)?;
            state.used -= had;
            match becomes {
                Some(Record::Ours(..)) => state.used += piece.1 - piece.0,
                Some(Record::Foreign) => state.adopted -= piece.1 - piece.0,
                None => {}
            }
        }
        done
    }

    /// Frees what a forked child found under way: see [`PageState::Interrupted`]. Returns how many
    /// bytes that was.
    ///
    /// With a [`SignalHook`](super::SignalHook), which keeps handlers that fork out of changes, the
    /// child frees it by itself.
    ///
    /// # Errors
    ///
    /// The errors of [`RegionAllocator::unmap`].
    ///
    /// # Safety
    ///
    /// The thread that forked was in no call of this allocator, or that call has returned. No
    /// code uses memory that another thread of the parent was mapping, unmapping or moving then.
    pub unsafe fn free_interrupted(&self) -> Result<usize, Error> {
        let (mut at, mut freed) = (0, 0);
        loop {
            let entry = self.parts.current().tree.next_from(at);
            let Some(entry) = entry else {
                return Ok(freed);
            };
            at = entry.end();
            let record = entry.value::<Record>();
            if matches!(record, Record::Ours(PageState::Interrupted, _)) {
                let range = self.range((entry.start, entry.end()));
                // SAFETY: no other code uses the pages: their change was interrupted, and the
                // caller says by this function's second condition that the thread which made it
                // uses none of them.
                unsafe { self.unmap(range)? };
                freed += range.len_bytes();
            }
        }
    }
}

// SAFETY: the tree is whole for readers after every store of a change, so that what it holds can be
// copied; the lock is the child's own afterwards, and the arena, whose lock is only taken under it.
// Calls of the provider below that a change had made are undone, or left to the change itself.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> ForkChild
    for RegionAllocator<P, M, R>
{
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let old = self.parts.current();
        if !old.state.is_locked() {
            return Ok(());
        }
        let new = Parts::copy_of(old, self.metadata, self.metadata_bytes)?;
        // SAFETY: fork_child is called in a forked child, and `new` was copied above from what it
        // found.
        let undone = unsafe { self.undo(&new) };
        // SAFETY: the caller is the only thread of the child; the copy is made of the same
        // providers, and Drop disposes of it with `metadata`.
        unsafe { self.parts.renew(&self.metadata, || new)? };
        // SAFETY: this is the only thread of the child, and `renew` took these parts, and so the
        // lock, out of use just now.
        unsafe { old.state.abandon() };
        undone
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R> Drop for RegionAllocator<P, M, R> {
    fn drop(&mut self) {
        self.parts.dispose(&self.metadata);
    }
}
