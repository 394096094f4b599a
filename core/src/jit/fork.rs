//! What happens to code around a fork.
//!
//! The views are shared memory, so a child would see, or make, the other process's changes. Under
//! [`Fork::Detach`] the parent copies the live spans into private memory before it forks; the child
//! then maps new pages at the same addresses and fills them from its copy of that copy. Taking the
//! copy in the child would be cheaper for the parent, and wrong: until the child is done, the
//! parent may release a span and write another's code there.

use super::{
    CodeProvider, JitAllocator,
    block::{Block, Held, Mode},
    views::Views,
};
use crate::{
    fork::ForkHooks,
    page::PageRange,
    provider::{Commit, DualRequest, Error, Fork, Leave, PageProvider, PageWish, Request, Target},
    sync::RawMutex,
};
use core::{mem, ops::ControlFlow};

/// A copy of all live spans, one behind the other.
pub(super) struct Snapshot {
    range: PageRange,
}

/// Which way a snapshot is copied.
#[derive(Clone, Copy)]
enum Direction {
    Save,
    Restore,
}

// SAFETY: every change goes through the locks, which fork_prepare holds until the answering call.
unsafe impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> ForkHooks
    for JitAllocator<P, M, R>
{
    /// Takes all locks and, under [`Fork::Detach`], a copy of the live spans. Writing takes no
    /// lock: a span that another thread is writing at that moment may be torn in the child, where
    /// that thread alone knew of it.
    fn fork_prepare(&self) -> Result<(), Error> {
        let mut used = 0;
        for shard in self.shards.all() {
            let guard = shard.lock();
            used += guard.totals.used;
            mem::forget(guard);
        }
        let mut mappings = self.mappings.lock();
        mem::forget(self.toggling.lock());
        mem::forget(self.cores.lock.lock());
        if self.config.fork_policy() == Fork::Detach && used != 0 {
            match self.take_snapshot(used) {
                Ok(snapshot) => mappings.snapshot = Some(snapshot),
                Err(error) => {
                    drop(mappings);
                    // SAFETY: the guards were forgotten just now, on this thread.
                    unsafe { self.unlock_shards() };
                    return Err(error);
                }
            }
        }
        mem::forget(mappings);
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: fork_prepare forgot the guards of all these locks on this thread, which
        // fork_parent's contract says came before.
        let snapshot = unsafe { self.unlock_all() };
        self.drop_snapshot(snapshot);
    }

    /// Under [`Fork::Detach`], a block whose new pages could not be had is lost with its spans:
    /// queries no longer find them, and its addresses stay reserved.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: fork_prepare forgot the guards on this thread's copy in the parent.
        let snapshot = unsafe { self.unlock_all() };
        let mut first_error = None;
        self.end_writes_of_the_parent();
        // All addresses first, so that nothing mapped on the way can land on one of them.
        for at in self.index.blocks() {
            // SAFETY: the arena outlives the borrow of self; this is the child's only thread, which
            // stands for all locks, and no other Held is alive.
            let held = unsafe { Block::held(at) };
            let Some(Views::Dual(mapping)) = held.views() else {
                continue; // Private memory, copied by the fork.
            };
            // SAFETY: the caller is the child's only thread, and this is the one call for it.
            if let Err(error) = unsafe { self.provider.fork_child_dual(mapping) } {
                first_error = first_error.or(Some(error));
                held.block.set_mode(Mode::Orphan);
            }
        }
        let result = self.adopt_blocks(snapshot.as_ref());
        self.drop_snapshot(snapshot);
        first_error.map_or(result, Err)
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Opens all locks that fork_prepare took, and returns the snapshot that it took. It is taken
    /// out before the first lock is open: another thread may prepare a fork from then on, and would
    /// put its own in this one's place.
    ///
    /// # Safety
    ///
    /// The promises of [`Lock::unlock_forgotten`](crate::sync::Lock::unlock_forgotten), for each.
    unsafe fn unlock_all(&self) -> Option<Snapshot> {
        // SAFETY: fork_prepare locked the mappings and forgot the guard, by this function's `#
        // Safety`.
        let mut mappings = unsafe { self.mappings.resume_forgotten() };
        let snapshot = mappings.snapshot.take();
        drop(mappings);
        // SAFETY: fork_prepare forgot the guards of the other locks too, by this function's `#
        // Safety`.
        unsafe { self.unlock_shards() };
        snapshot
    }

    /// Opens the locks of the shards, of the pages being toggled and of barriers.
    ///
    /// # Safety
    ///
    /// The promises of [`JitAllocator::unlock_all`].
    unsafe fn unlock_shards(&self) {
        // SAFETY: fork_prepare took this lock and forgot its guard, by the `# Safety` of
        // unlock_all, and no other code opens it.
        unsafe { self.cores.lock.unlock_forgotten() };
        // SAFETY: fork_prepare took this lock and forgot its guard, by the `# Safety` of
        // unlock_all, and no other code opens it.
        unsafe { self.toggling.unlock_forgotten() };
        for shard in self.shards.all() {
            // SAFETY: fork_prepare took this lock and forgot its guard, by the `# Safety` of
            // unlock_all, and no other code opens it.
            unsafe { shard.unlock_forgotten() };
        }
    }

    /// Copies all live spans of dual mappings. All locks are held.
    fn take_snapshot(&self, bytes: usize) -> Result<Snapshot, Error> {
        let range = self.metadata.reserve(&Request::bytes(bytes))?;
        // SAFETY: the range was just reserved, and is ours.
        if let Err(error) = unsafe { self.metadata.commit(range, Commit::READ_WRITE) } {
            // SAFETY: reserved just now, and no other code has its address. If this fails too,
            // addresses are wasted, no more.
            let _ = unsafe { self.metadata.release(range) };
            return Err(error);
        }
        let snapshot = Snapshot { range };
        let mut at = 0;
        for block in self.index.blocks() {
            // SAFETY: the arena outlives the borrow of self; the shards are locked, and no other
            // Held is alive.
            let held = unsafe { Block::held(block) };
            at = copy_block(&snapshot, &held, at, Direction::Save);
        }
        Ok(snapshot)
    }

    fn drop_snapshot(&self, snapshot: Option<Snapshot>) {
        if let Some(snapshot) = snapshot {
            // SAFETY: the range came from this provider in take_snapshot, and no other code uses it
            // now.
            let released = unsafe { self.metadata.release(snapshot.range) };
            // The error has no receiver: the copy stays, which wastes memory and no more.
            let _ = released;
        }
    }

    /// Does in the child what the fork policy says.
    fn adopt_blocks(&self, snapshot: Option<&Snapshot>) -> Result<(), Error> {
        let (mut n, mut at, mut result) = (0, 0, Ok(()));
        while let Some(pointer) = self.index.block(n) {
            // SAFETY: the block lives as long as this allocator, whose index it is in.
            let shard = unsafe { pointer.as_ref() }.shard;
            let mut guard = self.shards.lock(shard);
            // SAFETY: the arena outlives the borrow of self; the shard is locked, and no other Held
            // is alive.
            let mut held = unsafe { Block::held(pointer) };
            let saved = held.guarded.used << held.block.shift;
            let kept = match self.config.fork_policy() {
                _ if matches!(held.views(), Some(Views::Single(..))) => ControlFlow::Continue(()),
                _ if !held.block.writable() => ControlFlow::Continue(()),
                Fork::Share => {
                    held.block.set_mode(Mode::Shared);
                    ControlFlow::Continue(())
                }
                Fork::ChildLosesRw => {
                    held.block.set_mode(Mode::ReadOnly);
                    ControlFlow::Continue(())
                }
                Fork::ChildLosesBoth => ControlFlow::Break(Ok(())),
                Fork::Detach => match self.detach(&mut held, snapshot, at) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(Err(error)),
                },
            };
            at += saved;
            if held.block.mode() != Mode::Open && held.guarded.kept {
                // An empty block that serves no more spans is of no use to anyone.
                self.no_longer_kept(&mut held);
            }
            match kept {
                ControlFlow::Continue(()) => {
                    guard.pools[held.block.pool].update(&mut held);
                    n += 1;
                }
                ControlFlow::Break(lost) => {
                    result = result.and(lost);
                    self.lose(&mut guard, &mut self.mappings.lock(), held);
                }
            }
        }
        result
    }

    /// Maps new pages at the block's addresses and fills them from the snapshot.
    fn detach(
        &self,
        held: &mut Held<'_>,
        snapshot: Option<&Snapshot>,
        at: usize,
    ) -> Result<(), Error> {
        let mapping = match held.take_views() {
            Some(Views::Dual(mapping)) => mapping,
            other => {
                other.into_iter().for_each(|views| held.put_views(views));
                return Ok(());
            }
        };
        let (rw, rx, fork) = (mapping.rw(), mapping.rx(), mapping.fork());
        // SAFETY: the mapping came from this provider; the child's only thread is here.
        if let Err((_, error)) = unsafe { self.provider.unmap_dual(mapping, Leave::Reserved) } {
            return Err(error);
        }
        let request = DualRequest {
            len: rw.len_bytes(),
            min_len: None,
            rw: Target::Into(rw),
            rx: Target::Into(rx),
            pages: PageWish::Base,
            landing_pads: self.config.wants_landing_pads(),
            fork,
            name: Some(self.config.block_name()),
        };
        // SAFETY: both ranges were left reserved for us just now.
        let mapping = unsafe { self.provider.map_dual(&request) };
        held.put_views(Views::Dual(mapping.map_err(|e| e.cause())?));
        held.forget_purged();
        // The new pages read zero.
        self.fill_block(held);
        if let Some(snapshot) = snapshot {
            copy_block(snapshot, held, at, Direction::Restore);
        }
        Ok(())
    }
}

