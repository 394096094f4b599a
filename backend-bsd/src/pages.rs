//! Pages: reserve, commit, protect, decommit, release.
//!
//! A reservation is never made accessible by protection: committing maps over it, with `PROT_MAX`
//! (FreeBSD) holding the pages below the commit's ceiling, and decommitting maps over again, since
//! advice leaves contents (`MADV_FREE` "gives the system the freedom", and no promise of zeroes).
//! That is enough for a purge.
//!
//! An exact place that is in use is refused by `ENOMEM` (FreeBSD 13: `MAP_FIXED | MAP_EXCL` over a
//! mapping or a guard), `EINVAL` (as mmap(2) has it) or `EEXIST`, and the first two are also said
//! for other reasons. So after a refusal the process map is looked at, and the same length is tried
//! elsewhere.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

pub(crate) use host::{FILE, INHERIT_NONE, SUPERPAGE_ALIGNED, most};

use crate::{
    BsdProvider,
    errno::{check, error, last},
    random,
};
use core::{
    ffi::{c_int, c_void},
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};
use hostmem_core::{
    page::{Access, AddressRange, Ceiling, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Error, ErrorKind, MapFlags as Entry, PageProvider, PageWish, Place,
        Plan, ProcessMap, Purged, Request, Resource, consists_of, last_address, search,
    },
};
use rustix::{
    io::Errno,
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap},
};

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

/// Returns the protections that a ceiling allows, all of them together: no system here can hold a
/// page to one of two at a time.
fn ceiling_protection(ceiling: Ceiling) -> ProtFlags {
    match ceiling {
        Ceiling::Read => ProtFlags::READ,
        Ceiling::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Ceiling::ReadExec => ProtFlags::READ | ProtFlags::EXEC,
        _ => ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC,
    }
}

/// Returns the host's page size.
pub(crate) fn page_size() -> PageSize {
    // A system without an answer would have no pages of another size than the smallest.
    PageSize::new(rustix::param::page_size()).unwrap_or(PageSize::KIB_4)
}

/// Returns the last address that a user mapping can have, found out at the first call; `None`
/// without a process map.
///
/// The stack, or a page of the system's behind it, lies near the end; what a random place leaves
/// above is free, so that it is found by trying.
fn last_user_address() -> Option<usize> {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {}
        last => return Some(last),
    }
    let mut mapped = 0;
    let walked = BsdProvider::new().walk(&mut |entry| {
        mapped = entry.range.last();
        true
    });
    if walked.is_err() || mapped == 0 {
        return None;
    }
    let page = page_size();
    let last = last_address(mapped, page, &mut |at| Some(can_map_at(at)))?;
    // Every place is refused to a process at its limit of addresses.
    if can_map(page.bytes()) {
        CACHED.store(last, Ordering::Relaxed);
    }
    Some(last)
}

/// Says whether a page can be mapped exactly there.
fn can_map_at(at: usize) -> bool {
    let (hint, len) = (core::ptr::without_provenance_mut(at), page_size().bytes());
    // SAFETY: these flags map a hole or fail, or take the address for a hint.
    let Ok(got) = (unsafe { map_reserved(hint, len, host::EXACT) }) else {
        return false;
    };
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { munmap(got, len) };
    got.addr() == at
}

/// Returns the bits of a user-space address; `None` where nothing could be found out.
pub(crate) fn address_bits() -> Option<u32> {
    last_user_address().map(|last| usize::BITS - last.leading_zeros())
}

/// Returns the addresses that a user mapping can have; `None` where nothing could be found out.
pub(crate) fn mappable() -> Option<AddressRange> {
    // The first page is nobody's, so that null pointers fault.
    last_user_address().and_then(|last| AddressRange::new(page_size().bytes(), last))
}

/// Returns the addresses to search.
fn user_addresses() -> AddressRange {
    mappable().unwrap_or(AddressRange::ALL)
}

fn range_at(start: *mut c_void, len: usize) -> Result<PageRange, Error> {
    let start = NonNull::new(start.cast());
    let range = start.and_then(|start| PageRange::new(start, len, page_size()));
    // The kernel maps whole pages, and never at zero unless asked.
    range.ok_or(ErrorKind::Other.into())
}

