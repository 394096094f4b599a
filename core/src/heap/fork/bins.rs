//! How a forked child fills the bins anew.

use super::take;
use crate::{
    heap::{
        Heap,
        bin::Bin,
        class::{self, CLASSES},
        parts::{Held, Parts},
    },
    provider::PageProvider,
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Fills the bins in use, which are empty, with those of before.
    pub(super) fn fill_bins(&self, old: &Parts<R>, resumes: bool) {
        let mut any_held = false;
        for (n, before) in old.bins().iter().enumerate() {
            match take(before, Bin::new()) {
                Some(bin) => *self.lock_bin(n / CLASSES, n % CLASSES) = bin,
                None => any_held = true,
            }
        }
        if !any_held {
            return;
        }
        let mut place = 0;
        while let Some(segment) = { self.lock_space().segments.nth(place) } {
            place += 1;
            for (_, slab) in self.slabs_of(segment) {
                let (shard, class) = (slab.shard(), slab.class());
                if class >= CLASSES || !old.bins()[shard * CLASSES + class].is_locked() {
                    continue;
                }
                let is_new = resumes && !slab.is_abandoned();
                if is_new {
                    slab.abandon();
                }
                let free = self.lock_bin(shard, class).adopt(slab, self.page);
                if is_new {
                    self.note_abandoned(free * class::size(class));
                }
            }
        }
    }

    /// Makes a bin anew that a call never goes on with. Its lock is held.
    pub(in crate::heap) fn mend_bin(&self, bin: &mut Held<'_, Bin, R>, shard: usize, class: usize) {
        **bin = Bin::new();
        let space = self.lock_space();
        for (_, segment) in space.segments.all() {
            for (_, slab) in self.slabs_of(*segment) {
                if slab.class() == class && slab.shard() == shard {
                    bin.adopt(slab, self.page);
                }
            }
        }
    }
}
