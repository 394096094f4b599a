//! A magazine: a small stack of free blocks of one class.

use crate::{
    atomic::{
        self, AtomicPtr,
        Ordering::{Acquire, Relaxed, Release},
    },
    heap::{
        class,
        config::MAGAZINE_MOST,
        slab::{Entry, FREED},
    },
};
use core::{
    alloc::Layout,
    mem::MaybeUninit,
    ptr::{NonNull, null_mut},
    slice,
};

/// Blocks that a magazine has room for at first.
pub(in crate::heap) const FIRST: u32 = 8;

/// A small stack of free blocks, from `bottom` to `top`, with room up to `end`. Only the thread
/// that has the cache changes it; others may look at the length.
#[repr(align(32))]
pub(in crate::heap) struct Magazine {
    top: AtomicPtr<Entry>,
    bottom: AtomicPtr<Entry>,
    end: AtomicPtr<Entry>,
    /// The reciprocal that offsets are [divided](class::index) by, here since a free looks
    /// here anyway.
    pub(in crate::heap) reciprocal: u64,
}

impl Magazine {
    pub(super) fn new(class: usize) -> Self {
        Self {
            reciprocal: class::reciprocal(class),
            ..Self::none()
        }
    }

    /// Makes one of no class.
    pub(super) fn none() -> Self {
        Self {
            top: AtomicPtr::new(null_mut()),
            bottom: AtomicPtr::new(null_mut()),
            end: AtomicPtr::new(null_mut()),
            reciprocal: 0,
        }
    }

    /// Returns how many blocks there are. Another thread than the one that has the cache may be
    /// told of none while room is made for more, or of as many as a magazine can have at most.
    pub(in crate::heap) fn len(&self) -> u32 {
        let bottom = self.bottom.load(Acquire);
        let len = entries(bottom, self.top.load(Acquire));
        let same = bottom == self.bottom.load(Relaxed) && len <= self.capacity();
        // Another thread may see the bottom of one time and the other two of another.
        if same && len <= MAGAZINE_MOST { len } else { 0 }
    }

    pub(in crate::heap) fn capacity(&self) -> u32 {
        entries(self.bottom.load(Relaxed), self.end.load(Relaxed))
    }

    /// Reads one of the pointers, for the thread that has the cache.
    #[inline]
    fn own(pointer: &AtomicPtr<Entry>) -> *mut Entry {
        // SAFETY: only that thread changes them, which is the one that allocates and frees by this
        // magazine.
        unsafe { atomic::own_ptr(pointer) }
    }

    /// Returns the last block that was pushed.
    #[inline]
    pub(in crate::heap) fn pop(&self) -> Option<Entry> {
        self.pop_if(|_| true)
    }

    /// Returns the last block that was pushed, if it is as wanted.
    #[inline]
    pub(super) fn pop_if(&self, is_wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        if top == bottom {
            return None;
        }
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let last = unsafe { top.sub(1) };
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        let entry = unsafe { last.read() };
        if !is_wanted(&entry) {
            return None;
        }
        // Loaded once more, so that a processor does it by one instruction.
        let top = self.top.load(Relaxed);
        self.top.store(top.wrapping_sub(1), Relaxed);
        Some(entry)
    }

    /// Returns one of the blocks, by a random number.
    #[inline]
    pub(in crate::heap) fn pop_any(&self, random: u16) -> Option<Entry> {
        let (top, bottom) = (Self::own(&self.top), Self::own(&self.bottom));
        if top == bottom {
            return None;
        }
        let count = (top.addr() - bottom.addr()) / size_of::<Entry>();
        let nth = (count * usize::from(random)) >> u16::BITS;
        // SAFETY: the slots go on beyond entry `nth`, which is below their number.
        let slot = unsafe { bottom.add(nth) };
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        let any = unsafe { slot.read() };
        // SAFETY: above the bottom, so that an entry of the same slots lies below.
        let last = unsafe { top.sub(1) };
        // SAFETY: entries below the top are initialised, and only this thread changes them.
        let last = unsafe { last.read() };
        // SAFETY: in the slots, as `nth` is below their number, and only this thread uses it; it
        // may be the last one's own.
        unsafe { slot.write(last) };
        self.top.store(top.wrapping_sub(1), Relaxed);
        Some(any)
    }

    /// Adds a block; says whether there was room.
    #[inline]
    pub(in crate::heap) fn push(&self, entry: Entry) -> bool {
        self.push_after(entry, |_| ())
    }

    /// Adds a block that is live until then; says whether there was room.
    #[inline]
    pub(in crate::heap) fn push_live(&self, entry: Entry) -> bool {
        self.push_after(entry, |entry| entry.state().store(FREED, Relaxed))
    }

    /// Adds a block, if there is room, after something else was done with it.
    #[inline]
    pub(super) fn push_after(&self, entry: Entry, before: impl FnOnce(&Entry)) -> bool {
        let (top, end) = (Self::own(&self.top), Self::own(&self.end));
        if top == end {
            return false;
        }
        before(&entry);
        // SAFETY: below the end, there is room for an entry, which only this thread uses.
        unsafe { top.write(entry) };
        // Release, since a forked child looks at the entries below the top. Loaded once more, as in
        // `pop`.
        let top = self.top.load(Relaxed);
        self.top.store(top.wrapping_add(1), Release);
        true
    }

