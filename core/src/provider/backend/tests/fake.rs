//! A system that is an array of mappings, and fails on demand.

extern crate std;

use super::super::{At, Calls, System};
use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Clock, Commit, Error, ErrorKind, MapEntry, MapFlags, ProcessMap, Purged,
        Resource,
    },
};
use core::{ffi::c_void, ptr::without_provenance_mut};
use std::{boxed::Box, sync::Mutex, vec::Vec};

pub(super) const PAGE: usize = 4096;
/// Behind the last user address, a multiple of a page.
pub(super) const END: usize = 0x1000_0000;
pub(super) const NO_MEMORY: Error = Error::os(ErrorKind::Exhausted, 12);
pub(super) const DENIED: Error = Error::os(ErrorKind::Denied, 13);
pub(super) const EXISTS: Error = Error::os(ErrorKind::Taken, 17);
pub(super) const PLAIN: MapFlags = MapFlags::empty();
pub(super) const VIEW: MapFlags = MapFlags::SHARED.union(MapFlags::OBJECT);

/// A system: where a copy of it points to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fake(pub(super) &'static Mutex<State>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) mapped: Vec<(usize, usize, MapFlags)>,
    /// The most that may be mapped.
    pub(super) limit: usize,
    pub(super) shows_map: bool,
    /// Whether an exact place is a hint, and what one that is in use is refused by otherwise.
    pub(super) hints: bool,
    pub(super) refusal: Error,
    pub(super) aligns: bool,
    /// By what the next call fails that replaces a range, and what becomes of the range.
    pub(super) replacing: Option<(Error, Fate)>,
    /// Ranges that cannot be unmapped.
    pub(super) stuck: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Stays,
    IsHole,
    IsOthers(MapFlags),
}

pub(super) fn fake() -> Fake {
    Fake(Box::leak(Box::new(Mutex::new(State {
        mapped: Vec::new(),
        limit: usize::MAX,
        shows_map: true,
        hints: false,
        refusal: NO_MEMORY,
        aligns: false,
        replacing: None,
        stuck: None,
    }))))
}

impl State {
    fn is_free(&self, at: usize, len: usize) -> bool {
        let inside = at >= PAGE && at.checked_add(len).is_some_and(|end| end <= END);
        inside
            && self
                .mapped
                .iter()
                .all(|m| at + len <= m.0 || m.0 + m.1 <= at)
    }

    fn lowest(&self, len: usize, align: usize) -> Option<usize> {
        (align..END)
            .step_by(align)
            .find(|&at| self.is_free(at, len))
    }

    fn remove(&mut self, at: usize, len: usize) {
        let old = core::mem::take(&mut self.mapped);
        for (start, size, flags) in old {
            let (end, hole) = (start + size, at + len);
            if end <= at || hole <= start {
                self.mapped.push((start, size, flags));
                continue;
            }
            for (from, to) in [(start, at), (hole, end)] {
                if from < to && from >= start && to <= end {
                    self.mapped.push((from, to - from, flags));
                }
            }
        }
    }

    fn add(&mut self, at: usize, len: usize, flags: MapFlags) -> *mut c_void {
        self.mapped.push((at, len, flags));
        self.mapped.sort_unstable_by_key(|m| m.0);
        without_provenance_mut(at)
    }

    pub(super) fn map(
        &mut self,
        len: usize,
        at: At,
        flags: MapFlags,
    ) -> Result<*mut c_void, Error> {
        if let At::Over(range) = at {
            let fate = self.replacing.take();
            match fate {
                Some((_, Fate::Stays)) => {}
                _ => self.remove(range.addr(), len),
            }
            if let Some((_, Fate::IsOthers(flags))) = fate {
                self.add(range.addr(), len, flags);
            }
            return match fate {
                Some((error, _)) => Err(error),
                None => Ok(self.add(range.addr(), len, flags)),
            };
        }
        let used: usize = self.mapped.iter().map(|m| m.1).sum();
        if used.checked_add(len).is_none_or(|all| all > self.limit) {
            return Err(NO_MEMORY);
        }
        let found = match at {
            At::Exact(at) if self.is_free(at, len) => Some(at),
            At::Exact(_) if !self.hints => return Err(self.refusal),
            At::Aligned(_) if !self.aligns => return Err(ErrorKind::Unsupported.into()),
            At::Aligned(align) => self.lowest(len, align),
            _ => self.lowest(len, PAGE),
        };
        let at = found.ok_or(NO_MEMORY)?;
        Ok(self.add(at, len, flags))
    }
}

impl Fake {
    pub(super) fn set(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.0.lock().expect("no test panics"));
        self
    }

    pub(super) fn with(self, at: usize, len: usize, flags: MapFlags) -> Self {
        self.set(|state| {
            state.add(at, len, flags);
        })
    }

    pub(super) fn failing(self, error: Error, fate: Fate) -> Self {
        self.set(|state| state.replacing = Some((error, fate)))
    }

    pub(super) fn mapped(self) -> Vec<(usize, usize, MapFlags)> {
        self.0.lock().expect("no test panics").mapped.clone()
    }
}

impl ProcessMap for Fake {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        if !self.0.lock().expect("no test panics").shows_map {
            return Err(ErrorKind::Unsupported.into());
        }
        for (at, len, flags) in self.mapped() {
            let range = AddressRange::from_len(at, len).expect("not empty");
            if !visit(MapEntry { range, flags }) {
                break;
            }
        }
        Ok(())
    }
}

impl Clock for Fake {
    fn now_ms(&self) -> Option<u64> {
        None
    }
}

// SAFETY: no address of this system is one of the process's.
unsafe impl Calls for Fake {
    fn page_size(&self) -> PageSize {
        PageSize::KIB_4
    }

    fn map_fresh(&self, len: usize, _: Access) -> Result<*mut c_void, Error> {
        let mut state = self.0.lock().expect("no test panics");
        state.map(len, At::Anywhere, PLAIN)
    }

    unsafe fn unmap(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.0.lock().expect("no test panics");
        if state.stuck == Some(range.addr()) {
            return Err(NO_MEMORY);
        }
        state.remove(range.addr(), range.len_bytes());
        Ok(())
    }

    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn hide_from_children(&self, _: PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn purge(&self, _: PageRange) -> Result<Purged, Error> {
        Ok(Purged::Kept)
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        None
    }
}

// SAFETY: no address of this system is one of the process's.
unsafe impl System for Fake {
    type Calls = Self;

    fn calls(&self) -> Self {
        *self
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        wanted & Capabilities::DUAL
    }

    unsafe fn map_reserved(&self, len: usize, at: At) -> Result<*mut c_void, Error> {
        let mut state = self.0.lock().expect("no test panics");
        state.map(len, at, PLAIN)
    }

    unsafe fn map_committed(&self, range: PageRange, _: Commit) -> Result<(), Error> {
        // SAFETY: the caller owns the range, as map_committed asks.
        unsafe { self.map_reserved(range.len_bytes(), At::Over(range)) }.map(drop)
    }

    fn left(&self, _: Resource) -> Option<usize> {
        None
    }

    fn last_address(&self) -> Option<usize> {
        Some(END - 1)
    }

    fn may_be_taken(&self, error: Error) -> bool {
        error == NO_MEMORY
    }

    fn elsewhere(&self) -> Option<Error> {
        None
    }

    fn is_too_long(&self, error: Error) -> bool {
        error == NO_MEMORY
    }
}
