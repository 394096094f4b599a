//! The index of huge blocks: which one is at an address.

use crate::{
    heap::{Heap, slab::Handle, space::Space},
    intervals::Interval,
    provider::PageProvider,
    sync::RawMutex,
};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex> Heap<P, M, R> {
    /// Returns the huge block whose reservation is around an address, any address at all.
    pub(in crate::heap) fn huge_at(&self, addr: usize) -> Option<Handle> {
        self.huge_of(self.parts().huge.find(addr)?)
    }

    /// Returns the first huge block whose reservation ends above an address, and that.
    pub(in crate::heap) fn next_huge(&self, addr: usize) -> Option<(Interval, Handle)> {
        let found = self.parts().huge.next(addr)?;
        Some((found, self.huge_of(found)?))
    }

    /// Yields all huge blocks. The lock of the granules is held, and none comes or goes meanwhile.
    pub(in crate::heap) fn all_huge(&self) -> impl Iterator<Item = Handle> {
        let step = |from: Option<usize>| {
            let (range, slab) = self.next_huge(from?)?;
            Some((slab, range.start.checked_add(range.len)))
        };
        let first = step(Some(0));
        core::iter::successors(first, move |(_, from)| step(*from)).map(|(slab, _)| slab)
    }

    /// Enters the reservation of a huge block again, after its length has changed.
    pub(in crate::heap) fn enter_huge(&self, space: &mut Space, slab: Handle) {
        if let Some(whole) = self.whole(slab) {
            let (start, len) = (whole.addr(), whole.len_bytes());
            let number = slab.exposed();
            space.huge.change(&mut space.spares, start, len, number);
        }
    }

    /// Enters where a huge block starts in the page map, if that costs little.
    pub(super) fn enter_first(&self, space: &mut Space, slab: Handle) {
        let (leaves, addr) = (&mut space.leaves, slab.addr());
        self.map
            .set_first(&self.metadata, leaves, self.arena(), addr, slab);
    }

    /// Returns the huge block of an entry of the index.
    pub(in crate::heap) fn huge_of(&self, entry: Interval) -> Option<Handle> {
        // SAFETY: `open_huge` stored what `Handle::exposed` returned, and zero stands for none; the
        // heap is there.
        unsafe { Handle::from_exposed(entry.value) }
    }
}
