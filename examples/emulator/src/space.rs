//! The guest's address space: what it mapped, where there is room, and what it may do there.
//!
//! The whole of it is reserved from the start, so that nothing of the host's comes between; a
//! mapping gives reserved pages memory, and taking it away makes them reserved again. The host
//! never maps guest code executable: it is read, and translated.
//!
//! Hosts with larger pages than the guest's need `coarse`. `mapping` says what the map holds,
//! `resize` makes mappings longer and shorter, and `fetch` reads instructions.

mod coarse;
mod fetch;
mod mapping;
mod resize;

use coarse::Coarse;

pub(crate) use crate::elf::USER_END;
pub(crate) use fetch::Reader;
pub(crate) use mapping::{Content, Mapping};

use crate::{
    elf::{self, Protection},
    host::Region,
    interpret::Kind,
    machine::{Mutex, MutexGuard},
};
use core::ptr::NonNull;
use hostmem::{
    OsLock, OsProvider,
    page::{Access, AddressRange, Ceiling, PageRange, PageSize},
    provider::{Commit, Error, ErrorKind, PageProvider, PageWish},
    range_map::{GapOrder, GapRequest, RangeMap},
};
use linux_raw_sys::general::{
    MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE,
};
use syscalls::{Sysno, syscall};

/// The size of the guest's pages, which is part of its system-call interface.
pub(crate) const PAGE: u32 = 4096;

/// Bytes that the map of mappings takes at most: more than a page each would need.
const MAP_BYTES: usize = 64 << 20;

/// Where a mapping is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In the place of what is there.
    Over(AddressRange),
    /// There, if all of it is free.
    Free(AddressRange),
    /// At `hint` if that is free, else as high as can be.
    Anywhere { hint: u32, len: u32 },
}

/// What of which file of the host's is to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilePart {
    pub(crate) fd: i32,
    pub(crate) offset: u64,
}

/// The guest's address space.
pub(crate) struct Space {
    map: RangeMap<Mapping, &'static Region, OsLock>,
    os: OsProvider,
    /// What guest pages are made of where the host's are larger.
    coarse: Option<Coarse>,
    /// Held by changes, so that finding room and taking it are one step; has the program's break.
    changes: Mutex<Break>,
}

/// The program's break: where it started, and where it is.
#[derive(Clone, Copy, Debug, Default)]
struct Break {
    start: u32,
    now: u32,
}

/// Returns `len` in whole pages; `None` where it is zero or does not fit.
fn in_pages(len: u32) -> Option<u32> {
    len.checked_next_multiple_of(PAGE).filter(|len| *len != 0)
}

/// Describes guest addresses, of which there are some.
fn addresses(addr: u32, len: u32) -> Result<AddressRange, Error> {
    let range = AddressRange::from_len(addr as usize, len as usize);
    range
        .filter(|range| range.last() < USER_END as usize)
        .ok_or(ErrorKind::InvalidArgument.into())
}