/// Maps a reservation.
///
/// # Safety
///
/// With `MAP_FIXED` and without the flags that keep it from replacing, the range is the caller's,
/// and no other code uses it.
unsafe fn map_reserved(at: *mut c_void, len: usize, flags: c_int) -> Result<*mut c_void, Errno> {
    let flags = host::RESERVED | flags;
    // SAFETY: the caller's promise; otherwise a new mapping, which replaces nothing.
    let got = unsafe { libc::mmap(at, len, libc::PROT_NONE, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        Err(last())
    } else {
        Ok(got)
    }
}

/// Reserves exactly `addr..addr + len`, replacing nothing.
pub(crate) fn map_at(addr: usize, len: usize) -> Result<PageRange, Error> {
    let hint = core::ptr::without_provenance_mut(addr);
    // SAFETY: these flags map a hole or fail, or take the address for a hint.
    let got = match unsafe { map_reserved(hint, len, host::EXACT) } {
        Ok(got) => got,
        Err(errno) => return Err(refused(addr, len, errno)),
    };
    let range = range_at(got, len)?;
    if range.addr() != addr {
        // SAFETY: mapped just now, and no other code has its address yet.
        unsafe { unmap(range)? };
        return Err(ErrorKind::Taken.into());
    }
    Ok(range)
}

/// Tells why an exact place was refused.
fn refused(addr: usize, len: usize, errno: Errno) -> Error {
    if !matches!(errno, Errno::NOMEM | Errno::INVAL | Errno::NOSPC) {
        return error(errno);
    }
    let in_use = is_used(addr, len).unwrap_or(false);
    // Not in use any more, or the map does not show. Where the address exists and as much can be
    // had elsewhere, the place itself was the reason.
    let kind = if in_use || (exists(addr, len) && can_map(len)) {
        ErrorKind::Taken
    } else {
        ErrorKind::Exhausted
    };
    Error::os(kind, errno.raw_os_error())
}

/// Says whether anything is mapped in `addr..addr + len`; `None` without a process map.
fn is_used(addr: usize, len: usize) -> Option<bool> {
    let wanted = AddressRange::from_len(addr, len)?;
    let mut used = false;
    let walked = BsdProvider::new().walk(&mut |entry| {
        used = wanted.intersect(entry.range).is_some();
        !used && entry.range.last() < wanted.last()
    });
    walked.is_ok().then_some(used)
}

fn exists(addr: usize, len: usize) -> bool {
    AddressRange::from_len(addr, len).is_some_and(|range| user_addresses().contains_range(range))
}

/// Says whether `len` bytes of addresses can be had anywhere.
fn can_map(len: usize) -> bool {
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let Ok(got) = (unsafe { map_reserved(core::ptr::null_mut(), len, 0) }) else {
        return false;
    };
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { munmap(got, len) };
    true
}

/// Unmaps.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
pub(crate) unsafe fn unmap(range: PageRange) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { munmap(pointer(range), range.len_bytes()) }.map_err(error)
}

/// What a range was before a replacing map of it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// Private anonymous memory: reserved or committed.
    Plain,
    /// A view of a dual mapping.
    View,
}

/// Replaces the range by a reservation.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
pub(crate) unsafe fn reserve_over(range: PageRange, was: Was) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    match unsafe { map_reserved(pointer(range), range.len_bytes(), libc::MAP_FIXED) } {
        Ok(_) => Ok(()),
        Err(errno) => match keep_after(range, was, error(errno)) {
            // That is what was wanted.
            Kept::Reserved => Ok(()),
            kept => Err(kept.report(error(errno))),
        },
    }
}

/// Replaces the range by fresh private memory.
///
/// # Safety
///
/// The range is reserved by the caller, and no other code uses it.
unsafe fn commit_over(range: PageRange, how: Commit) -> Result<(), Error> {
    let (start, len) = (pointer(range), range.len_bytes());
    let protection = protection(how.access) | most(ceiling_protection(how.ceiling));
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: FIXED replaces what is there, which is the caller's to give up.
    match unsafe { mmap_anonymous(start, len, protection, flags) } {
        Ok(_) => Ok(()),
        // All arguments are valid. FreeBSD says this where no swap can be set aside.
        Err(errno @ Errno::INVAL) => {
            let error = Error::os(ErrorKind::Exhausted, errno.raw_os_error());
            Err(keep(range, Was::Plain, error))
        }
        Err(errno) => Err(keep(range, Was::Plain, error(errno))),
    }
}

/// What became of a range after a replacing call failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It is as it was.
    Unchanged,
    /// There was a hole, which is reserved.
    Reserved,
    /// There was a hole, for all that is known, and somebody else has it.
    Lost,
}

impl Kept {
    /// Returns what to report.
    fn report(self, error: Error) -> Error {
        match self {
            Self::Unchanged | Self::Reserved => error,
            Self::Lost => Error::os(ErrorKind::RangeLost, error.errno().unwrap_or(0)),
        }
    }
}

