//! A region in a static.

use crate::{
    OsProvider, RegionAllocator, RegionHeap,
    fork::ForkChild,
    heap::{HeapConfig, HeapError},
    place::adopt_claim,
    provider::{Commit, Error, ErrorKind, PageProvider, Request},
    region::{ClaimReport, ClaimRequest, RegionConfig},
};
use core::{
    fmt,
    ptr::{self, null_mut},
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire},
    },
};

/// Regions in statics of one process. An emulator has one, and perhaps another one that its guest
/// can see.
const REGIONS: usize = 16;

/// The regions in statics that were opened, for children to repair. Entries are never taken back.
static OPENED: [AtomicPtr<StaticRegion>; REGIONS] = [const { AtomicPtr::new(null_mut()) }; REGIONS];

const fn is_sync<T: Send + Sync>() {}
const _: () = is_sync::<RegionAllocator>();

/// A [`RegionAllocator`] for a `static`. It opens itself at the first call, without addresses: a
/// pass-through to the system, until the program knows what to claim.
///
/// With the feature `std` the C library repairs it in the children that its `fork` makes.
///
/// A heap for the whole program, first on the system's memory and then above 4 GiB:
///
/// ```
/// use hostmem::{HeapConfig, RegionConfig, RegionHeap, StaticRegion};
///
/// static HOST: StaticRegion = StaticRegion::new(RegionConfig::new());
///
/// hostmem::global_heap! {
///     #[global_allocator]
///     static HEAP: RegionHeap<'static> = HOST.heap(HeapConfig::new());
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     HOST.claim_above(4 << 30)?;
///     let large = vec![1_u8; 100 << 20];
///     assert!(large.as_ptr().addr() >= 4 << 30);
///     assert!(HEAP.heap()?.owns(large.as_ptr().addr()));
///     Ok(())
/// }
/// ```
pub struct StaticRegion {
    config: RegionConfig,
    /// The region, in pages of its own, or null.
    region: AtomicPtr<RegionAllocator>,
}

impl StaticRegion {
    /// Makes a place for a region.
    #[must_use]
    pub const fn new(config: RegionConfig) -> Self {
        Self {
            config,
            region: AtomicPtr::new(null_mut()),
        }
    }

    /// Returns the region, which is opened if it was not. Takes no lock: where two threads open it
    /// at one moment, one of them uses what the other one made.
    ///
    /// # Errors
    ///
    /// What the system says where there is no memory for it; [`ErrorKind::Exhausted`] where 16
    /// others are open.
    pub fn get(&'static self) -> Result<&'static RegionAllocator, Error> {
        match self.opened() {
            Some(region) => Ok(region),
            None => self.open(),
        }
    }

    /// Claims all that is free from `start` upwards, and places everything new in it from then on.
    /// See [`region_above`](crate::region_above).
    ///
    /// # Errors
    ///
    /// Those of [`StaticRegion::get`] and of [`adopt_claim`].
    pub fn claim_above(&'static self, start: usize) -> Result<ClaimReport, Error> {
        adopt_claim(self.get()?, &ClaimRequest::above(start))
    }

    /// Makes a heap in the region, with its metadata there too.
    ///
    /// # Errors
    ///
    /// Those of [`heap::Heap::on`](crate::heap::Heap::on), and [`HeapError::Metadata`] with those
    /// of [`StaticRegion::get`].
    pub fn heap(&'static self, config: HeapConfig) -> Result<RegionHeap<'static>, HeapError> {
        let region = self.get().map_err(HeapError::Metadata)?;
        RegionHeap::on(region, region, config)
    }

    fn opened(&self) -> Option<&RegionAllocator> {
        let region = self.region.load(Acquire);
        // SAFETY: null, or written before it was stored with Release, never changed, and never
        // given back once it was stored.
        unsafe { region.as_ref() }
    }

    #[cold]
    fn open(&'static self) -> Result<&'static RegionAllocator, Error> {
        // Before the region's first lock: a child repairs what it finds in the list.
        self.note()?;
        #[cfg(feature = "std")]
        crate::at_fork::register_regions();
        let os = OsProvider::new();
        let pages = os.reserve(&Request::bytes(size_of::<RegionAllocator>()))?;
        let release = || {
            // SAFETY: reserved above, and no other code has its address. A failure wastes a page.
            let _ = unsafe { os.release(pages) };
        };
        // SAFETY: reserved just now, and no other code has its address yet.
        unsafe { os.commit(pages, Commit::READ_WRITE) }.inspect_err(|_| release())?;
        let made = RegionAllocator::new(self.config).inspect_err(|_| release())?;
        let place = pages.start().cast::<RegionAllocator>().as_ptr();
        // SAFETY: committed above for as many bytes, aligned as pages are, and no other code's.
        unsafe { place.write(made) };
        let before = self
            .region
            .compare_exchange(null_mut(), place, AcqRel, Acquire);
        if before.is_err() {
            // SAFETY: written above, and known to no other code: it was not stored.
            unsafe { place.drop_in_place() };
            release();
        }
        self.opened().ok_or_else(|| ErrorKind::Other.into())
    }

    /// Puts this into the list of those that a child repairs, unless it is there.
    fn note(&'static self) -> Result<(), Error> {
        let this = ptr::from_ref(self).cast_mut();
        let is_noted = |entry: &AtomicPtr<Self>| match entry.compare_exchange(
            null_mut(),
            this,
            AcqRel,
            Acquire,
        ) {
            Ok(_) => true,
            Err(other) => other == this,
        };
        if OPENED.iter().any(is_noted) {
            Ok(())
        } else {
            Err(ErrorKind::Exhausted.into())
        }
    }
}

// SAFETY: the region's own hook repairs all that there is.
unsafe impl ForkChild for StaticRegion {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        match self.opened() {
            // SAFETY: the caller's promises are the same; the system's provider has nothing to
            // repair.
            Some(region) => unsafe { region.fork_child() },
            None => Ok(()),
        }
    }
}

/// Repairs all regions in statics. What one of them could not get does not keep the others.
///
/// # Safety
///
/// Those of [`ForkChild::fork_child`], for each of them.
#[cfg(feature = "std")]
pub(crate) unsafe fn repair_all() {
    for entry in &OPENED {
        // SAFETY: null, or a static.
        if let Some(region) = unsafe { entry.load(Acquire).as_ref() } {
            // SAFETY: the caller's promise. Where there is no memory for it, calls may wait without
            // end; there is no one to tell.
            let _ = unsafe { region.fork_child() };
        }
    }
}

impl fmt::Debug for StaticRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaticRegion").field(&self.opened()).finish()
    }
}
