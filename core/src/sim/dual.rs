//! Dual mappings of a simulated host: views that the base makes, at places of the simulation.

use super::{Sim, SimState, State, table::Page};
use crate::{
    page::PageRange,
    provider::{
        Capabilities, DualError, DualMapProvider, DualMapping, DualRequest, Error, ErrorKind,
        Leave, PageProvider, Places, Plan, Request, Target, place_views,
    },
};

/// A simulated host as where places come from, under its lock.
struct Spots<'a, 's, B: PageProvider + Copy>(&'a Sim<B>, &'a mut State<'s, B>);

impl<B: PageProvider + Copy> Places for Spots<'_, '_, B> {
    fn leaves_to_host(&self, _: &Plan) -> bool {
        false
    }

    fn reserve(&mut self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.0.policy.page)?;
        self.0.find(self.1, &plan)
    }

    fn release(&mut self, range: PageRange) {
        self.1.table.set(range, Page::HOLE);
    }
}

// SAFETY: the base keeps the promises; both views lie in the range that is reserved from it for
// the whole life of this value, and the tables say that no one else has their pages.
unsafe impl<B: PageProvider + DualMapProvider + Copy> DualMapProvider for Sim<B> {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        if !self.policy.capabilities.contains(Capabilities::DUAL) {
            return Err(DualError::of(ErrorKind::Unsupported));
        }
        request.validate(self.policy.page)?;
        let pads = self
            .policy
            .capabilities
            .contains(Capabilities::LANDING_PADS);
        if request.landing_pads && !pads {
            return Err(DualError::of(ErrorKind::Unsupported));
        }
        let pages = self.grant(request.pages)?;
        let mut state = self.lock();
        let state = &mut state;
        for target in [request.rw, request.rx] {
            if let Target::Into(range) = target {
                state.check("map_dual", range, |s| s == SimState::Reserved)?;
            }
        }
        let mut views = place_views(&mut Spots(self, state), request, self.policy.page)?;
        let Some((rw, rx)) = views.ranges() else {
            return Err(DualError::of(ErrorKind::Other)); // Every place was reserved.
        };
        let (into_rw, into_rx) = (Target::Into(rw), Target::Into(rx));
        // SAFETY: both ranges are reserved from the base, and the tables say that no other code
        // uses them.
        match unsafe {
            self.base.map_dual(&DualRequest {
                len: views.len_bytes(),
                min_len: None,
                rw: into_rw,
                rx: into_rx,
                pages,
                ..*request
            })
        } {
            Ok(mapping) => {
                state.table.set(rw, Page::RW_VIEW);
                state.table.set(rx, Page::RX_VIEW);
                let page = mapping.page_size().max(self.policy.page);
                let able = self.policy.capabilities.contains(Capabilities::PURGE_DUAL);
                // SAFETY: the base's token is replaced by this one, which says the same but for
                // the page size, and what the policy takes away.
                let made = unsafe {
                    DualMapping::from_parts(rw, rx, mapping.step(), page, mapping.fork())
                };
                Ok(if able && mapping.purges() {
                    made
                } else {
                    made.without_purge()
                })
            }
            Err(error) => {
                views.release(&mut Spots(self, state));
                Err(error)
            }
        }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        let mut state = self.lock();
        let (rw, rx) = (mapping.rw(), mapping.rx());
        for view in [rw, rx] {
            if let Err(error) = state.check("unmap_dual", view, |s| s == SimState::Dual) {
                return Err((mapping, error));
            }
        }
        // SAFETY: no other code uses the views, as unmap_dual asks, and the base made them; it
        // keeps the addresses reserved for this value.
        unsafe { self.base.unmap_dual(mapping, Leave::Reserved)? };
        let page = match leave {
            Leave::Hole => Page::HOLE,
            Leave::Reserved => Page::RESERVED,
        };
        state.table.set(rw, page);
        state.table.set(rx, page);
        Ok(())
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        if !mapping.purges() {
            return Err(ErrorKind::Unsupported.into());
        }
        let part = mapping.rw().part(offset, len, self.policy.page);
        let part = part.ok_or(ErrorKind::InvalidArgument)?;
        self.lock()
            .check("purge_dual", part, |s| s == SimState::Dual)?;
        // SAFETY: no other code uses those pages until they are refilled, as purge_dual asks; the
        // base made the mapping.
        unsafe { self.base.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let part = mapping.rw().part(offset, len, self.policy.page);
        let part = part.ok_or(ErrorKind::InvalidArgument)?;
        self.lock()
            .check("refill_dual", part, |s| s == SimState::Dual)?;
        // SAFETY: the mapping is one of this provider, as refill_dual asks; that is, of the base.
        unsafe { self.base.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: this is the only thread of a forked child, and the one call for this mapping, as
        // fork_child_dual asks; the base made it.
        unsafe { self.base.fork_child_dual(mapping) }
    }
}
