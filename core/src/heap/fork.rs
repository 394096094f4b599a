//! What happens to a heap around a fork.
//!
//! Memory of a heap is private, so that a child has a copy of all. It may use the heap, and the handles of
//! the thread that forked. What other threads had at hand in the parent, free blocks that their magazines
//! hold, is the child's as well where slots tell whose it was: in a static heap. It is lost where they had
//! handles, since nobody knows which ones the forking thread has.

use super::{Heap, LocalHeap, cache::CacheRef};
use crate::{
    fork::ForkHooks,
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{mem, sync::atomic::Ordering::Relaxed};

// SAFETY: bins, granules and the list of caches change only under the locks that fork_prepare holds until
// the answering call, and so does the arena, which is used only by who holds one of them. Magazines and
// states change without a lock, each by stores that leave nothing half done for others: a thread that is
// not in the child had its magazines for itself alone.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync> ForkHooks
    for Heap<P, M, R>
{
    fn fork_prepare(&self) -> Result<(), Error> {
        // In the order in which they nest: who goes through slabs holds the first one, and takes the others.
        mem::forget(self.sweep.lock());
        mem::forget(self.caches.lock());
        for bin in self.bins() {
            mem::forget(bin.lock());
        }
        mem::forget(self.space.lock());
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: the caller's promise: this thread called fork_prepare, which forgot the guard.
        unsafe { self.space.unlock_forgotten() };
        for bin in self.bins() {
            // SAFETY: as above.
            unsafe { bin.unlock_forgotten() };
        }
        // SAFETY: as above.
        unsafe { self.caches.unlock_forgotten() };
        // SAFETY: as above.
        unsafe { self.sweep.unlock_forgotten() };
    }

    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: the caller's promise: this is the copy of the thread that called fork_prepare.
        unsafe { self.fork_parent() };
        Ok(())
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Brings back what threads that have their caches by slots had at hand, except for `own`.
    ///
    /// A thread may have been at any step when the process was copied. Its stores are seen in order up to
    /// some one, and a magazine has a block twice at worst, of which the second one is refused by its slab;
    /// what was on its way to a bin is lost.
    ///
    /// # Safety
    ///
    /// The process has but the calling thread, which alone has `own`.
    pub(super) unsafe fn adopt_orphans(&self, own: Option<CacheRef>) {
        let orphans = self.all_caches().filter(|&cache| {
            cache.by_slot.load(Relaxed) && cache.in_use.load(Relaxed) && Some(cache) != own
        });
        for cache in orphans {
            // SAFETY: in use by a thread that is not in this process.
            drop(unsafe { LocalHeap::from_cache(self, cache) });
        }
    }
}
