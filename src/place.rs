//! One call each for what emulators place: a heap that the guest can see, and all of the host's own
//! in addresses that the guest cannot.

use crate::{
    LowHeap, OsProvider, RegionAllocator, generic,
    heap::{HeapConfig, HeapError},
    page::{AddressRange, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, Request, Within},
    region::{self, Claim, ClaimReport, ClaimRequest, Claimed, RegionConfig, claim, survey},
    sync::RawMutex,
};
use core::slice;

/// Slots for a claim on a host that does not tell how many gaps there are.
const UNSEEN: usize = 1024;

/// Slots for mappings that appear between the survey and the claim.
const MORE: usize = 64;

/// How often a claim is made anew with twice the slots because so many gaps appeared meanwhile.
const TRIES: u32 = 4;

/// Makes a heap whose blocks lie below 4 GiB, for what a guest with 32-bit pointers can see. Its
/// metadata lies where the system places it, and takes none of those addresses.
///
/// ```
/// use hostmem::HeapConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = hostmem::low_heap(HeapConfig::new())?;
/// let block = heap.alloc_bytes(100)?;
/// assert!(block.addr().get() < 4 << 30);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The errors of [`heap::Heap::on`](crate::heap::Heap::on).
pub fn low_heap(config: HeapConfig) -> Result<LowHeap, HeapError> {
    let os = OsProvider::new();
    generic::Heap::on(Within::new(os, AddressRange::LOW_4G), os, config)
}

/// Claims all that is free from `start` upwards, and makes a region of it.
///
/// What others map without asking for a place lands below `start` from then on, and what is placed
/// in the region lands above. The report says what could not be claimed.
///
/// ```
/// use hostmem::{HeapConfig, RegionConfig, RegionHeap};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (region, report) = hostmem::region_above(4 << 30, RegionConfig::new())?;
/// assert_eq!(report.missed.bytes, 0);
/// let heap = RegionHeap::on(&region, &region, HeapConfig::new())?;
/// let block = heap.alloc_bytes(100)?;
/// assert!(block.addr().get() >= 4 << 30);
/// # Ok(())
/// # }
/// ```
///
/// The addresses stay claimed when the region is dropped. For a claim that leaves some addresses
/// out, or keeps a hole inaccessible, there is [`adopt_claim`]; for one that can be given back,
/// [`claim`] itself.
///
/// # Errors
///
/// The errors of [`adopt_claim`], and those of
/// [`region::RegionAllocator::on`](crate::region::RegionAllocator::on).
pub fn region_above(
    start: usize,
    config: RegionConfig,
) -> Result<(RegionAllocator, ClaimReport), Error> {
    let region = RegionAllocator::new(config)?;
    let report = adopt_claim(&region, &ClaimRequest::above(start))?;
    Ok((region, report))
}

/// Claims what `request` asks for, with as many slots as it takes, and has `region` adopt what of
/// it can be used.
///
/// A hole, and the page that keeps the program break from growing, stay reserved for good. A claim
/// that missed something is not an error: the report says what and why.
///
/// # Errors
///
/// The errors of [`claim`] and of
/// [`region::RegionAllocator::adopt`](crate::region::RegionAllocator::adopt);
/// [`ErrorKind::Exhausted`] where others map so much meanwhile that the slots do not suffice. What
/// was not adopted is given back then.
pub fn adopt_claim(region: &RegionAllocator, request: &ClaimRequest) -> Result<ClaimReport, Error> {
    // SAFETY: the region's provider is the system's.
    unsafe { adopt_claim_into(region, request) }
}

