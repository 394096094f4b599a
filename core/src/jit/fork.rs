//! What happens to code around a fork.
//!
//! The views are shared memory, so a child would see, or make, the other process's changes. Under
//! [`Fork::Detach`] the parent copies the live spans into private memory before it forks; the child
//! then maps new pages at the same addresses and fills them from its copy of that copy. Taking the
//! copy in the child would be cheaper for the parent, and wrong: until the child is done, the
//! parent may release a span and write another's code there.

use super::{
    JitAllocator, State,
    block::{Block, Mode},
};
use crate::{
    fork::ForkHooks,
    page::PageRange,
    provider::{
        Commit, CoreSync, DualMapProvider, DualRequest, Error, Fork, Leave, PageProvider, PageWish,
        Request, Target,
    },
    sync::RelaxStrategy,
};
use core::{mem, ptr::NonNull};

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

// SAFETY: every change goes through the lock, which fork_prepare holds until the answering call.
unsafe impl<P, M, R> ForkHooks for JitAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
    R: RelaxStrategy,
{
    /// Takes the lock and, under [`Fork::Detach`], a copy of the live spans. Nobody may write
    /// through [`Span::rw`](super::Span::rw) meanwhile.
    fn fork_prepare(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if self.config.fork_policy() == Fork::Detach && state.totals.used != 0 {
            state.snapshot = Some(self.take_snapshot(state.totals.used)?);
        }
        mem::forget(state);
        Ok(())
    }

    unsafe fn fork_parent(&self) {
        // SAFETY: fork_prepare forgot the guard on this thread, by the caller's promise.
        unsafe { self.state.unlock_forgotten() };
        let mut state = self.state.lock();
        self.drop_snapshot(&mut state);
    }

    /// Under [`Fork::Detach`], a block whose new pages could not be had is lost with its spans:
    /// queries no longer find them, and its addresses stay reserved.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        // SAFETY: fork_prepare forgot the guard on this thread's copy in the parent.
        unsafe { self.state.unlock_forgotten() };
        let mut state = self.state.lock();
        let mut first_error = None;
        // All addresses first, so that nothing mapped on the way can land on one of them.
        for mut at in self.index.blocks() {
            // SAFETY: the lock is held; no other reference to the block is alive.
            let block = unsafe { at.as_mut() };
            let Some(mapping) = block.mapping() else {
                continue;
            };
            // SAFETY: the caller is the child's only thread, and this is the one call for it.
            if let Err(error) = unsafe { self.provider.fork_child_dual(mapping) } {
                first_error = first_error.or(Some(error));
                block.mode = Mode::Orphan;
            }
        }
        let result = self.adopt_blocks(&mut state);
        self.drop_snapshot(&mut state);
        first_error.map_or(result, Err)
    }
}

