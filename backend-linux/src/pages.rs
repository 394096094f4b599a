//! Pages: reserve, commit, protect, decommit, release.
//!
//! Reserved is `PROT_NONE`, private, anonymous, `MAP_NORESERVE`: the flags of an ordinary fresh
//! mapping, so that the kernel merges neighbours into one. Decommitting maps over, which drops the
//! contents and leaves exactly such a mapping in one call.

use crate::{LinuxProvider, errno::error, raw};
use core::{
    ffi::{CStr, c_void},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};
use hostmem_core::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Dump, Error, ErrorKind, MapFlags as Entry, PageProvider, PageWish,
        Place, Plan, Purged, Request, Resource, consists_of, search,
    },
};
use rustix::{
    io::Errno,
    mm::{
        Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mprotect,
        mremap_fixed, munmap,
    },
};

/// The kind of mapping that every reservation is.
const PLAIN: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// Returns the address of a range for a system call.
pub(crate) fn pointer(range: PageRange) -> *mut c_void {
    range.start().as_ptr().cast()
}

pub(crate) fn protection(access: Access) -> ProtFlags {
    let mut flags = ProtFlags::empty();
    flags.set(ProtFlags::READ, access.readable());
    flags.set(ProtFlags::WRITE, access.writable());
    flags.set(ProtFlags::EXEC, access.executable());
    flags
}

/// `PROT_BTI` of `asm/mman.h`.
#[cfg(target_arch = "aarch64")]
const PROT_BTI: ProtFlags = ProtFlags::from_bits_retain(0x10);

/// Returns the protection that makes pages refuse indirect branches but to landing pads.
#[cfg(target_arch = "aarch64")]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    let page = LinuxProvider::new().reserve(&Request::bytes(1))?;
    let flags = MprotectFlags::from_bits_retain((ProtFlags::READ | PROT_BTI).bits());
    // mmap ignores what it does not know; mprotect refuses it.
    // SAFETY: reserved just now, and known to nobody else.
    let known = unsafe { mprotect(pointer(page), page.len_bytes(), flags) };
    // SAFETY: as above. A failure wastes a page of addresses.
    let _ = unsafe { unmap(page) };
    known
        .map(|()| PROT_BTI)
        .map_err(|_| ErrorKind::Unsupported.into())
}

/// Says that this CPU has no such pages, or that its kernel keeps them from programs.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    Err(ErrorKind::Unsupported.into())
}

/// Returns the host's page size.
///
/// Asked of the kernel by whether it takes an address as page-aligned: a freestanding program may
/// have no auxiliary vector to read it from.
pub(crate) fn page_size() -> PageSize {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    if cfg!(target_arch = "x86_64") {
        return PageSize::KIB_4;
    }
    if let Some(known) = PageSize::new(CACHED.load(Ordering::Relaxed)) {
        return known;
    }
    match detect_page_size() {
        Some(size) => {
            CACHED.store(size.bytes(), Ordering::Relaxed);
            size
        }
        // Not even two pages to look at. Multiples of the largest size are aligned for all.
        None => PageSize::KIB_64,
    }
}

fn detect_page_size() -> Option<PageSize> {
    let len = 2 * PageSize::KIB_64.bytes();
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let base = unsafe { mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::empty(), PLAIN) };
    let base = base.ok()?;
    let found = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64]
        .into_iter()
        .find(|size| {
            let inside = base.wrapping_byte_add(size.bytes());
            // SAFETY: normal advice changes nothing; EINVAL says that the address is misaligned.
            unsafe { madvise(inside, size.bytes(), Advice::Normal) }.is_ok()
        });
    // SAFETY: mapped above, and known to nobody else. It cannot fail for a whole mapping.
    let _ = unsafe { munmap(base, len) };
    found
}

/// The sizes of user address spaces in bits, largest first.
const ADDRESS_BITS: [u32; 7] = [57, 52, 48, 47, 42, 39, 36];

