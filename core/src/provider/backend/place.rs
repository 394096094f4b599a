//! Where a reservation goes, and why a place was refused.

use super::{At, Calls, System};
use crate::{
    page::{AddressRange, PageRange, PageSize},
    provider::{Error, ErrorKind, Place, Plan, Request, last_address, search},
};
use core::{
    ffi::c_void,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Returns the address of a range for a system call.
#[must_use]
pub fn pointer(range: PageRange) -> *mut c_void {
    range.start().as_ptr().cast()
}

/// Makes a range of what a system mapped.
///
/// # Errors
///
/// [`ErrorKind::Other`] where that is no range of whole pages: systems map whole pages, and never
/// at zero unless asked.
pub fn range_at(page: PageSize, start: *mut c_void, len: usize) -> Result<PageRange, Error> {
    let start = NonNull::new(start.cast());
    let range = start.and_then(|start| PageRange::new(start, len, page));
    range.ok_or(ErrorKind::Other.into())
}

/// Reserves exactly `addr..addr + len`, replacing nothing.
///
/// # Errors
///
/// [`ErrorKind::Taken`] where the place is in use; what the system says.
pub fn map_at(system: &impl System, addr: usize, len: usize) -> Result<PageRange, Error> {
    // SAFETY: an exact place is a hole or is refused, or the address is a hint: nothing is
    // replaced.
    let got = match unsafe { system.map_reserved(len, At::Exact(addr)) } {
        Ok(got) => got,
        Err(error) => return Err(refused(system, addr, len, error)),
    };
    let range = range_at(system.calls().page_size(), got, len)?;
    if range.addr() == addr {
        return Ok(range);
    }
    // SAFETY: mapped just now, and no other code has its address yet.
    unsafe { system.calls().unmap(range)? };
    let error = system.elsewhere();
    Err(error.unwrap_or_else(|| reason(system, addr, len).into()))
}

/// Tells why an exact place was refused: the error, as another kind where the system says the same
/// of a place that is in use and of other failures.
#[must_use]
pub fn refused(system: &impl System, addr: usize, len: usize, error: Error) -> Error {
    if system.may_be_taken(error) {
        error.with_kind(reason(system, addr, len))
    } else {
        error
    }
}

/// Tells whether an exact place was refused because it is in use.
fn reason(system: &impl System, addr: usize, len: usize) -> ErrorKind {
    let in_use = is_used(system, addr, len).unwrap_or(false);
    // Not in use any more, or the map does not show. Where the address exists and as much can be
    // had elsewhere, the place itself was the reason.
    if in_use || (exists(system, addr, len) && can_map(system, len)) {
        ErrorKind::Taken
    } else {
        ErrorKind::Exhausted
    }
}

/// Says whether anything is mapped in `addr..addr + len`; `None` without a process map.
fn is_used(system: &impl System, addr: usize, len: usize) -> Option<bool> {
    let wanted = AddressRange::from_len(addr, len)?;
    let mut used = false;
    let walked = system.walk(&mut |entry| {
        used = wanted.intersect(entry.range).is_some();
        !used && entry.range.last() < wanted.last()
    });
    walked.is_ok().then_some(used)
}

fn exists(system: &impl System, addr: usize, len: usize) -> bool {
    let user = mappable(system).unwrap_or(AddressRange::ALL);
    AddressRange::from_len(addr, len).is_some_and(|range| user.contains_range(range))
}

/// Says whether `len` bytes of addresses can be had anywhere.
#[must_use]
pub fn can_map(system: &impl System, len: usize) -> bool {
    try_to_map(system, len, At::Anywhere).is_ok()
}

/// Says whether a page can be mapped exactly at `addr`; see [`try_at`].
fn can_map_at(system: &impl System, addr: usize) -> bool {
    try_at(system, addr, system.calls().page_size().bytes()).is_ok_and(|got| got == addr)
}

/// Tries a reservation at an exact place, and returns where it came to lie; it is gone again.
///
/// # Errors
///
/// What the system says.
pub fn try_at(system: &impl System, addr: usize, len: usize) -> Result<usize, Error> {
    try_to_map(system, len, At::Exact(addr))
}

fn try_to_map(system: &impl System, len: usize, at: At) -> Result<usize, Error> {
    // SAFETY: callers ask for no place over a range, so that nothing is replaced.
    let got = unsafe { system.map_reserved(len, at) }?;
    let range = range_at(system.calls().page_size(), got, len)?;
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { system.calls().unmap(range) };
    Ok(range.addr())
}

/// Returns the last address that a user mapping can have, found out at the first call and kept in
/// `cached`, which is zero at first; `None` without a process map.
///
/// What lies highest in the process map, a stack or a page of the system's behind it, lies near the
/// end; what a random place leaves above is free, so that it is found by trying.
pub fn last_mapped_address(system: &impl System, cached: &AtomicUsize) -> Option<usize> {
    match cached.load(Ordering::Relaxed) {
        0 => {}
        last => return Some(last),
    }
    let mut mapped = 0;
    let walked = system.walk(&mut |entry| {
        mapped = entry.range.last();
        true
    });
    if walked.is_err() || mapped == 0 {
        return None;
    }
    let page = system.calls().page_size();
    let last = last_address(mapped, page, &mut |at| Some(can_map_at(system, at)))?;
    // Every place is refused to a process at its limit of addresses.
    if can_map(system, page.bytes()) {
        cached.store(last, Ordering::Relaxed);
    }
    Some(last)
}

/// Returns the bits of a user-space address; `None` where nothing could be found out.
#[must_use]
pub fn address_bits(system: &impl System) -> Option<u32> {
    let last = system.last_address();
    last.map(|last| usize::BITS - last.leading_zeros())
}

/// Returns the addresses that a user mapping can have; `None` where nothing could be found out.
#[must_use]
pub fn mappable(system: &impl System) -> Option<AddressRange> {
    let last = system.last_address();
    last.and_then(|last| AddressRange::new(system.first_address(), last))
}

/// Reserves addresses, as [`PageProvider::reserve`](crate::provider::PageProvider::reserve) does.
///
/// # Errors
///
/// The errors of that method.
pub fn reserve(system: &impl System, request: &Request<'_>) -> Result<PageRange, Error> {
    let page = system.calls().page_size();
    let plan = request.plan(page)?;
    if plan.unconstrained() {
        match plan.halving(|plan| map_anywhere(system, plan)) {
            // The slack may have been too much where the same without it is not.
            Err(e) if e.kind() == ErrorKind::Exhausted && plan.align() > page.bytes() => {}
            result => return result,
        }
    }
    search_places(system, request, &mut |addr, len| map_at(system, addr, len))
}

/// Searches the process map for a place for `request`, and takes it with `try_at`, which must not
/// replace anything; see [`search()`].
///
/// # Errors
///
/// The errors of [`search()`] and of [`Request::plan`]; [`ErrorKind::Exhausted`] where no user
/// address lies within the range asked for.
pub fn search_places<S: System>(
    system: &S,
    request: &Request<'_>,
    try_at: &mut dyn FnMut(usize, usize) -> Result<PageRange, Error>,
) -> Result<PageRange, Error> {
    let page = system.calls().page_size();
    let plan = request.plan(page)?;
    let mut placement = request.placement;
    if !matches!(plan.place(), Place::Exact(_)) {
        let within = system.within_user_addresses(placement.within);
        placement.within = within.ok_or(ErrorKind::Exhausted)?;
    }
    let plan = request.placement(placement).plan(page)?;
    search(&plan, system, try_at)
}

/// Reserves where the system likes.
fn map_anywhere(system: &impl System, plan: &Plan) -> Result<PageRange, Error> {
    if plan.align() > system.calls().page_size().bytes()
        && plan.before() == 0
        && let Some(range) = map_aligned(system, plan)
    {
        return Ok(range);
    }
    // SAFETY: a new mapping wherever the system likes; nothing is replaced.
    map_with_slack(system, plan, |len| unsafe {
        system.map_reserved(len, At::Anywhere)
    })
}

/// Lets the system choose an aligned place, where it can.
fn map_aligned(system: &impl System, plan: &Plan) -> Option<PageRange> {
    let (len, at) = (plan.total(), At::Aligned(plan.align()));
    // SAFETY: a new mapping wherever the system likes; nothing is replaced.
    let got = unsafe { system.map_reserved(len, at) }.ok()?;
    let range = range_at(system.calls().page_size(), got, len).ok()?;
    if plan.aligned(range.addr()) {
        return Some(range);
    }
    // SAFETY: mapped just now, and no other code has its address yet. It cannot fail for a whole
    // mapping.
    let _ = unsafe { system.calls().unmap(range) };
    None
}

/// Maps more than is wanted, by `map` where the system likes, with room to choose an aligned start
/// in; the rest goes back.
pub(super) fn map_with_slack(
    system: &impl System,
    plan: &Plan,
    map: impl FnOnce(usize) -> Result<*mut c_void, Error>,
) -> Result<PageRange, Error> {
    let page = system.calls().page_size();
    let len = plan.len_with_slack(page)?;
    let whole = range_at(system.calls().page_size(), map(len)?, len)?;
    let (kept, rest) = plan.carve(whole, page).ok_or(ErrorKind::Other)?;
    for part in rest.into_iter().flatten() {
        // SAFETY: part of what was mapped just now, and no other code has its address yet. Should
        // the system refuse to split the mapping, addresses are wasted and nothing else.
        let _ = unsafe { system.calls().unmap(part) };
    }
    Ok(kept)
}
