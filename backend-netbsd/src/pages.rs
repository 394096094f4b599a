//! Pages: reserve, commit, protect, decommit, release.
//!
//! Under PaX MPROTECT what was mapped inaccessible stays so, whatever `mprotect(2)` is asked. So
//! committing maps over the reservation, with `PROT_MPROTECT` for what the commit's ceiling allows
//! later, and decommitting maps over again, since advice may leave contents, which is enough for a
//! purge.
//!
//! No flag refuses to replace a mapping. Instead `MAP_TRYFIXED` takes the address for a hint that
//! is not adjusted, and where the mapping came to lie is looked at.

use crate::{
    NetBsdProvider,
    errno::{check, error},
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

/// Returns the flags that let `mprotect(2)` give these protections later, under PaX MPROTECT too.
pub(crate) fn may_become(protections: ProtFlags) -> ProtFlags {
    /// `PROT_MPROTECT` of `sys/mman.h` shifts by as much.
    const SHIFT: u32 = 3;
    ProtFlags::from_bits_retain(protections.bits() << SHIFT)
}

/// Returns the protections that a ceiling allows, all of them together: PaX sees to it that they
/// are not given together.
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
/// The stack lies near the end; what its random place leaves above is free, so that it is found by
/// trying. (`vm.maxaddress` on amd64 is no user's address.)
fn last_user_address() -> Option<usize> {
    static CACHED: AtomicUsize = AtomicUsize::new(0);
    match CACHED.load(Ordering::Relaxed) {
        0 => {}
        last => return Some(last),
    }
    let mut mapped = 0;
    let walked = NetBsdProvider::new().walk(&mut |entry| {
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
    // SAFETY: the address is a hint.
    let Ok(got) = (unsafe { map_reserved(hint, len, libc::MAP_TRYFIXED) }) else {
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

pub(crate) fn range_at(start: *mut c_void, len: usize) -> Result<PageRange, Error> {
    let start = NonNull::new(start.cast());
    let range = start.and_then(|start| PageRange::new(start, len, page_size()));
    // The kernel maps whole pages, and never at zero unless asked.
    range.ok_or(ErrorKind::Other.into())
}

/// Returns the flag that asks for an alignment, a power of two of at least a page.
pub(crate) fn aligned(align: usize) -> c_int {
    let log2 = c_int::try_from(align.trailing_zeros()).unwrap_or(0);
    libc::MAP_ALIGNED(log2)
}

/// Maps a reservation.
///
/// # Safety
///
/// With `MAP_FIXED`, the range is the caller's, and no other code uses it.
unsafe fn map_reserved(at: *mut c_void, len: usize, flags: c_int) -> Result<*mut c_void, Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(flags.unsigned_abs());
    // SAFETY: the caller's promise; otherwise a new mapping, which replaces nothing.
    unsafe { mmap_anonymous(at, len, ProtFlags::empty(), flags) }
}

/// Reserves exactly `addr..addr + len`, replacing nothing.
pub(crate) fn map_at(addr: usize, len: usize) -> Result<PageRange, Error> {
    let hint = core::ptr::without_provenance_mut(addr);
    // SAFETY: the address is a hint.
    let got = match unsafe { map_reserved(hint, len, libc::MAP_TRYFIXED) } {
        Ok(got) => got,
        Err(errno) => return Err(refused(addr, len, errno)),
    };
    let range = range_at(got, len)?;
    if range.addr() == addr {
        return Ok(range);
    }
    // SAFETY: mapped just now, and no other code has its address yet.
    unsafe { unmap(range)? };
    Err(reason(addr, len).into())
}

/// Tells why an exact place was refused: `ENOMEM` says that it is in use, and other things too.
pub(crate) fn refused(addr: usize, len: usize, errno: Errno) -> Error {
    if errno != Errno::NOMEM {
        return error(errno);
    }
    Error::os(reason(addr, len), errno.raw_os_error())
}

/// Tells whether an exact place was refused because it is in use.
fn reason(addr: usize, len: usize) -> ErrorKind {
    let in_use = is_used(addr, len).unwrap_or(false);
    // Not in use any more, or the map does not show. Where the address exists and as much can be
    // had elsewhere, the place itself was the reason.
    if in_use || (exists(addr, len) && can_map(len)) {
        ErrorKind::Taken
    } else {
        ErrorKind::Exhausted
    }
}

/// Says whether anything is mapped in `addr..addr + len`; `None` without a process map.
fn is_used(addr: usize, len: usize) -> Option<bool> {
    let wanted = AddressRange::from_len(addr, len)?;
    let mut used = false;
    let walked = NetBsdProvider::new().walk(&mut |entry| {
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
    let protection = protection(how.access) | may_become(ceiling_protection(how.ceiling));
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: FIXED replaces what is there, which is the caller's to give up.
    match unsafe { mmap_anonymous(start, len, protection, flags) } {
        Ok(_) => Ok(()),
        Err(errno) => Err(keep(range, Was::Plain, errno)),
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
pub(crate) fn keep(range: PageRange, was: Was, errno: Errno) -> Error {
    keep_after(range, was, error(errno)).report(error(errno))
}

/// Makes sure that a range is still the caller's, after a map that replaces it failed.
///
/// Kernels unmap first (before 8 in a step of its own), and may then fail, for instance since
/// memory is to be locked; another thread may have mapped something there since, which nothing
/// tells from ours. So a range that is not a hole is kept only where the call was refused before;
/// in doubt it is lost: what is given up by mistake is a leak, what is kept by mistake is somebody
/// else's.
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
    // Duplicates show no object.
    let expected = match was {
        Was::Plain => Entry::empty(),
        Was::View => Entry::SHARED,
    };
    consists_of(&NetBsdProvider::new(), range, expected).unwrap_or(false)
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
    let (null, flags) = (core::ptr::null_mut(), aligned(plan.align()));
    // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
    let got = unsafe { map_reserved(null, plan.total(), flags) }.ok()?;
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

impl NetBsdProvider {
    /// Tries places for `request` with `try_at`, which must not replace anything.
    pub(crate) fn search(
        &self,
        request: &Request<'_>,
        try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
    ) -> Result<PageRange, Error> {
        let plan = request.plan(page_size())?;
        let mut placement = request.placement;
        if !matches!(plan.place(), Place::Exact(_)) {
            let within = placement.within.intersect(user_addresses());
            placement.within = within.ok_or(ErrorKind::Exhausted)?;
        }
        let plan = request.placement(placement).plan(page_size())?;
        search(&plan, self, try_at)
    }

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
        self.search(request, &mut map_at)
    }
}

// SAFETY: the promises are those of the system calls, as the functions above use them.
unsafe impl PageProvider for NetBsdProvider {
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
        // contents are not needed. Some pages are freed and read zero, others, for instance such as
        // a forked process has too, stay as they are (madvise(2), MADV_FREE).
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
