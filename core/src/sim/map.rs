//! The map of a simulated host, as its search and its users see it.

use super::{Sim, State};
use crate::{
    page::AddressRange,
    provider::{AddressSpace, Error, MapEntry, MapFlags, PageProvider, ProcessMap},
};

/// The map of a simulated host: everything outside it is in use.
pub(super) struct View<'a, 'b, 'c, B: PageProvider + Copy>(
    pub(super) &'a core::cell::RefCell<&'b mut State<'c, B>>,
);

// SAFETY: a View lives inside one call, on one thread, and no other code sees it.
unsafe impl<B: PageProvider + Copy> Send for View<'_, '_, '_, B> {}
// SAFETY: a View lives inside one call, on one thread, and no other code sees it.
unsafe impl<B: PageProvider + Copy> Sync for View<'_, '_, '_, B> {}

impl<B: PageProvider + Copy> ProcessMap for View<'_, '_, '_, B> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.0.borrow().table.walk(visit);
        Ok(())
    }
}

impl<B: PageProvider + Copy> ProcessMap for Sim<B> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.lock().table.walk(&mut |entry: MapEntry| {
            let outside = entry.flags == MapFlags::OBJECT;
            outside || visit(entry)
        });
        Ok(())
    }

    fn address_space(&self) -> AddressSpace {
        AddressSpace {
            user: Some(self.space().addresses()),
            ..AddressSpace::default()
        }
    }
}

/// Everything outside a simulated host, as its map shows it to the search.
pub(super) fn outside(start: usize, last: usize) -> Option<MapEntry> {
    AddressRange::new(start, last).map(|range| MapEntry {
        range,
        flags: MapFlags::OBJECT,
    })
}