/// Returns the bits of a user-space address; `None` where nothing could be found out.
pub(crate) fn address_bits() -> Option<u32> {
    static CACHED: AtomicU32 = AtomicU32::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {}
        bits => return Some(bits),
    }
    let page = page_size().bytes();
    let found = ADDRESS_BITS
        .into_iter()
        .filter(|&bits| bits < usize::BITS)
        .find(|&bits| {
            // The very last page is not for users on some CPUs.
            let addr = (1usize << bits) - 2 * page;
            match map_at(addr, page) {
                Ok(range) => {
                    // SAFETY: mapped just now, and known to nobody else.
                    let _ = unsafe { unmap(range) };
                    true
                }
                // Something is there, so the address exists.
                Err(e) => e.kind() == ErrorKind::Taken,
            }
        })?;
    CACHED.store(found, Ordering::Relaxed);
    Some(found)
}

/// Returns the addresses that a user mapping can have, up to the page that was tried to find out.
fn user_addresses() -> AddressRange {
    let end = address_bits().map(|bits| (1 << bits) - page_size().bytes());
    end.and_then(|end| AddressRange::from_len(0, end))
        .unwrap_or(AddressRange::ALL)
}

/// Returns the addresses that a user mapping can have, the last page included; `None` where nothing
/// could be found out.
pub(crate) fn mappable() -> Option<AddressRange> {
    let page = page_size().bytes();
    let end = 1usize.checked_shl(address_bits()?)?;
    let last_page = match map_at(end - page, page) {
        Ok(range) => {
            // SAFETY: mapped just now, and known to nobody else.
            let _ = unsafe { unmap(range) };
            true
        }
        // Some CPUs have no last page for users; on others something may be there.
        Err(e) => e.kind() == ErrorKind::Taken,
    };
    AddressRange::from_len(0, if last_page { end } else { end - page })
}

fn range_at(start: *mut c_void, len: usize) -> Result<PageRange, Error> {
    let start = NonNull::new(start.cast());
    let range = start.and_then(|start| PageRange::new(start, len, page_size()));
    // The kernel maps whole pages, and never at zero unless asked.
    range.ok_or(ErrorKind::Other.into())
}

/// Reserves exactly `addr..addr + len`, replacing nothing.
pub(crate) fn map_at(addr: usize, len: usize) -> Result<PageRange, Error> {
    let hint = core::ptr::without_provenance_mut(addr);
    let flags = PLAIN | MapFlags::FIXED_NOREPLACE;
    // SAFETY: FIXED_NOREPLACE maps a hole or fails.
    let got = unsafe { mmap_anonymous(hint, len, ProtFlags::empty(), flags) }.map_err(error)?;
    let range = range_at(got, len)?;
    if range.addr() != addr {
        // Kernels before 4.17 do not know the flag and take the address for a hint.
        // SAFETY: mapped just now, and known to nobody else.
        unsafe { unmap(range)? };
        return Err(Error::os(ErrorKind::Taken, Errno::EXIST.raw_os_error()));
    }
    Ok(range)
}

/// Unmaps.
///
/// # Safety
///
/// The range is the caller's, and nobody uses it.
pub(crate) unsafe fn unmap(range: PageRange) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { munmap(pointer(range), range.len_bytes()) }.map_err(error)
}

/// Advises that large pages would be welcome. Kernels may lack them, which is no failure.
///
/// # Safety
///
/// The range is the caller's.
pub(crate) unsafe fn wish_large(range: PageRange) {
    // SAFETY: this advice changes nothing that the process can see.
    let _ = unsafe { madvise(pointer(range), range.len_bytes(), Advice::LinuxHugepage) };
}

/// What a range was before a replacing map of it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// Private anonymous memory: reserved or committed.
    Plain,
    /// A view of a dual mapping.
    View,
}

/// Replaces the range by a fresh private mapping.
///
/// # Safety
///
/// The range is the caller's, and nobody uses it.
pub(crate) unsafe fn map_over(range: PageRange, was: Was, access: Access) -> Result<(), Error> {
    let (start, len) = (pointer(range), range.len_bytes());
    // SAFETY: FIXED replaces what is there, which is the caller's to give up.
    match unsafe { mmap_anonymous(start, len, protection(access), PLAIN | MapFlags::FIXED) } {
        Ok(_) => Ok(()),
        Err(errno) => Err(keep(range, was, errno)),
    }
}