    /// Puts the `count` blocks that were pushed first on top of the others. A forked child may find
    /// some of them twice, and some not at all.
    pub(in crate::heap) fn raise_oldest(&self, count: u32) {
        debug_assert!(count <= self.len(), "as many are there");
        if let Some(bottom) = NonNull::new(Self::own(&self.bottom)) {
            // SAFETY: entries from the bottom on, as many as the length says, are initialised, and
            // only this thread looks at them as long as it is in this call.
            let entries =
                unsafe { slice::from_raw_parts_mut(bottom.as_ptr(), self.len() as usize) };
            entries.rotate_left(count as usize);
        }
    }

    /// Takes blocks off the top, until `to` is full or none is left, and returns them in the order
    /// in which they were pushed.
    pub(in crate::heap) fn pop_some<'to>(&self, to: &'to mut [MaybeUninit<Entry>]) -> &'to [Entry] {
        let count = (self.len() as usize).min(to.len());
        let top = Self::own(&self.top).wrapping_sub(count);
        for (n, place) in to[..count].iter_mut().enumerate() {
            // SAFETY: `count` entries lie below the top, which was `count` above here.
            let slot = unsafe { top.add(n) };
            // SAFETY: entries below the top are initialised, and only this thread changes them.
            place.write(unsafe { slot.read() });
        }
        self.top.store(top, Release);
        // SAFETY: the first `count` were written just now.
        unsafe { slice::from_raw_parts(to.as_ptr().cast(), count) }
    }

    /// Writes a block into an empty magazine, at a place from the bottom. The magazine has it after
    /// [`Magazine::filled`] only.
    #[inline]
    pub(in crate::heap) fn put_at(&self, place: u32, entry: Entry) {
        debug_assert!(place < self.capacity(), "there is room");
        // SAFETY: below the end, there is room for an entry.
        let slot = unsafe { Self::own(&self.bottom).add(place as usize) };
        // SAFETY: inside the slots; only this thread uses what lies above the top.
        unsafe { slot.write(entry) };
    }

    /// Says that an empty magazine has the blocks that were put at places from `from` up to `to`.
    pub(in crate::heap) fn filled(&self, from: u32, to: u32) {
        let bottom = self.bottom.load(Relaxed);
        let count = (to - from) as usize;
        if count == 0 {
            return;
        }
        if from != 0 {
            // SAFETY: the slots go on beyond `from`, which is below `to`, and that is not above the
            // capacity.
            let first = unsafe { bottom.add(from as usize) };
            // SAFETY: as many entries were written there, and there is room at the bottom.
            unsafe { bottom.copy_from(first, count) };
        }
        // SAFETY: the slots have room for `count` entries, as `to` is not above the capacity.
        self.top.store(unsafe { bottom.add(count) }, Release);
    }

    /// Returns the slots, and their layout, if there are any.
    pub(in crate::heap) fn memory(&self) -> Option<(NonNull<u8>, Layout)> {
        let slots = NonNull::new(self.bottom.load(Relaxed))?;
        Some((slots.cast(), Self::layout(self.capacity())?))
    }

    /// Forgets the slots of an empty magazine; they can be freed then.
    pub(in crate::heap) fn shut(&self) -> Option<(NonNull<u8>, Layout)> {
        debug_assert!(self.len() == 0, "no block is lost");
        let memory = self.memory();
        self.forget();
        memory
    }

    /// Forgets the slots, and what is in them.
    pub(super) fn forget(&self) {
        for pointer in [&self.bottom, &self.top, &self.end] {
            pointer.store(null_mut(), Relaxed);
        }
    }

    /// Returns the layout of `capacity` slots.
    pub(in crate::heap) fn layout(capacity: u32) -> Option<Layout> {
        Layout::array::<Entry>(capacity as usize).ok()
    }

    /// Moves to larger slots, room for `capacity` blocks; the old ones can be freed then.
    pub(in crate::heap) fn grow(&self, slots: NonNull<Entry>, capacity: u32) {
        let (old, len) = (self.bottom.load(Relaxed), self.len() as usize);
        debug_assert!(len <= capacity as usize, "nothing is lost");
        for n in 0..len {
            // SAFETY: the old slots have `len` entries, and `n` is below that.
            let from = unsafe { old.add(n) };
            // SAFETY: below the capacity, which is not less than before.
            let to = unsafe { slots.add(n) };
            // SAFETY: entries below the length are initialised, and only this thread changes them.
            let entry = unsafe { from.read() };
            // SAFETY: fresh memory with room for `capacity` entries, which no other code uses yet.
            unsafe { to.write(entry) };
        }
        let bottom = slots.as_ptr();
        // A thread that looks meanwhile finds no room, and so no blocks.
        self.end.store(null_mut(), Release);
        self.bottom.store(bottom, Release);
        // SAFETY: len is not above the capacity, for which there is room.
        self.top.store(unsafe { bottom.add(len) }, Release);
        // SAFETY: the slots have room for `capacity` entries.
        self.end
            .store(unsafe { bottom.add(capacity as usize) }, Release);
    }
}

/// Returns how many entries fit between two addresses; none if they are not in order.
#[inline]
pub(super) fn entries(from: *const Entry, to: *const Entry) -> u32 {
    let bytes = to.addr().saturating_sub(from.addr());
    u32::try_from(bytes / size_of::<Entry>()).unwrap_or(u32::MAX)
}