/// Makes sure, after a replacing map failed, that the range is still the caller's. Returns what to
/// report.
pub(crate) fn keep(range: PageRange, was: Was, error: Error) -> Error {
    keep_after(range, was, error).report(error)
}

/// Makes sure that a range is still the caller's, after a map that replaces it failed.
///
/// The kernels unmap first, and may then fail, for instance since no swap can be set aside; another
/// thread may have mapped something there since, which nothing tells from ours. So a range that is
/// not a hole is kept only where the call was refused before; in doubt it is lost: what is given up
/// by mistake is a leak, what is kept by mistake is somebody else's.
fn keep_after(range: PageRange, was: Was, error: Error) -> Kept {
    // Policy is asked before anything is unmapped.
    if error.kind() == ErrorKind::Denied {
        return Kept::Unchanged;
    }
    match map_at(range.addr(), range.len_bytes()) {
        Ok(_) => Kept::Reserved,
        // So is the limit of addresses, which the process is at.
        Err(_) if !can_map(range.len_bytes()) && is_still(range, was) => Kept::Unchanged,
        Err(_) => Kept::Lost,
    }
}

/// Says whether the range, without a hole, is what it was, as far as can be seen.
fn is_still(range: PageRange, was: Was) -> bool {
    let expected = match was {
        Was::Plain => Entry::empty(),
        Was::View => Entry::SHARED | Entry::OBJECT,
    };
    consists_of(&BsdProvider::new(), range, expected).unwrap_or(false)
}

/// Reserves where the kernel likes.
fn map_anywhere(plan: &Plan) -> Result<PageRange, Error> {
    if plan.align() > page_size().bytes()
        && plan.before() == 0
        && let Some(range) = map_aligned(plan)
    {
        return Ok(range);
    }
    map_with_slack(plan)
}

/// Lets the kernel choose an aligned place, where it can.
fn map_aligned(plan: &Plan) -> Option<PageRange> {
    let flags = host::aligned(plan.align())?;
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let got = unsafe { map_reserved(core::ptr::null_mut(), plan.total(), flags) }.ok()?;
    let range = range_at(got, plan.total()).ok()?;
    if plan.aligned(range.addr()) {
        return Some(range);
    }
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { unmap(range) };
    None
}

/// Reserves more than is wanted, with room to choose an aligned start in; the rest goes back.
fn map_with_slack(plan: &Plan) -> Result<PageRange, Error> {
    let page = page_size();
    let len = plan.len_with_slack(page)?;
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let got = unsafe { map_reserved(core::ptr::null_mut(), len, 0) };
    let whole = range_at(got.map_err(error)?, len)?;
    let (kept, rest) = plan.carve(whole, page).ok_or(ErrorKind::Other)?;
    for part in rest.into_iter().flatten() {
        // SAFETY: part of what was mapped just now, and no other code has its address yet. Should
        // the kernel refuse to split the mapping, addresses are wasted and nothing else.
        let _ = unsafe { unmap(part) };
    }
    Ok(kept)
}

impl BsdProvider {
    fn map_placed(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(page_size())?;
        if plan.unconstrained() {
            match plan.halving(map_anywhere) {
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
        search(&plan, self, &mut map_at)
    }
}

// SAFETY: the promises are those of the system calls, as the functions above use them.
unsafe impl PageProvider for BsdProvider {
    fn page_size(&self) -> PageSize {
        page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.current_capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        // Names there are none, and inaccessible memory is in no core file anyway.
        self.map_placed(request)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if let PageWish::Large { or_base: false, .. } = how.pages {
            // The system promotes private memory by itself, and takes no orders.
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: the caller's promise: the range is reserved.
        unsafe { commit_over(range, how)? };
        Ok(page_size())
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let flags = MprotectFlags::from_bits_retain(protection(access).bits());
        // SAFETY: the caller's promise: the range is theirs, and no other code uses it in a way
        // that the new access forbids.
        unsafe { mprotect(pointer(range), range.len_bytes(), flags) }.map_err(error)
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { reserve_over(range, Was::Plain) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's promise: the pages are theirs, private and anonymous, and the
        // contents are not needed. The system may take them until they are written again
        // (madvise(2), MADV_FREE).
        let advised = unsafe { libc::madvise(pointer(range), range.len_bytes(), libc::MADV_FREE) };
        check(advised).map(|_| Purged::ZeroOrOld).map_err(error)
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { unmap(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        self.resource_left(of)
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        random::key()
    }
}