impl<P, M, R> JitAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + CoreSync + Copy,
    M: PageProvider + Copy,
    R: RelaxStrategy,
{
    fn take_snapshot(&self, bytes: usize) -> Result<Snapshot, Error> {
        let range = self.metadata.reserve(&Request::bytes(bytes))?;
        // SAFETY: the range was just reserved, and is ours.
        if let Err(error) = unsafe { self.metadata.commit(range, Commit::READ_WRITE) } {
            // SAFETY: as above; nobody saw it. If this fails too, addresses are wasted, no more.
            let _ = unsafe { self.metadata.release(range) };
            return Err(error);
        }
        let snapshot = Snapshot { range };
        let mut at = 0;
        for block in self.index.blocks() {
            // SAFETY: the lock is held, so the block is not changed meanwhile.
            let block = unsafe { block.as_ref() };
            at = self.copy_block(&snapshot, block, at, Direction::Save);
        }
        Ok(snapshot)
    }

    /// Copies the live spans of a block; returns where the next block's begin in the snapshot.
    fn copy_block(&self, snapshot: &Snapshot, block: &Block, at: usize, to: Direction) -> usize {
        let granularity = self.config.granularity_bytes();
        let mut at = at;
        for run in block.used_runs() {
            let len = run.len() * granularity;
            assert!(
                at + len <= snapshot.range.len_bytes(),
                "the snapshot has room for all spans"
            );
            // SAFETY: at + len lies within the snapshot, as just checked.
            let saved = unsafe { snapshot.range.start().add(at) };
            match to {
                // SAFETY: both are len bytes long, and the snapshot is memory of its own; the
                // executable view is readable, and nobody writes spans while the lock is held.
                Direction::Save => unsafe {
                    saved.copy_from_nonoverlapping(block.rx(run.start), len);
                },
                // SAFETY: as above; the writable view was just mapped, and this is the child's
                // only thread.
                Direction::Restore => unsafe {
                    saved.copy_to_nonoverlapping(block.rw(run.start), len);
                },
            }
            if let Direction::Restore = to {
                // SAFETY: the run lies in the executable view, which is mapped and readable.
                unsafe { crate::arch::publish_code(block.rx(run.start).as_ptr(), len) };
            }
            at += len;
        }
        at
    }

    fn drop_snapshot(&self, state: &mut State) {
        if let Some(snapshot) = state.snapshot.take() {
            // SAFETY: the range came from this provider in take_snapshot, and nobody uses it now.
            let released = unsafe { self.metadata.release(snapshot.range) };
            // There is nobody to tell: the copy stays, which wastes memory and no more.
            let _ = released;
        }
    }

    /// Does in the child what the fork policy says. The lock is held.
    fn adopt_blocks(&self, state: &mut State) -> Result<(), Error> {
        let (mut n, mut at, mut result) = (0, 0, Ok(()));
        while let Some(mut pointer) = self.index.block(n) {
            // SAFETY: the lock is held; no other reference to the block is alive.
            let block = unsafe { pointer.as_mut() };
            let saved = block.used * self.config.granularity_bytes();
            let kept = match self.config.fork_policy() {
                _ if !block.writable() => true,
                Fork::Share => {
                    block.mode = Mode::Shared;
                    true
                }
                Fork::ChildLosesRw => {
                    block.mode = Mode::ReadOnly;
                    true
                }
                Fork::ChildLosesBoth => false,
                Fork::Detach => {
                    let detached = self.detach(state, block, at);
                    result = result.and(detached);
                    detached.is_ok()
                }
            };
            at += saved;
            if kept {
                n += 1;
            } else {
                self.lose(state, pointer);
            }
        }
        // An empty block that serves no more spans is of no use to anyone.
        state.empty = state.empty.filter(|at| {
            // SAFETY: the lock is held, so the block is not changed meanwhile.
            let block = unsafe { at.as_ref() };
            block.mode == Mode::Open && block.mapping().is_some()
        });
        result
    }

    /// Maps new pages at the block's addresses and fills them from the snapshot.
    fn detach(&self, state: &State, block: &mut Block, at: usize) -> Result<(), Error> {
        let Some(mapping) = block.take_mapping() else {
            return Ok(());
        };
        let (rw, rx, fork) = (mapping.rw(), mapping.rx(), mapping.fork());
        // SAFETY: the mapping came from this provider; the child's only thread is here.
        if let Err((_, error)) = unsafe { self.provider.unmap_dual(mapping, Leave::Reserved) } {
            return Err(error);
        }
        let request = DualRequest {
            len: rw.len_bytes(),
            rw: Target::Into(rw),
            rx: Target::Into(rx),
            pages: PageWish::Base,
            landing_pads: self.config.wants_landing_pads(),
            fork,
            name: Some(c"hostmem: jit"),
        };
        // SAFETY: both ranges were left reserved for us just now.
        let mapping = unsafe { self.provider.map_dual(&request) };
        block.put_mapping(mapping.map_err(|e| e.cause())?);
        if let Some(snapshot) = &state.snapshot {
            self.copy_block(snapshot, block, at, Direction::Restore);
        }
        Ok(())
    }

    /// Forgets a block whose code is gone. Its addresses stay reserved, so that a stale pointer to
    /// code faults. The lock is held.
    pub(super) fn lose(&self, state: &mut State, mut pointer: NonNull<Block>) {
        // SAFETY: the lock is held; no other reference to the block is alive.
        let block = unsafe { pointer.as_mut() };
        let bytes = block.used * self.config.granularity_bytes();
        // Without the token nobody unmaps the views, if there are any: that is the intention.
        let _leaked = block.take_mapping();
        state.totals.spans -= block.spans;
        state.totals.used -= bytes;
        state.totals.blocks -= 1;
        state.totals.reserved -= (block.bits().count + 1) * self.config.granularity_bytes();
        self.index.remove(pointer);
        self.keep_unmapped(state, pointer);
    }
}
