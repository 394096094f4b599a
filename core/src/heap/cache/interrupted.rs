//! The notes for a signal handler about the call that it interrupted: how deep the stack was, which
//! locks the thread may hold, and which magazine it was changing.

use super::Cache;
use crate::{atomic::Ordering::Relaxed, heap::class::CLASSES};
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

impl Cache {
    /// Says whether a handler on its thread may wait for locks: the thread holds none.
    pub(in crate::heap) fn takes_locks(&self) -> bool {
        self.awaited.load(Relaxed) == 0
    }

    /// Notes that its thread goes for a lock, for which a bit stands, and that the stack ends at
    /// `depth` or deeper until it has given it back. Returns what [`Cache::forget_lock`] is to
    /// restore.
    pub(in crate::heap) fn await_lock(&self, lock: u32, depth: usize) -> usize {
        let before = self.awaited_at.load(Relaxed);
        self.awaited_at.store(depth, Relaxed);
        // A handler on this thread sees the stores in order, here and below.
        compiler_fence(SeqCst);
        self.awaited
            .store(self.awaited.load(Relaxed) | lock, Relaxed);
        compiler_fence(SeqCst);
        before
    }

    /// Notes that its thread has given a lock back.
    pub(in crate::heap) fn forget_lock(&self, lock: u32, before: usize) {
        compiler_fence(SeqCst);
        self.awaited_at.store(before, Relaxed);
        compiler_fence(SeqCst);
        self.awaited
            .store(self.awaited.load(Relaxed) & !lock, Relaxed);
    }

    /// Says whether its thread may hold a lock, or wait for it.
    pub(in crate::heap) fn awaits(&self, lock: u32) -> bool {
        self.awaited.load(Relaxed) & lock != 0
    }

    /// Returns how deep the stack was at least, as its address, in the call of a static heap that
    /// its thread is in; zero if it is in none.
    pub(in crate::heap) fn depth(&self) -> usize {
        let mark = self.mark.load(Relaxed);
        if self.takes_locks() {
            mark
        } else {
            mark.min(self.awaited_at.load(Relaxed))
        }
    }

    /// Forgets all locks.
    pub(in crate::heap) fn forget_locks(&self) {
        self.awaited.store(0, Relaxed);
    }

    /// Notes that its thread changes the slots of a magazine; returns what notes that it does not
    /// any more.
    pub(in crate::heap) fn changing(&self, class: usize) -> Changing<'_> {
        let number = u32::try_from(class + 1).unwrap_or(u32::MAX);
        self.changing.store(number, Relaxed);
        compiler_fence(SeqCst);
        Changing(self)
    }

    /// Gives up the magazine whose slots a call was changing that never goes on, with all that is
    /// in it, and says that the thread is in no call.
    pub(in crate::heap) fn forget_call(&self) {
        let number = self.changing.swap(0, Relaxed) as usize;
        if let Some(class) = number.checked_sub(1).filter(|class| *class < CLASSES) {
            self.stack(class).forget();
        }
        compiler_fence(SeqCst);
        self.mark.store(0, Relaxed);
    }
}

/// Its thread changes the slots of a magazine while this lives.
pub(in crate::heap) struct Changing<'a>(&'a Cache);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.0.changing.store(0, Relaxed);
    }
}