/// Makes sure, after a replacing map failed, that the range is still the caller's: kernels before
/// 6.12, and any kernel for files and large pages, unmap first and may then fail. Returns what to
/// report.
pub(crate) fn keep(range: PageRange, was: Was, errno: Errno) -> Error {
    match map_at(range.addr(), range.len_bytes()) {
        // There was a hole: it is reserved again.
        Ok(_) => error(errno),
        Err(e) if e.kind() == ErrorKind::Taken && !is_still(range, was) => {
            Error::os(ErrorKind::RangeLost, errno.raw_os_error())
        }
        // Either nothing changed, or no call gets through at all, the first one included.
        Err(_) => error(errno),
    }
}

/// Says whether the range, without a hole, is what it was, as far as can be seen. In doubt it is
/// not: memory given up by mistake is a leak, memory kept by mistake is somebody else's.
fn is_still(range: PageRange, was: Was) -> bool {
    let expected = match was {
        Was::Plain => Entry::empty(),
        Was::View => Entry::SHARED | Entry::OBJECT,
    };
    // Without a map to look at, the newer kernels' behaviour is assumed: nothing changed.
    consists_of(&LinuxProvider::new(), range, expected).unwrap_or(true)
}

/// Reserves where the kernel likes.
fn map_anywhere(plan: &Plan) -> Result<PageRange, Error> {
    let page = page_size();
    // Room to choose an aligned start in; the rest goes back.
    let len = plan.len_with_slack(page)?;
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let got = unsafe { mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::empty(), PLAIN) };
    let whole = range_at(got.map_err(error)?, len)?;
    let (kept, rest) = plan.carve(whole, page).ok_or(ErrorKind::Other)?;
    for part in rest.into_iter().flatten() {
        // SAFETY: part of what was mapped just now, known to nobody else. Should the kernel refuse
        // to split the mapping, addresses are wasted and nothing else.
        let _ = unsafe { unmap(part) };
    }
    Ok(kept)
}

impl LinuxProvider {
    fn map_placed(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(page_size())?;
        if plan.unconstrained() {
            match map_anywhere(&plan) {
                // The slack may have been too much where the same without it is not.
                Err(e)
                    if e.kind() == ErrorKind::Exhausted && plan.align() > page_size().bytes() => {}
                result => return result,
            }
        }
        let mut placement = request.placement;
        if !matches!(plan.place(), Place::Exact(_)) {
            let within = placement.within.intersect(user_addresses());
            placement.within = within.ok_or(ErrorKind::Exhausted)?;
        }
        let plan = request.placement(placement).plan(page_size())?;
        search(&plan, self, &mut |addr| map_at(addr, plan.total()))
    }
}

/// Commits large pages: maps them elsewhere first, because a failed replacing map of large pages
/// leaves a hole, and then moves them.
///
/// # Safety
///
/// The range is reserved by the caller, and nobody uses it.
unsafe fn commit_large(range: PageRange, access: Access, bytes: usize) -> Result<PageSize, Error> {
    let invalid = Error::of(ErrorKind::InvalidArgument);
    let size = PageSize::new(bytes)
        .filter(|&size| size > page_size())
        .ok_or(invalid)?;
    if !size.is_aligned(range.addr()) || !size.is_aligned(range.len_bytes()) {
        return Err(invalid);
    }
    let log2 = MapFlags::hugetlb_with_size_log2(bytes.trailing_zeros()).ok_or(invalid)?;
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | log2;
    let len = range.len_bytes();
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let from = unsafe { mmap_anonymous(core::ptr::null_mut(), len, protection(access), flags) };
    let from = from.map_err(error)?;
    let to = pointer(range);
    // SAFETY: moves the mapping made just now onto the range, which is the caller's to give up.
    match unsafe { mremap_fixed(from, len, len, MremapFlags::MAYMOVE, to) } {
        Ok(_) => Ok(size),
        Err(errno) => {
            // SAFETY: mapped above, and known to nobody else.
            let _ = unsafe { munmap(from, len) };
            Err(keep(range, Was::Plain, errno))
        }
    }
}

