//! Freed blocks that wait before they serve again, at the highest level of hardening.
//!
//! ```text
//!   blocks of classes   ┌───┬───┬───┬───┬───┐   the oldest leaves when another comes, and others
//!   memory is kept      │ ● │ ● │ ● │ ● │   │   as long as there are too many bytes
//!                       └───┴───┴───┴─▲─┴───┘
//!   large and huge ones   ● → ● → ●          a list; addresses are kept, and no memory
//! ```
//!
//! The first is an array that any call changes without a lock, so that a thread that is not in a
//! forked child leaves at most one block behind that is lost. The second is guarded by the lock of
//! the granules; a child that finds that held takes the blocks for free.

use crate::heap::{
    Heap,
    class::{CLASSES, GRANULE, HUGE},
    slab::{Entry, Handle},
    space::Space,
};
use crate::{
    page::PageRange,
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{AcqRel, Relaxed},
    },
};

/// Blocks that wait at most.
pub(in crate::heap) const WAITING: usize = 4096;

/// Blocks of classes that wait.
pub(in crate::heap) struct Quarantine {
    slots: NonNull<[AtomicPtr<u8>; WAITING]>,
    /// The slots of the next block and of the oldest, counted on and on.
    next: AtomicUsize,
    first: AtomicUsize,
    pub(in crate::heap) bytes: AtomicUsize,
    /// Bytes that wait at most.
    most: usize,
}

// SAFETY: the slots are atomics in memory of the heap's arena, which stays as long as the heap.
unsafe impl Send for Quarantine {}
// SAFETY: the slots are changed by atomics only, and stay as long as the heap; all other fields are
// Sync.
unsafe impl Sync for Quarantine {}

impl Quarantine {
    /// Makes one by slots that stay as long as the heap, none of which has a block.
    pub(in crate::heap) const fn new(
        slots: NonNull<[AtomicPtr<u8>; WAITING]>,
        most: usize,
    ) -> Self {
        Self {
            slots,
            next: AtomicUsize::new(0),
            first: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most,
        }
    }

    #[inline]
    fn slots(&self) -> &[AtomicPtr<u8>; WAITING] {
        // SAFETY: initialised, changed by atomics only, and there as long as the heap, which has
        // this.
        unsafe { self.slots.as_ref() }
    }

    pub(in crate::heap) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Puts a block, or none, into a slot, and returns what was there.
    #[inline]
    fn swap(&self, number: usize, block: *mut u8) -> *mut u8 {
        self.slots()[number % WAITING].swap(block, AcqRel)
    }

    /// Adds a block, and returns the oldest if there is no room for both, or null.
    #[inline]
    fn push(&self, block: *mut u8) -> *mut u8 {
        self.swap(self.next.fetch_add(1, Relaxed), block)
    }

    /// Takes the oldest block out, or null where another call was quicker; `None` where there is
    /// none.
    fn pop(&self) -> Option<*mut u8> {
        let mut first = self.first.load(Relaxed);
        loop {
            let next = self.next.load(Relaxed);
            // It may be seen ahead of the next one.
            let waiting = next.wrapping_sub(first).cast_signed();
            let oldest = match usize::try_from(waiting) {
                Err(_) | Ok(0) => return None,
                // Blocks came round to its slot, and took it out.
                Ok(waiting) if waiting > WAITING => next.wrapping_sub(WAITING),
                Ok(_) => first,
            };
            let behind = oldest.wrapping_add(1);
            match self
                .first
                .compare_exchange_weak(first, behind, Relaxed, Relaxed)
            {
                Ok(_) => return Some(self.swap(oldest, null_mut())),
                Err(now) => first = now,
            }
        }
    }

    /// Yields the addresses of the blocks that wait now.
    pub(in crate::heap) fn addrs(&self) -> impl Iterator<Item = usize> + '_ {
        let slots = self.slots().iter();
        let addrs = slots.map(|slot| slot.load(Relaxed).addr());
        addrs.filter(|addr| *addr != 0)
    }
}

/// Blocks without a class that wait, linked by `next`. Guarded by the lock of the granules.
pub(in crate::heap) struct Waiting {
    first: Option<Handle>,
    last: Option<Handle>,
    pub(in crate::heap) bytes: usize,
}

impl Waiting {
    pub(in crate::heap) const fn new() -> Self {
        Self {
            first: None,
            last: None,
            bytes: 0,
        }
    }

    fn push(&mut self, slab: Handle) {
        slab.next.set(None);
        match self.last {
            Some(last) => last.next.set(Some(slab)),
            None => self.first = Some(slab),
        }
        self.last = Some(slab);
        self.bytes += slab.len_bytes();
    }

