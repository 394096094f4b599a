//! What the emulator itself runs on: everything above 4 GiB is claimed, and the heap of the program
//! lives there; below, a second heap serves what the guest is to see.
//!
//! ```text
//!   0        64 KiB                                    4 GiB - 64 KiB      4 GiB + 64 KiB
//!   ├ host's ┼────────── the guest's ──────┬─ low heap ─┼── never mapped ──┼─ the region ─ …
//!                                          └ 48 MiB
//! ```

use crate::system::Slot;
use alloc::{boxed::Box, vec::Vec};
use hostmem::{
    OsLock, OsProvider,
    heap::{GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, State, StaticHeap},
    page::{AddressRange, PageRange},
    provider::{Clock, Error, ErrorKind, PageProvider, Resource},
    region::{ClaimRequest, RegionAllocator, RegionConfig, claim},
};
use spin::Once;

/// Everything of the host's that the emulator places.
pub(crate) type Region = RegionAllocator<OsProvider, OsProvider, OsLock>;

/// Addresses of the low heap.
type LowRegion = RegionAllocator<OsProvider, &'static Region, OsLock>;

/// The heap for what the guest is to see.
pub(crate) type LowHeap = Heap<&'static LowRegion, &'static Region, OsLock>;

/// The first address above the guest's.
pub(crate) const GUEST_SPACE: usize = 1 << 32;

/// Bytes above the guest's space that stay inaccessible: how far an access of the guest's last
/// byte, or one with an offset that would wrap, can reach.
const GUARD: usize = 0x1_0000;

/// Addresses that are left to the C library, which maps memory by itself for each thread.
const POCKET: (usize, usize) = (64 << 30, 4 << 30);

/// Addresses that stay unclaimed where the process has a limit: for its stack, and the C library.
const SPARE: usize = 1 << 30;

/// Bytes of the low heap's addresses. The guest must be left 3.9 GiB.
pub(crate) const LOW_HEAP: u32 = 48 << 20;

/// Where they begin.
pub(crate) const LOW_HEAP_START: u32 = crate::space::USER_END - LOW_HEAP;

/// Places for what is claimed: far more than a program has gaps.
const SLOTS: usize = 1024;

/// The program's heap: on the region.
#[derive(Debug)]
pub(crate) struct OnRegion;

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for OnRegion {
    type Pages = &'static Region;
    type Metadata = &'static Region;
    type Lock = OsLock;
    type Slot = Slot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let region = region().map_err(HeapError::Metadata)?;
        let config = HeapConfig::new().clock(|| OsProvider::new().now_ms());
        Heap::on(region, region, config)
    }

    fn state() -> &'static State<Self> {
        static STATE: State<OnRegion> = State::new();
        &STATE
    }
}

#[global_allocator]
static HEAP: GlobalHeap<OnRegion> = GlobalHeap::new();

/// Returns the region. It passes requests through until [`Host::claim`]: the heap serves the
/// program from its first instruction on.
pub(crate) fn region() -> Result<&'static Region, Error> {
    static REGION: Once<Result<Region, Error>> = Once::new();
    let new = || {
        let os = OsProvider::new();
        RegionAllocator::on(os, os, RegionConfig::new())
    };
    REGION.call_once(new).as_ref().map_err(|error| *error)
}

/// What the host has claimed and opened.
pub(crate) struct Host {
    pub(crate) region: &'static Region,
    pub(crate) low_heap: LowHeap,
    /// Claimed ranges below 4 GiB: the guest's, to be mapped in.
    pub(crate) guest: Vec<PageRange>,
}

impl Host {
    /// Claims both halves of the address space.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) fn claim() -> Result<Self, HeapError> {
        let region = region().map_err(HeapError::Metadata)?;
        let os = OsProvider::new();
        let guest = Self::claim_guest(os).map_err(HeapError::Metadata)?;
        Self::claim_rest(os, region).map_err(HeapError::Metadata)?;
        let low_heap = Self::open_low_heap(os, region, &guest)?;
        Ok(Self {
            region,
            low_heap,
            guest,
        })
    }

    fn claim_guest(os: OsProvider) -> Result<Vec<PageRange>, Error> {
        let range = AddressRange::new(crate::elf::LOWEST as usize, GUEST_SPACE - 1);
        let request = ClaimRequest::range(range.ok_or(ErrorKind::InvalidArgument)?);
        let mut slots = [None; SLOTS];
        let claimed = claim(os, &request, &mut slots)?;
        Ok(claimed.usable().collect())
    }

    fn claim_rest(os: OsProvider, region: &Region) -> Result<(), Error> {
        let invalid = ErrorKind::InvalidArgument;
        let hole = AddressRange::from_len(GUEST_SPACE, GUARD).ok_or(invalid)?;
        let pocket = AddressRange::from_len(POCKET.0, POCKET.1).ok_or(invalid)?;
        let last = match os.left(Resource::Addresses) {
            None => usize::MAX,
            // A claim sets its spare addresses aside below its range, where the guest has them all.
            Some(left) => GUEST_SPACE + left.saturating_sub(SPARE).max(GUARD),
        };
        let range = AddressRange::new(GUEST_SPACE, last).ok_or(invalid)?;
        let request = ClaimRequest::range(range).hole(hole).leave(pocket).spare(0);
        let mut slots = [None; SLOTS];
        let claimed = claim(os, &request, &mut slots)?;
        for range in claimed.usable() {
            // SAFETY: claimed just now and for the life of the process, and used by nothing else.
            unsafe { region.adopt(range)? };
        }
        Ok(())
    }

    fn open_low_heap(
        os: OsProvider,
        region: &'static Region,
        guest: &[PageRange],
    ) -> Result<LowHeap, HeapError> {
        let window = low_heap_window();
        let last = window.start() + LOW_HEAP as usize;
        let low = RegionAllocator::on(os, region, RegionConfig::new());
        let low: &'static LowRegion = Box::leak(Box::new(low.map_err(HeapError::Metadata)?));
        for range in guest {
            let start = range.addr().max(window.start());
            let len = range.end().min(last).saturating_sub(start);
            let offset = start - range.addr();
            if let Some(part) = range.part(offset, len, os.page_size()) {
                // SAFETY: a part of the claim that the guest is never given (`Space::new`).
                unsafe { low.adopt(part) }.map_err(HeapError::Metadata)?;
            }
        }
        Heap::on(low, region, HeapConfig::new())
    }
}

/// Returns where the low heap lies.
pub(crate) fn low_heap_window() -> AddressRange {
    AddressRange::from_len(LOW_HEAP_START as usize, LOW_HEAP as usize)
        .unwrap_or(AddressRange::LOW_4G)
}

/// Returns the heap of the program.
pub(crate) fn heap() -> Result<&'static HeapOf<OnRegion>, HeapError> {
    HEAP.heap()
}