// SAFETY: the promises are those of the system calls, as the functions above use them.
unsafe impl PageProvider for LinuxProvider {
    fn page_size(&self) -> PageSize {
        page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.current_capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let range = self.map_placed(request)?;
        // SAFETY: reserved just now.
        unsafe { self.describe(range, request.name, request.dump) };
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if let PageWish::Large { bytes, or_base } = how.pages {
            // SAFETY: the caller's promise: the range is reserved.
            match unsafe { commit_large(range, how.access, bytes) } {
                Err(e) if or_base && e.kind() != ErrorKind::RangeLost => {}
                result => return result,
            }
        }
        if how.access.executable() {
            // Not by protection, which hardened kernels refuse: a page may not gain execution.
            // SAFETY: the caller's promise: the range is reserved.
            unsafe { map_over(range, Was::Plain, how.access)? };
        } else {
            // SAFETY: the caller's promise: the range is reserved, so nothing is taken away.
            let result = unsafe { self.protect(range, how.access) };
            if let Err(e) = result {
                // Part of it may have been done.
                // SAFETY: as above: nothing was committed before.
                let _ = unsafe { self.protect(range, Access::None) };
                return Err(e);
            }
        }
        if how.pages == PageWish::Transparent {
            // SAFETY: the caller's promise: the range is theirs.
            unsafe { wish_large(range) };
        }
        Ok(page_size())
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let flags = MprotectFlags::from_bits_retain(protection(access).bits());
        // SAFETY: the caller's promise: the range is theirs, and nobody uses it in a way that the
        // new access forbids.
        unsafe { mprotect(pointer(range), range.len_bytes(), flags) }.map_err(error)
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { map_over(range, Was::Plain, Access::None) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let (start, len) = (pointer(range), range.len_bytes());
        // SAFETY: the caller's promise: the pages are theirs, private and anonymous, and the contents
        // are not needed. They read zero afterwards (madvise(2), MADV_DONTNEED).
        let advised = match unsafe { madvise(start, len, Advice::LinuxDontNeed) } {
            // Locked pages are to be asked for by name, since Linux 5.18.
            // SAFETY: as above.
            Err(Errno::INVAL) => unsafe { madvise(start, len, Advice::LinuxDontneedLocked) },
            result => result,
        };
        match advised {
            Ok(()) => Ok(Purged::Zero),
            Err(Errno::INVAL) => Ok(Purged::Kept),
            Err(errno) => Err(error(errno)),
        }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        let len = from.len_bytes();
        if len != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        // SAFETY: the caller's promise: both ranges are theirs, and nothing is mapped at `to` but a
        // reservation. What is left at `from` is empty.
        match unsafe { mremap_fixed(pointer(from), len, len, flags, pointer(to)) } {
            Ok(_) => {}
            // Several mappings, a kernel before 5.7, or pages that it does not move: to be copied.
            // `to` may have been unmapped first.
            Err(errno @ (Errno::FAULT | Errno::INVAL)) => {
                let kept = keep(to, Was::Plain, errno);
                return Err(match kept.kind() {
                    ErrorKind::RangeLost => kept,
                    _ => Error::os(ErrorKind::Unsupported, errno.raw_os_error()),
                });
            }
            Err(errno) => return Err(keep(to, Was::Plain, errno)),
        }
        // SAFETY: the range is the caller's, and its contents have gone.
        if unsafe { map_over(from, Was::Plain, Access::None) }.is_err() {
            // A whole mapping can be made inaccessible, also at the limit of mappings; if not, it
            // stays accessible and empty, as a commit would leave it.
            // SAFETY: as above.
            let _ = unsafe { self.protect(from, Access::None) };
        }
        Ok(())
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // Neither is worth failing for: kernels may be built without names, and a core file is
        // larger than it need be.
        if let Some(name) = name {
            let _ = raw::name_mapping(range, name);
        }
        if dump == Dump::Excluded {
            // SAFETY: this advice changes nothing that the process can see.
            let _ = unsafe { madvise(pointer(range), range.len_bytes(), Advice::LinuxDontDump) };
        }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { unmap(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        self.resource_left(of)
    }
}
