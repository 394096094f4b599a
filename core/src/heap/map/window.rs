//! The window: the leaves around the first block, whose entries a subtraction finds.

use super::{Entry, GRANULE_BITS, LEAF, Leaves, Map, SMALL, reserve_readable, small};
use crate::{
    arena::Arena,
    atomic::{
        self, AtomicBool, AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    provider::{PageProvider, reserve_ahead},
    sync::RawMutex,
};
use core::ptr::{NonNull, null_mut};

/// Leaves that the window has at most: 64 GiB of blocks, by 8 MiB of addresses.
const WINDOW: usize = if cfg!(all(test, loom)) { 2 } else { 64 };

/// Where the window is, once there is one.
pub(super) struct Window {
    /// Its entries; null before.
    pub(super) entries: AtomicPtr<Entry>,
    /// The address that the first entry is of.
    pub(super) start: AtomicUsize,
    /// How many entries there are: none before all else is known.
    len: AtomicUsize,
    /// Whether pages of it must be made writable.
    pub(super) is_protected: AtomicBool,
}

/// Where a window is, for readers who know by other means that it is there.
#[derive(Clone, Copy)]
pub(in crate::heap) struct RawWindow {
    pub(in crate::heap) entries: NonNull<Entry>,
    /// The address that the first entry is of.
    pub(in crate::heap) start: usize,
    /// How many entries there are.
    pub(in crate::heap) len: usize,
}

impl Window {
    pub(super) fn none() -> Self {
        Self {
            entries: AtomicPtr::new(null_mut()),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            is_protected: AtomicBool::new(false),
        }
    }

    /// Returns the entry of an address, if the window has one.
    #[inline]
    pub(in crate::heap) fn entry(&self, addr: usize) -> Option<&Entry> {
        // First, since `make_window` stores it last.
        let len = self.len.load(Acquire);
        let place = addr.wrapping_sub(self.start.load(Relaxed)) >> GRANULE_BITS;
        if place >= len {
            return None;
        }
        // SAFETY: there are `len` entries.
        let entry = unsafe { self.entries.load(Relaxed).add(place) };
        // SAFETY: zeroed when the window was made, changed by its atomics only, and there as long
        // as the map.
        Some(unsafe { &*entry })
    }
}

impl Map {
    /// Returns where the window is, if there is one.
    pub(in crate::heap) fn window(&self) -> Option<RawWindow> {
        let len = self.window.len.load(Acquire);
        Some(RawWindow {
            entries: NonNull::new(self.window.entries.load(Relaxed)).filter(|_| len != 0)?,
            start: self.window.start.load(Relaxed),
            len,
        })
    }

    /// Returns a window that has an address, if blocks lie near it: *the* window, or a leaf that
    /// serves as one. Where they do not, returns the window.
    pub(in crate::heap) fn window_around(&self, addr: usize) -> Option<RawWindow> {
        if self.window.entry(addr).is_none()
            && let Some(leaf) = self.root().leaf(addr)
        {
            return Some(leaf);
        }
        self.window()
    }

    /// Makes the window around leaf `n`, if there is memory for one, at the first call.
    pub(super) fn make_window<M: PageProvider + Copy, R: RawMutex>(
        &self,
        provider: &M,
        leaves: &mut Leaves,
        arena: &Arena<M, R>,
        n: usize,
    ) {
        if leaves.is_window_made {
            return;
        }
        leaves.is_window_made = true;
        let all = self.raw.granules.div_ceil(LEAF);
        let wanted = all.min(WINDOW);
        let bytes = |leaves: usize| (leaves * LEAF).min(self.raw.granules) * size_of::<Entry>();
        let (count, entries) = if bytes(wanted) <= SMALL {
            match small(arena, bytes(wanted) / size_of::<Entry>()) {
                Ok(entries) => (wanted, entries),
                Err(_) => return,
            }
        } else {
            let ahead = reserve_ahead(provider, 0, bytes(wanted));
            let count = if ahead < bytes(wanted) {
                ahead / bytes(1)
            } else {
                wanted
            };
            if count == 0 || leaves.own.make_room(arena).is_err() {
                return;
            }
            let Ok((range, is_protected)) = reserve_readable(provider, bytes(count)) else {
                return;
            };
            leaves.own.insert(range.addr(), range);
            leaves.window.range = Some(range).filter(|_| is_protected);
            self.window.is_protected.store(is_protected, Relaxed);
            let entries = range.start().cast::<Entry>();
            // SAFETY: committed just now, zeroed; in models it is writable.
            unsafe { atomic::init_zeroed(entries, bytes(count) / size_of::<Entry>()) };
            (count, entries)
        };
        let first = n.saturating_sub(count / 2).min(all - count);
        let len = (count * LEAF).min(self.raw.granules - first * LEAF);
        self.window.start.store(self.leaf_start(first), Relaxed);
        self.window.entries.store(entries.as_ptr(), Relaxed);
        self.window.len.store(len, Release);
    }
}
