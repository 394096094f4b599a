//! Dual mappings that are counted as they come and go.

use super::Counted;
use crate::{
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, Error, ErrorKind, Leave,
        PageProvider, PageWish, Target,
    },
    sync::RawMutex,
};

// SAFETY: calls are passed on, at most shorter, or refused; the inner provider keeps the promises.
unsafe impl<P: PageProvider + DualMapProvider + Copy, R: RawMutex> DualMapProvider for Counted<P, R>
where
    R: Send + Sync,
{
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        self.counting(|| {
            request.validate(self.inner.page_size())?;
            let fixed = |target| matches!(target, Target::Into(_));
            let least = match (request.min_len, request.pages) {
                // Whole large pages are the affair of those who know how large they are.
                (Some(_), PageWish::Large { .. }) | (None, _) => request.len,
                (Some(_), _) if fixed(request.rw) || fixed(request.rx) => request.len,
                (Some(min_len), _) => min_len,
            };
            self.check_memory(least)?;
            let room = self.inner.page_size().round_down(self.room());
            let wanted = DualRequest {
                len: request.len.min(room.max(least)),
                ..*request
            };
            // SAFETY: Into targets are reservations of the caller's, as map_dual asks; they came
            // from the inner provider.
            let result = unsafe { self.inner.map_dual(&wanted) };
            match &result {
                Ok(mapping) => self.dual.add(mapping.len_bytes()),
                Err(e) => {
                    if let Some(range) = e.lost() {
                        self.reserved.sub(range.len_bytes());
                    }
                }
            }
            if result.is_ok() {
                for target in [request.rw, request.rx] {
                    if let Target::Into(range) = target {
                        self.reserved.sub(range.len_bytes());
                    }
                }
            }
            result
        })
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        self.counting(|| {
            let len = mapping.len_bytes();
            // SAFETY: no other code uses the mapping, as unmap_dual asks; the inner provider made
            // it.
            let result = unsafe { self.inner.unmap_dual(mapping, leave) };
            match &result {
                Ok(()) => {
                    self.dual.sub(len);
                    if leave == Leave::Reserved {
                        self.reserved.add(2 * len);
                    }
                }
                Err((_, error)) if error.kind() == ErrorKind::RangeLost => {
                    self.dual.sub(len);
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: no other code uses those pages until they are refilled, as purge_dual asks; the
        // inner provider made the mapping.
        self.counting(|| unsafe { self.inner.purge_dual(mapping, offset, len) })
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping is one of this provider, as refill_dual asks; that is, of the inner
        // provider.
        self.counting(|| unsafe { self.inner.refill_dual(mapping, offset, len) })
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: this is the only thread of a forked child, and the one call for this mapping, as
        // fork_child_dual asks; the inner provider made it.
        self.counting(|| unsafe { self.inner.fork_child_dual(mapping) })
    }
}