impl Space {
    /// Makes the space of what was reserved for it. Other addresses, and the low heap's, are the
    /// host's.
    ///
    /// # Errors
    ///
    /// Without memory, and on hosts with pages that are smaller than the guest's, or larger than
    /// 64 KiB.
    pub(crate) fn new(
        region: &'static Region,
        reserved: &[PageRange],
        host: AddressRange,
        host_page: Option<usize>,
    ) -> Result<Self, Error> {
        let os = OsProvider::new();
        let invalid = ErrorKind::InvalidArgument;
        let page = PageSize::new(PAGE as usize).ok_or(invalid)?;
        let host_page = host_page.map_or(Some(os.page_size()), PageSize::new);
        let host_page = host_page.ok_or(invalid)?.bytes();
        // What is the guest's begins and ends where the largest pages do.
        let coarse = if host_page == page.bytes() {
            None
        } else if host_page > page.bytes() && host_page <= elf::LOWEST as usize {
            Some(Coarse::new(region, host_page)?)
        } else {
            return Err(ErrorKind::Unsupported.into());
        };
        let bounds = AddressRange::new(0, USER_END as usize - 1).ok_or(invalid)?;
        let map = RangeMap::on(region, bounds, page, MAP_BYTES)?;
        let mapping = Mapping {
            content: Content::Host,
            protection: Protection::NONE,
        };
        map.insert(bounds, mapping)?;
        for range in reserved {
            if let Some(part) = range.addresses().intersect(bounds) {
                map.remove(part)?;
            }
        }
        map.insert(host, mapping)?;
        Ok(Self {
            map,
            os,
            coarse,
            changes: Mutex::new(Break::default()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Break> {
        self.changes.lock()
    }

    fn pages(&self, range: AddressRange) -> Result<PageRange, Error> {
        let start = core::ptr::with_exposed_provenance_mut(range.start());
        let start = NonNull::new(start).ok_or(ErrorKind::InvalidArgument)?;
        let len = range.last() - range.start() + 1;
        let pages = PageRange::new(start, len, self.os.page_size());
        pages.ok_or(ErrorKind::InvalidArgument.into())
    }

    /// Finds the mapping that has an address. Takes no lock: for the handler of faults, too.
    pub(crate) fn query(&self, addr: u32) -> Option<(AddressRange, Mapping)> {
        self.map.query(addr as usize)
    }

    /// Says whether guest memory has a second view.
    pub(crate) const fn has_second_view(&self) -> bool {
        self.coarse.is_some()
    }

    /// Says whether the guest may make an access, of two pages at most.
    pub(crate) fn allows(&self, addr: u32, len: usize, kind: Kind) -> bool {
        let last = addr as usize + len.saturating_sub(1);
        [addr as usize, last].into_iter().all(|addr| {
            let found = self
                .map
                .query(addr)
                .map(|(_, mapping)| mapping.protection.access());
            match found {
                Some(Access::ReadWrite) => true,
                Some(Access::Read) => kind != Kind::Store,
                _ => false,
            }
        })
    }

    /// Yields all mappings in the order of their addresses.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (AddressRange, Mapping)> + '_ {
        self.map.ranges(self.map.bounds())
    }

    /// Returns the range of whole pages around `len` bytes from `addr` on.
    pub(crate) fn around(addr: u32, len: u32) -> Result<AddressRange, Error> {
        let start = addr & !(PAGE - 1);
        let end = addr.checked_add(len).and_then(in_pages);
        addresses(start, end.ok_or(ErrorKind::InvalidArgument)? - start)
    }

    /// Says whether a range has an address of the host's.
    fn has_host(&self, range: AddressRange) -> bool {
        let mut ranges = self.map.ranges(range);
        ranges.any(|(_, mapping)| mapping.content == Content::Host)
    }

    /// Maps pages: fresh ones, or those of a file. Returns where.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for what is no whole pages, or the host's;
    /// [`ErrorKind::Taken`] where a place is to be free and is not; [`ErrorKind::Exhausted`] without
    /// room or memory; of a file, [`ErrorKind::Denied`] too.
    pub(crate) fn map(
        &self,
        place: Place,
        mapping: Mapping,
        file: Option<FilePart>,
    ) -> Result<AddressRange, Error> {
        let held = self.lock();
        let free = |range: &AddressRange| self.map.ranges(*range).next().is_none();
        let range = match place {
            Place::Over(range) => range,
            Place::Free(range) if free(&range) => range,
            Place::Free(_) => return Err(ErrorKind::Taken.into()),
            Place::Anywhere { hint, len } => {
                let len = in_pages(len).ok_or(ErrorKind::InvalidArgument)?;
                let wanted = addresses(hint & !(PAGE - 1), len).ok();
                match wanted.filter(|_| hint != 0).filter(free) {
                    Some(range) => range,
                    None => self.find_gap(len as usize)?,
                }
            }
        };
        match file {
            None => self.map_held(&held, range, mapping)?,
            Some(file) => self.map_file(&held, range, mapping, file)?,
        }
        Ok(range)
    }

    /// Finds room for whole guest pages, which ends where a host page does.
    fn find_gap(&self, len: usize) -> Result<AddressRange, Error> {
        let host_page = self.coarse.as_ref().map_or(PAGE as usize, Coarse::page);
        let request = GapRequest::bytes(len).order(GapOrder::Highest);
        self.map.find_gap(&request.aligned(host_page, len))
    }

    fn map_held(
        &self,
        held: &MutexGuard<'_, Break>,
        range: AddressRange,
        mapping: Mapping,
    ) -> Result<(), Error> {
        let how = Commit {
            access: mapping.protection.access(),
            ceiling: Ceiling::ReadWrite,
            pages: PageWish::Base,
        };
        self.fill(held, range, mapping, || match &self.coarse {
            Some(coarse) => coarse.show(&self.map, range),
            // SAFETY: the guest's reserved pages: unmapped just now, under the lock of all changes.
            None => unsafe { self.os.commit(self.pages(range)?, how) }.map(|_| ()),
        })
    }

    fn map_file(
        &self,
        held: &MutexGuard<'_, Break>,
        range: AddressRange,
        mapping: Mapping,
        file: FilePart,
    ) -> Result<(), Error> {
        let protection = match mapping.protection.access() {
            Access::ReadWrite => PROT_READ | PROT_WRITE,
            Access::Read => PROT_READ,
            _ => PROT_NONE,
        };
        let shared = match mapping.content {
            Content::Shared => MAP_SHARED,
            _ => MAP_PRIVATE,
        };
        let offset = i64::try_from(file.offset).map_err(|_| ErrorKind::InvalidArgument)?;
        self.fill(held, range, mapping, || {
            if let Some(coarse) = &self.coarse {
                if mapping.content == Content::Shared && mapping.protection.write {
                    // What the guest writes would not reach the file.
                    return Err(ErrorKind::InvalidArgument.into());
                }
                coarse.read_file(range, file)?;
                return coarse.show(&self.map, range);
            }
            let pages = self.pages(range)?;
            let (start, len) = (pages.start().as_ptr(), pages.len_bytes());
            let (flags, fd) = (MAP_FIXED | shared, file.fd);
            // SAFETY: the guest's reserved pages, as above; the host keeps no reference to them.
            let mapped =
                unsafe { syscall!(Sysno::mmap, start, len, protection, flags, fd, offset) };
            mapped.map(|_| ()).map_err(coarse::error)
        })
    }

    /// Notes a mapping in the place of what was there, and calls `back` to give it memory.
    fn fill(
        &self,
        held: &MutexGuard<'_, Break>,
        range: AddressRange,
        mapping: Mapping,
        back: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.unmap_held(held, range)?;
        self.map.insert(range, mapping)?;
        if let Err(error) = back() {
            self.map.remove(range)?;
            if let Some(coarse) = &self.coarse {
                // As it was, as far as there is memory for that.
                let _ = coarse
                    .clear(range)
                    .and_then(|()| coarse.show(&self.map, range));
            }
            return Err(error);
        }
        Ok(())
    }

    /// Takes pages away; there need not be any.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for what is no whole pages, or the host's.
    pub(crate) fn unmap(&self, range: AddressRange) -> Result<(), Error> {
        let held = self.lock();
        self.unmap_held(&held, range)
    }

    fn unmap_held(&self, _: &MutexGuard<'_, Break>, range: AddressRange) -> Result<(), Error> {
        if self.has_host(range) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if self.map.ranges(range).next().is_some() {
            if let Some(coarse) = &self.coarse {
                self.map.remove(range)?;
                coarse.show(&self.map, range)?;
                return coarse.clear(range);
            }
            let pages = self.pages(range)?;
            // SAFETY: the guest's pages, reserved or committed; the guest alone uses them.
            unsafe { self.os.decommit(pages)? };
            self.map.remove(range)?;
        }
        Ok(())
    }

    /// Changes what the guest may do in a range, all of which is mapped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] where something is not mapped, with what lies before it changed.
    pub(crate) fn protect(&self, range: AddressRange, protection: Protection) -> Result<(), Error> {
        let _held = self.lock();
        if self.has_host(range) {
            return Err(ErrorKind::Exhausted.into());
        }
        let mut at = range.start();
        while at <= range.last() {
            let (found, mapping) = self.map.query(at).ok_or(ErrorKind::Exhausted)?;
            let part = AddressRange::new(at, found.last().min(range.last()));
            let part = part.ok_or(ErrorKind::InvalidArgument)?;
            if self.coarse.is_none() {
                let pages = self.pages(part)?;
                // SAFETY: the guest's committed pages: the map says so, and its lock is held.
                unsafe { self.os.protect(pages, protection.access())? };
            }
            let changed = Mapping {
                protection,
                ..mapping
            };
            self.map.insert(part, changed)?;
            if let Some(coarse) = &self.coarse {
                coarse.show(&self.map, part)?;
            }
            at = part.last() + 1;
        }
        Ok(())
    }

    /// Gives the memory of mapped pages back; they read zero again.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub(crate) fn purge(&self, range: AddressRange) -> Result<(), Error> {
        let _held = self.lock();
        for (found, mapping) in self.map.ranges(range) {
            let anonymous = mapping.content != Content::Host && !mapping.content.is_of_file();
            if let Some(part) = found.intersect(range).filter(|_| anonymous) {
                if let Some(coarse) = &self.coarse {
                    coarse.clear(part)?;
                    continue;
                }
                let pages = self.pages(part)?;
                // SAFETY: the guest's committed pages, whose contents it gave up.
                unsafe { self.os.purge(pages)? };
            }
        }
        Ok(())
    }
}