    fn pop(&mut self) -> Option<Handle> {
        let slab = self.first?;
        self.first = slab.next.get();
        if self.first.is_none() {
            self.last = None;
        }
        self.bytes -= slab.len_bytes();
        Some(slab)
    }
}

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    #[inline]
    fn quarantine(&self) -> Option<&Quarantine> {
        self.hardened.as_ref()?.quarantine.as_ref()
    }

    /// Has a block wait whose state is that of a free one, and tells `give` of those that have
    /// waited, whose slabs `find` finds.
    #[inline]
    pub(in crate::heap) fn wait(
        &self,
        slab: Handle,
        entry: Entry,
        find: impl Fn(usize) -> Option<Handle>,
        mut give: impl FnMut(usize, Entry),
    ) {
        let size = slab.block_bytes();
        let Some(all) = self.quarantine().filter(|all| size <= all.most) else {
            give(slab.class(), entry);
            return;
        };
        let oldest = all.push(entry.block.as_ptr());
        let mut change = size;
        if !oldest.is_null()
            && let Some(slab) = find(oldest.addr())
            && let Some(entry) = slab.freed(oldest.addr())
        {
            change = change.wrapping_sub(slab.block_bytes());
            give(slab.class(), entry);
        }
        let before = all.bytes.fetch_add(change, Relaxed);
        if before.wrapping_add(change) > all.most {
            self.let_go(all, give);
        }
    }

    /// Tells `give` of the oldest blocks, as long as too many bytes wait.
    #[inline(never)]
    fn let_go(&self, all: &Quarantine, mut give: impl FnMut(usize, Entry)) {
        // As often as there are slots at most, whatever other threads do.
        for _ in 0..WAITING {
            let Some(oldest) = all.pop() else {
                // Nothing is there that is counted: of a call that a handler left for good.
                self.recount_quarantine();
                return;
            };
            let Some((slab, entry)) = self.waited(oldest.addr()) else {
                continue;
            };
            let less = slab.block_bytes();
            let before = all.bytes.fetch_sub(less, Relaxed);
            give(slab.class(), entry);
            if before.wrapping_sub(less) <= all.most {
                return;
            }
        }
    }

    /// Counts the bytes of blocks of classes that wait again. A call may have ended between two
    /// steps: in a thread that a forked child does not have, or where a handler left it for good.
    pub(in crate::heap) fn recount_quarantine(&self) {
        if let Some(all) = self.quarantine() {
            let waiting = all.addrs().filter_map(|addr| self.waited(addr));
            let bytes = waiting.map(|(slab, _)| slab.block_bytes()).sum();
            all.bytes.store(bytes, Relaxed);
        }
    }

    /// Finds a block that waited, of which there is none at zero.
    #[inline]
    fn waited(&self, addr: usize) -> Option<(Handle, Entry)> {
        let slab = if addr == 0 { None } else { self.map.slab(addr) }?;
        Some((slab, slab.freed(addr)?))
    }

    /// Lets all blocks of classes go.
    pub(in crate::heap) fn end_quarantine(&self) {
        let Some(all) = self.quarantine() else {
            return;
        };
        let slots = all.slots().iter();
        for slot in slots.filter(|slot| !slot.load(Relaxed).is_null()) {
            let block = slot.swap(null_mut(), AcqRel);
            if let Some((slab, entry)) = self.waited(block.addr()) {
                all.bytes.fetch_sub(slab.block_bytes(), Relaxed);
                self.flush(slab.class(), &[entry]);
            }
        }
    }

    /// Counts the blocks of each class that wait.
    pub(in crate::heap) fn waiting_blocks(&self) -> [usize; CLASSES] {
        let mut counts = [0; CLASSES];
        for addr in self.quarantine().into_iter().flat_map(Quarantine::addrs) {
            if let Some((slab, _)) = self.waited(addr)
                && let Some(count) = counts.get_mut(slab.class())
            {
                *count += 1;
            }
        }
        counts
    }

    /// Has a large or huge block wait that is free and was counted as such, or lets it go.
    pub(in crate::heap) fn wait_big(&self, space: &mut Space, slab: Handle) {
        let len = slab.len_bytes();
        let most = self
            .hardened
            .as_ref()
            .map_or(0, |hardened| hardened.most_addresses);
        if len > most {
            self.release_big(space, slab);
            return;
        }
        if !slab.is(HUGE) {
            if !self.hold_granules(space, slab) {
                self.release_guards(space, slab);
                return;
            }
        } else if !self.take_memory(space, slab) {
            self.drop_huge(space, slab);
            return;
        }
        space.waiting.push(slab);
        while space.waiting.bytes > most
            && let Some(oldest) = space.waiting.pop()
        {
            self.release_big(space, oldest);
        }
    }

    /// Takes the memory of a huge block that is free, and keeps its addresses; says whether it
    /// could.
    fn take_memory(&self, space: &mut Space, slab: Handle) -> bool {
        let Some(range) = PageRange::new(slab.start(), slab.block_bytes(), self.page) else {
            return false;
        };
        // SAFETY: committed as a whole when the block was made; it is free.
        match unsafe { self.decommit_pages(range) } {
            Ok(()) => {
                space.gauges.committed -= range.len_bytes();
                slab.set_holes(crate::heap::huge::PURGED);
                true
            }
            Err(error) => {
                debug_assert!(
                    error.kind() != ErrorKind::RangeLost,
                    "nothing else is there"
                );
                false
            }
        }
    }

    /// Lets all large and huge blocks go.
    pub(in crate::heap) fn drop_waiting(&self, space: &mut Space) {
        while let Some(slab) = space.waiting.pop() {
            self.release_big(space, slab);
        }
    }

    /// Gives the granules of a free block up, and its guards, or its reservation.
    pub(in crate::heap) fn release_big(&self, space: &mut Space, slab: Handle) {
        if slab.is(HUGE) {
            self.drop_huge(space, slab);
            return;
        }
        self.give_granules(space, slab.addr(), slab.len_bytes());
        self.release_guards(space, slab);
    }

    /// Gives the guards of a large block up, and its descriptor.
    fn release_guards(&self, space: &mut Space, slab: Handle) {
        let (addr, len) = (slab.addr(), slab.len_bytes());
        let guard = self.guard_of(slab);
        if guard != 0 {
            debug_assert!(guard.is_multiple_of(GRANULE), "whole granules");
            self.give_granules(space, addr - guard, guard);
            self.give_granules(space, addr + len, guard);
        }
        slab.next.set(space.spare_large);
        space.spare_large = Some(slab);
    }
}