/// Copies the live spans of a block that is mapped twice; returns where the next block's begin in
/// the snapshot. The block is held, and no thread writes to it.
fn copy_block(snapshot: &Snapshot, held: &Held<'_>, at: usize, to: Direction) -> usize {
    if !matches!(held.views(), Some(Views::Dual(_))) {
        return at + (held.guarded.used << held.block.shift);
    }
    let mut at = at;
    for run in held.used_runs() {
        let len = run.len() << held.block.shift;
        assert!(
            at + len <= snapshot.range.len_bytes(),
            "the snapshot has room for all spans"
        );
        // SAFETY: at + len lies within the snapshot, as just checked.
        let saved = unsafe { snapshot.range.start().add(at) };
        match to {
            // SAFETY: both are len bytes long, and the snapshot is memory of its own; the
            // executable view is readable, and no thread writes spans while the locks are held.
            Direction::Save => unsafe {
                saved.copy_from_nonoverlapping(held.rx(run.start), len);
            },
            // SAFETY: both are len bytes long, and the snapshot is memory of its own; the writable
            // view was just mapped, and this is the child's only thread.
            Direction::Restore => unsafe {
                saved.copy_to_nonoverlapping(held.rw(run.start), len);
            },
        }
        if let Direction::Restore = to {
            // SAFETY: the run lies in the executable view, which is mapped and readable.
            unsafe { crate::arch::publish_code(held.rx(run.start).as_ptr(), len) };
        }
        at += len;
    }
    at
}
