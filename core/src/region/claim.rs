//! Claiming: every gap of an address range becomes a reservation.
//!
//! ```text
//!   room for the stack, what to leave    ProcessMap::walk, ProcessMap::address_space
//!            │
//!            ▼        in whole pages     Place::Exact: never replaces
//!   gaps of the map ────────────────► reserve ───► slots        until a scan takes nothing more
//!            ▲                           │ refused
//!            └── the next scan           └► halves, down to a page, or to the host's limit
//! ```
//!
//! Nothing is allocated: what was got is noted in the caller's slots. A claim has the flags of any
//! inaccessible mapping, so that the host joins it with what is later taken back into it.
//!
//! In the order in which a claim passes through them:
//!
//! | module | what it has |
//! |---|---|
//! | `request` | the request, and its terms on a host |
//! | `left` | the parts that are left alone |
//! | `others` | addresses for others |
//! | `scan` | the gaps are taken |
//! | `list` | the claimed ranges, in the caller's slots |
//! | `program_break` | a page that keeps the break from growing |
//! | `report` | the outcome |

mod left;
mod list;
mod others;
mod program_break;
mod report;
mod request;
mod scan;
#[cfg(test)]
mod tests;

pub use list::{Claimed, Purpose, Tally};
pub use report::{BreakBlock, ClaimReport, Others};
pub use request::ClaimRequest;

use crate::{
    page::{AddressRange, PageRange, PageSize},
    provider::{Error, ErrorKind, PageProvider, ProcessMap, Resource, walk_gaps},
};
use core::fmt;
use left::Left;
use list::List;
use others::{chosen_place, keep_spare};
use request::Terms;
use scan::Scan;

/// How often the map is read anew because something was taken, or was mapped meanwhile. Two scans
/// are enough where no other code maps; a host whose map itself takes memory to read needs one
/// more.
const SCANS: u32 = 16;

/// The least length that the first scan without a map tries, so that all of the range is looked
/// through before pages are.
const COARSE: usize = 2 << 20;

/// Addresses that were claimed.
///
/// Dropping it changes nothing: they stay claimed for the life of the process, or until the caller
/// releases them one by one.
#[must_use = "without it nothing can be placed in what was claimed, nor given back"]
pub struct Claim<'s, P> {
    provider: P,
    page: PageSize,
    list: List<'s>,
    terms: Terms,
    report: ClaimReport,
}

/// Claims the gaps of a range.
///
/// `slots` hold what is got: one for each gap, four more for a hole, the guard, the break and
/// others' room, and one for each mapping that appears meanwhile; [`survey`] counts gaps. They are
/// emptied first.
///
/// A partial claim is not an error: the report says what is missing and why. A host without such
/// addresses gives an empty claim.
///
/// Not all that lies in the range is claimed afterwards. Mappings stay; room is left where
/// a stack grows. The host puts no mapping into that room as long as there is a hole elsewhere; a
/// host that has none left may use it.
///
/// ```
/// # fn claimed<P>(os: P) -> Result<(), hostmem_core::provider::Error>
/// # where P: hostmem_core::provider::PageProvider + hostmem_core::provider::ProcessMap + Copy {
/// use hostmem_core::region::{ClaimRequest, claim};
/// let mut slots = [None; 256];
/// let claim = claim(os, &ClaimRequest::above(4 << 30), &mut slots)?;
/// for range in claim.usable() {
///     // Reserved for this claim alone.
///     assert!(range.addr() >= 4 << 30);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidArgument`] for a hole that does not lie in the range, and a least length
/// that overflows in whole pages; why something is missing, where all was
/// [required](ClaimRequest::require_complete). Nothing is claimed then.
pub fn claim<'s, P>(
    provider: P,
    request: &ClaimRequest,
    slots: &'s mut [Option<Claimed>],
) -> Result<Claim<'s, P>, Error>
where
    P: PageProvider + ProcessMap + Copy,
{
    let page = provider.page_size();
    let space = provider.address_space();
    let mut terms = request.terms(page, space, provider.left(Resource::Addresses))?;
    terms.caller = left::stack_pointer();
    let mut claim = Claim {
        provider,
        page,
        list: List::new(slots),
        terms,
        report: ClaimReport {
            range: terms.range,
            address_bits: space
                .user
                .map(|user| usize::BITS - user.last().leading_zeros()),
            stack_room: terms.stack_room,
            missed: Tally::default(),
            error: None,
            full: false,
            map: Ok(()),
            scans: 0,
            settled: false,
            block_break: BreakBlock::NotAsked,
            others: Others::NotTried,
            heap_bytes: 0,
        },
    };
    claim.renew();
    if request.block_break {
        claim.report.block_break = claim.put_behind_break();
    }
    if request.complete && !claim.report.is_complete() {
        let error = claim.report.error.or(claim.report.map.err());
        let error = error.unwrap_or(ErrorKind::Exhausted.into());
        // SAFETY: claimed above, and no other code has an address of it yet. What cannot go stays
        // reserved.
        let _ = unsafe { claim.give_back() };
        return Err(error);
    }
    Ok(claim)
}

/// Counts the gaps that a claim would find, as [`claim`] does: what is to be left is left out.
///
/// # Errors
///
/// The errors of [`claim`], and what the host says where it does not show its map.
pub fn survey<P>(provider: P, request: &ClaimRequest) -> Result<Tally, Error>
where
    P: PageProvider + ProcessMap + Copy,
{
    let page = provider.page_size();
    let mut terms = request.terms(page, provider.address_space(), None)?;
    terms.caller = left::stack_pointer();
    let left = Left::seen(&provider, &terms)?;
    let mut found = Tally::default();
    for (area, _) in areas(&terms).into_iter().flatten() {
        walk_gaps(&provider, area, &mut |gap| {
            left.cut(gap, &mut |part| {
                let len = part.last() - part.start();
                if len >= terms.least - 1 {
                    found.add(len.saturating_add(1));
                }
            });
            true
        })?;
    }
    Ok(found)
}