/// As [`adopt_claim`], for a region whose provider is one around the system's, or another type for
/// it.
///
/// # Errors
///
/// Those of [`adopt_claim`].
///
/// # Safety
///
/// What [`OsProvider`] reserves is a reservation of the region's provider, too, wherever it lies.
pub unsafe fn adopt_claim_into<P, M, R>(
    region: &region::RegionAllocator<P, M, R>,
    request: &ClaimRequest,
) -> Result<ClaimReport, Error>
where
    P: PageProvider + Copy,
    M: PageProvider + Copy,
    R: RawMutex,
{
    // Only what the claim and the slots have is adopted, which are reservations of the system's.
    let adopt = |range| {
        // SAFETY: reserved from the system, inaccessible, and given up by who had it; so it is a
        // reservation of the region's provider, by this function's `# Safety`.
        unsafe { region.adopt(range) }
    };
    let os = OsProvider::new();
    let found = survey(os, request).map_or(UNSEEN, |gaps| gaps.ranges);
    for n in 0..TRIES {
        let count = (found.saturating_add(MORE)).saturating_mul(2 << n);
        let mut slots = Slots::new(os, count, request)?;
        let mut claim = claim(os, request, slots.as_mut())?;
        let report = *claim.report();
        let adopted = if report.full {
            Err(ErrorKind::Exhausted.into())
        } else {
            adopt_usable(adopt, &mut claim)
        };
        if adopted.is_err() {
            // SAFETY: nothing was placed in what is still in the claim.
            let _ = unsafe { claim.give_back() };
        }
        match adopted {
            Err(_) if report.full => slots.release(),
            Err(error) => {
                slots.release();
                return Err(error);
            }
            Ok(()) => {
                slots.adopt(adopt, request)?;
                return Ok(report);
            }
        }
    }
    Err(ErrorKind::Exhausted.into())
}

/// Moves what can be used from the claim to the region that `adopt` is of.
fn adopt_usable(
    adopt: impl Fn(PageRange) -> Result<(), Error>,
    claim: &mut Claim<'_, OsProvider>,
) -> Result<(), Error> {
    loop {
        let Some(range) = claim.usable().next() else {
            return Ok(());
        };
        adopt(range)?;
        claim.withdraw(range)?;
    }
}

/// The slots of a claim, in pages of their own.
struct Slots {
    os: OsProvider,
    pages: PageRange,
    count: usize,
}

impl Slots {
    /// Takes pages below what is claimed, if there are any.
    fn new(os: OsProvider, count: usize, request: &ClaimRequest) -> Result<Self, Error> {
        let len = count
            .checked_mul(size_of::<Option<Claimed>>())
            .ok_or(ErrorKind::Exhausted)?;
        let wanted = Request::bytes(len);
        let below = request.range.start().checked_sub(1);
        let below = below.and_then(|last| AddressRange::new(0, last));
        let pages = below.and_then(|below| os.reserve(&wanted.within(below)).ok());
        let pages = pages.map_or_else(|| os.reserve(&wanted), Ok)?;
        // SAFETY: reserved just now, and no other code has its address yet.
        if let Err(error) = unsafe { os.commit(pages, Commit::READ_WRITE) } {
            // SAFETY: reserved above, and no other code has its address.
            let _ = unsafe { os.release(pages) };
            return Err(error);
        }
        let first = pages.start().cast::<Option<Claimed>>();
        for n in 0..count {
            // SAFETY: the pages have room for as many.
            let slot = unsafe { first.add(n) };
            // SAFETY: committed above, aligned as pages are, and no other code's.
            unsafe { slot.write(None) };
        }
        Ok(Self { os, pages, count })
    }

    fn as_mut(&mut self) -> &mut [Option<Claimed>] {
        let first = self.pages.start().cast().as_ptr();
        // SAFETY: as many were written, and are borrowed with self, which alone has them.
        unsafe { slice::from_raw_parts_mut(first, self.count) }
    }

    fn release(self) {
        // SAFETY: taken by `new`, and not used any more. A failure wastes the pages and no more.
        let _ = unsafe { self.os.release(self.pages) };
    }

    /// Has the region adopt the pages if they lie in what was claimed, and else releases them.
    fn adopt(
        self,
        adopt: impl Fn(PageRange) -> Result<(), Error>,
        request: &ClaimRequest,
    ) -> Result<(), Error> {
        if !request.range.contains_range(self.pages.addresses()) {
            self.release();
            return Ok(());
        }
        // SAFETY: committed by `new`, and not used any more.
        unsafe { self.os.decommit(self.pages)? };
        adopt(self.pages)
    }
}
