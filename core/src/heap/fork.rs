//! How a forked child repairs the heap where it finds locks held.
//!
//! The parent takes no lock for a fork and waits for no thread. So a child may find locks held, and
//! what they guard half changed, by threads that it does not have; or by a call on its own thread
//! that a signal handler interrupted, which then forked: that call goes on in the child when the
//! handler returns. What is guarded is made anew, from what is whole after every step of a change:
//!
//! | what | from |
//! |---|---|
//! | bins | the page map, and the free bits of its slabs |
//! | granules | the segments that were ever made, the page map, and states |
//! | huge blocks | their index, a copy of which is published after each change |
//! | the list of caches | all that were ever made, and which ones are in use |
//! | large and huge blocks in quarantine | nothing: they are free, as their states say |
//! | the arena | nothing: it is left behind, and what lies in it is never freed |
//!
//! New parts are put in the place of all that locks guard, and what no lock was held of moves there
//! as it is. If no call goes on, all that is free serves again. Else what it may be changing is
//! left to it: slabs of a bin whose lock is held, and granules that are free if theirs is. Blocks
//! of such slabs can be freed, but do not serve again. What is lost to the child so is counted
//! ([`HeapStatistics::abandoned`](super::HeapStatistics::abandoned)).
//!
//! The quarantine of blocks with a class has no lock: what is in it stays, and is counted again. A
//! block that a thread was just freeing, moving or handing out which the child does not have stays
//! out of use.
//!
//! A call that goes on finds that it was replaced when it waits for a lock; or it ends in what it
//! had locked, of which nothing is in use any more. Before it gives addresses back it looks whether
//! the child still knows them.
//!
//! | room | what it has |
//! |---|---|
//! | `granules` | granules, large and huge blocks |
//! | `bins` | the slabs of each class |

mod bins;
mod granules;

#[cfg(all(test, not(loom)))]
pub(super) mod tests;

use super::{
    Heap, LocalHeap, bin::Bin, cache::CacheRef, class::CLASSES, local::Caches, maintenance::Sweep,
    parts::Parts, space::Space,
};
use crate::{
    arena::Arena,
    fork::ForkChild,
    provider::{Error, PageProvider},
    sync::{Lock, RawMutex},
};
use core::{mem, sync::atomic::Ordering::Relaxed};

// SAFETY: what a held lock guards is made anew, of what is whole after every step of a change, and
// of nothing that an interrupted call of this thread may change when it goes on.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> ForkChild
    for Heap<P, M, R>
{
    /// The forking thread may be in a call. See
    /// [`HeapStatistics::abandoned`](super::HeapStatistics::abandoned) for what of the heap cannot
    /// be used again then.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: `repair` asks for a forked child whose only thread this is, which `fork_child`
        // asks for as well; a call may go on, which `resumes` says.
        unsafe { self.repair(true) }
    }
}

/// Takes what a lock guards if it is open, and leaves something else.
fn take<T, R: RawMutex>(lock: &Lock<T, R>, left: T) -> Option<T> {
    let mut held = lock.try_lock()?;
    Some(mem::replace(&mut *held, left))
}

impl<R: RawMutex> Parts<R> {
    /// Says whether one of the locks is held.
    fn is_any_held(&self) -> bool {
        self.bins().iter().any(Lock::is_locked)
            || self.space.is_locked()
            || self.caches.is_locked()
            || self.sweep.is_locked()
    }

    /// Opens the locks that threads hold which the child does not have, or calls that go on.
    ///
    /// # Safety
    ///
    /// The calling thread is the only one of a forked child, and other parts are in use.
    unsafe fn abandon(&self) {
        for bin in self.bins() {
            // SAFETY: the only thread of a forked child, as the caller says; other parts are in
            // use, so that only a call that goes on uses what this lock guards.
            unsafe { bin.abandon() };
        }
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.space.abandon() };
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.caches.abandon() };
        // SAFETY: the only thread of a forked child; other parts are in use, as the caller says.
        unsafe { self.sweep.abandon() };
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Makes anew what locks guard, if one is held. A call of this thread may go on afterwards if
    /// it `resumes`.
    ///
    /// # Errors
    ///
    /// Where there is no metadata; nothing changes then.
    ///
    /// # Safety
    ///
    /// Those of [`ForkChild::fork_child`]; and unless it `resumes`, no call of this thread on the
    /// heap has begun that is to go on.
    pub(super) unsafe fn repair(&self, resumes: bool) -> Result<(), Error> {
        self.recount_quarantine();
        let arena = self.arena();
        let is_arena_held = arena.is_locked();
        let old = self.parts();
        if !is_arena_held && !old.is_any_held() {
            return Ok(());
        }
        if is_arena_held {
            let new = Arena::new(self.metadata, self.config.metadata_bytes())?;
            // SAFETY: `renew` asks that no other thread uses the arena: a forked child has only
            // this one, as the caller says. Drop disposes with the same provider.
            unsafe { self.arena.renew(&self.metadata, || new)? };
            // SAFETY: `abandon` asks for an arena that is not in use: it was replaced just now, in
            // a child with this thread only.
            unsafe { arena.abandon() };
        }
        let arena = self.arena();
        let count = self.config.shard_count() * CLASSES;
        let bins = arena.alloc_slice(count, || Lock::new(Bin::new()))?;
        let era = old.era.wrapping_add(1);
        let renewed = if old.space.is_locked() {
            Some(self.new_space(old, era, resumes)?)
        } else {
            None
        };
        let make = || {
            // Parts whose lock is open move as they are.
            let left = || Space::new(self.config.segment_granules(), old.huge, old.era);
            let space = renewed.or_else(|| take(&old.space, left()));
            let mut space = space.unwrap_or_else(left);
            space.era = era;
            let caches = take(&old.caches, Caches::new());
            let caches = caches.unwrap_or_else(|| Caches::of(self.all_caches(), !resumes));
            Parts {
                bins,
                huge: space.huge,
                space: Lock::new(space),
                caches: Lock::new(caches),
                sweep: Lock::new(take(&old.sweep, Sweep::new()).unwrap_or_else(Sweep::new)),
                era,
            }
        };
        // SAFETY: `renew` asks that no other thread uses the parts: a forked child has only this
        // one, as the caller says. Drop disposes with the same provider.
        unsafe { self.parts.renew(&self.metadata, make)? };
        self.fill_bins(old, resumes);
        // SAFETY: the only thread of the child, as the caller says, and the parts were replaced
        // just now.
        unsafe { old.abandon() };
        Ok(())
    }

    fn note_abandoned(&self, bytes: usize) {
        self.abandoned.fetch_add(bytes, Relaxed);
    }

    /// Brings back what threads that have their caches by slots had cached, except for `own`.
    ///
    /// A thread may have been at any step when the process was copied. Its stores are seen in order
    /// up to some one, and a magazine has a block twice at worst, of which the second one is
    /// refused by its slab; what was on its way to a bin is lost.
    ///
    /// # Safety
    ///
    /// The process has but the calling thread, which alone has `own`.
    pub(super) unsafe fn adopt_orphans(&self, own: Option<CacheRef>) {
        let orphans = self.all_caches().filter(|&cache| {
            cache.by_slot.load(Relaxed) && cache.in_use.load(Relaxed) && Some(cache) != own
        });
        for cache in orphans {
            if self.is_full() {
                // Half of an entry may be written.
                cache.forget_call();
            }
            // SAFETY: in use by a thread that is not in this process.
            drop(unsafe { LocalHeap::from_cache(self, cache) });
        }
    }
}