/// Returns what to claim, in the order of importance where not all can be had: what memory can be
/// placed in first.
fn areas(terms: &Terms) -> [Option<(AddressRange, Purpose)>; 4] {
    let Some(range) = terms.range else {
        return [None; 4];
    };
    let guard = terms.guard.map(|guard| (guard, Purpose::Guard));
    let behind = |part: AddressRange| {
        let start = part.last().checked_add(1)?;
        AddressRange::new(start, range.last())
    };
    let rest = match terms.guard {
        Some(guard) => behind(guard),
        None => Some(range),
    };
    let usable = |area| (area, Purpose::Usable);
    let Some((hole, rest)) = terms.hole.zip(rest) else {
        return [rest.map(usable), None, guard, None];
    };
    let below = hole.start().checked_sub(1);
    let below = below.and_then(|last| AddressRange::new(rest.start(), last));
    [
        behind(hole).map(usable),
        below.map(usable),
        guard,
        Some((hole, Purpose::Hole)),
    ]
}

impl<P: PageProvider + ProcessMap + Copy> Claim<'_, P> {
    /// Claims what became free since, for instance because somebody unmapped a library: others'
    /// mappings would land there first. Of what was asked for, this is all but the break. Returns
    /// the report, which is of this time then.
    ///
    /// Ranges that were [withdrawn](Claim::withdraw) and released meanwhile are claimed again too.
    pub fn renew(&mut self) -> &ClaimReport {
        if let Some(range) = self.terms.range {
            let chosen = chosen_place(&self.provider, self.page, self.terms.others_room);
            let spare = keep_spare(&self.provider, &self.terms, range);
            self.scan_all();
            if let Some(spare) = spare {
                // SAFETY: reserved by keep_spare and no other code has its address yet.
                let released = unsafe { self.provider.release(spare) };
                // A whole mapping can always go; if not, addresses are wasted and no more.
                let _ = released;
            }
            self.report.others = self.place_others(chosen, range);
            self.report.heap_bytes = self.heap_in(range).unwrap_or(0);
        }
        &self.report
    }

    /// Scans until nothing more is taken.
    fn scan_all(&mut self) {
        let terms = &self.terms;
        self.report.scans = 0;
        self.report.settled = false;
        let mut unseen = 0;
        while self.report.scans < SCANS && !self.report.settled && unseen < 2 {
            let left = Left::seen(&self.provider, terms);
            self.report.map = left.map(drop);
            let least = match left {
                Err(_) if unseen == 0 => terms.least.max(self.page.round_down(COARSE)),
                _ => terms.least,
            };
            let left = left.unwrap_or_else(|_| Left::unseen(terms));
            let mut scan = Scan::new(self.provider, &mut self.list, left, self.page, least);
            for (area, purpose) in areas(terms).into_iter().flatten() {
                if self.report.map.is_ok() {
                    self.report.map = scan.take_seen(area, purpose);
                }
                if self.report.map.is_err() {
                    scan.take_unseen(area, purpose);
                }
            }
            self.report.scans += 1;
            self.report.missed = scan.missed;
            self.report.error = scan.error;
            self.report.full = scan.full;
            self.report.settled = self.report.map.is_ok() && scan.got == 0;
            unseen += u32::from(self.report.map.is_err());
        }
    }
}

impl<P: PageProvider> Claim<'_, P> {
    /// Returns what was got and what not.
    pub const fn report(&self) -> &ClaimReport {
        &self.report
    }

    /// Yields the ranges of the claim, ascending.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = Claimed> + '_ {
        self.list.iter()
    }

    /// Yields the ranges that memory can be placed in, ascending.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = PageRange> + '_ {
        let usable = |claimed: &Claimed| claimed.purpose == Purpose::Usable;
        self.ranges().filter(usable).map(|claimed| claimed.range)
    }

    /// Counts the ranges for a purpose.
    pub fn tally(&self, purpose: Purpose) -> Tally {
        let mut tally = Tally::default();
        for claimed in self.ranges().filter(|claimed| claimed.purpose == purpose) {
            tally.add(claimed.range.len_bytes());
        }
        tally
    }

    /// Takes `range` out of the claim: it stays reserved, [`Claim::give_back`] leaves it alone, and
    /// the caller releases it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] where it does not lie in one range of the claim,
    /// [`ErrorKind::Exhausted`] where no slot is left for what remains on both sides. Nothing
    /// changes then.
    pub fn withdraw(&mut self, range: PageRange) -> Result<(), Error> {
        self.list.remove(range, self.page)
    }

    /// Releases everything that is still in the claim, the hole and the page behind the break too.
    /// Ranges that the host refuses to release stay in the claim; the rest goes.
    ///
    /// # Errors
    ///
    /// The provider's error for the first such range.
    ///
    /// # Safety
    ///
    /// No other code uses memory in the ranges that are in the claim, and no dual view lies in
    /// them.
    pub unsafe fn give_back(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        let provider = &self.provider;
        self.list.remove_if(|claimed| {
            // SAFETY: reserved from this provider by this claim and not withdrawn; no other code
            // uses it and no view lies in it, by this function's conditions.
            let released = unsafe { provider.release(claimed.range) };
            result = result.and(released);
            released.is_ok()
        });
        result
    }
}

impl<P> fmt::Debug for Claim<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
