//! Maps 64 KiB and unmaps them, in a region and by the bare calls of the kernel.

use hostmem::{
    OsLock, OsProvider,
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, PageProvider, Request},
    region::{Claim, ClaimRequest, RegionAllocator, RegionConfig, claim},
};
use hostmem_bench::{clock::CpuTime, lane::Lane};
use std::{
    io,
    ptr::{NonNull, null_mut, without_provenance_mut},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Bytes of a mapping.
const LEN: usize = 64 << 10;

/// Bytes that are claimed, and that the bare calls reserve.
const RESERVED: usize = 4 << 30;

/// Where they are claimed: no kernel puts anything there by itself.
const CLAIMED: usize = 1 << 44;

/// From one reservation to the next, so that each has page tables of its own on every level.
const APART: usize = 1 << 40;

type Region<P> = RegionAllocator<P, OsProvider, OsLock>;

/// A region of addresses that were claimed just now.
pub struct Claimed<'s, P: PageProvider + Copy> {
    region: Region<P>,
    claim: Claim<'s, OsProvider>,
    touched: bool,
}

/// Room for what is claimed.
pub type Slots = [Option<hostmem::region::Claimed>; 16];

impl<'s, P: PageProvider + Copy> Claimed<'s, P> {
    /// Claims addresses for a region on `provider`, which passes calls on to the host. One at a
    /// time.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn new(provider: P, slots: &'s mut Slots, touched: bool) -> Result<Self, Error> {
        let os = OsProvider::new();
        let region = RegionAllocator::on(provider, os, RegionConfig::new())?;
        let range = AddressRange::from_len(CLAIMED, RESERVED).expect("4 GiB are not empty");
        let claim = claim(os, &ClaimRequest::range(range), slots)?;
        let this = Self {
            region,
            claim,
            touched,
        };
        for range in this.claim.usable() {
            // SAFETY: claimed just now from the host, to which the provider passes calls on; given
            // back when the region is not used any more.
            unsafe { this.region.adopt(range)? };
        }
        Ok(this)
    }

    /// Maps and unmaps once.
    pub fn pair(&self) {
        pair(&self.region, self.touched);
    }
}

/// Maps and unmaps in a region allocator that has adopted nothing.
///
/// # Errors
///
/// Where the host gives no memory for its book-keeping.
pub fn pass_through<P: PageProvider + Copy>(provider: P, pairs: usize) -> Result<(), Error> {
    let region = RegionAllocator::on(provider, OsProvider::new(), RegionConfig::new())?;
    (0..pairs).for_each(|_| pair(&region, false));
    Ok(())
}

#[inline]
fn pair<P: PageProvider + Copy>(region: &Region<P>, touched: bool) {
    let mapped = region.map(&Request::bytes(LEN), Commit::READ_WRITE, 0);
    let mapped = mapped.expect("hostmem has no room");
    if touched {
        touch(mapped.start());
    }
    // SAFETY: mapped just now, and no other code uses it any more.
    let unmapped = unsafe { region.unmap(mapped) };
    unmapped.expect("hostmem cannot unmap");
}

impl<P: PageProvider + Copy> Drop for Claimed<'_, P> {
    fn drop(&mut self) {
        // SAFETY: what was mapped in the claim was unmapped, and the region, which still owns the
        // addresses, is not used any more.
        let given = unsafe { self.claim.give_back() };
        given.expect("a claim can be given back");
    }
}

impl<P: PageProvider + Copy> Lane for Claimed<'_, P> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        (0..steps).for_each(|_| self.pair());
        start.elapsed()
    }
}

/// Writes a byte of memory that was mapped.
fn touch(start: NonNull<u8>) {
    // SAFETY: the callers mapped it just now, readable and writable, and no other code knows it.
    unsafe { start.write_volatile(1) }
}

/// Which calls map and unmap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// `mprotect` of a reservation, and `mmap` over it: what the region allocator's provider does.
    ProtectMap,
    /// `mmap` over a reservation, twice.
    MapMap,
    /// `mmap` wherever the kernel likes, and `munmap`.
    MapUnmap,
}

/// The bare calls, in a reservation of their own.
pub struct Bare {
    calls: Calls,
    reservation: NonNull<u8>,
    touched: bool,
}

impl Bare {
    /// Reserves addresses.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn new(calls: Calls, touched: bool) -> io::Result<Self> {
        let far = without_provenance_mut(CLAIMED + (1 + calls as usize) * APART);
        // SAFETY: a new mapping there, or elsewhere if something is there; nothing is replaced.
        let reservation = unsafe { map(far, RESERVED, libc::PROT_NONE, 0) }?;
        Ok(Self {
            calls,
            reservation,
            touched,
        })
    }

    fn pair(&self) -> io::Result<()> {
        let there: *mut libc::c_void = self.reservation.as_ptr().cast();
        let data = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = match self.calls {
            Calls::ProtectMap => {
                // SAFETY: the start of the reservation, which is this one's alone.
                let failed = unsafe { libc::mprotect(there, LEN, data) };
                if failed != 0 {
                    return Err(io::Error::last_os_error());
                }
                self.reservation
            }
            // SAFETY: replaces the start of the reservation, which no other code uses.
            Calls::MapMap => unsafe { map(there, LEN, data, libc::MAP_FIXED) }?,
            // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
            Calls::MapUnmap => unsafe { map(null_mut(), LEN, data, 0) }?,
        };
        if self.touched {
            touch(mapped);
        }
        if self.calls == Calls::MapUnmap {
            // SAFETY: mapped just now, and no other code uses it any more.
            let failed = unsafe { libc::munmap(mapped.as_ptr().cast(), LEN) };
            return if failed == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            };
        }
        // SAFETY: replaces what was mapped just now, which no other code uses any more.
        unsafe { map(there, LEN, libc::PROT_NONE, libc::MAP_FIXED) }.map(drop)
    }
}

/// Maps private memory without a file.
///
/// # Safety
///
/// With `MAP_FIXED`, what is replaced is the caller's, and no other code uses it.
unsafe fn map(
    at: *mut libc::c_void,
    len: usize,
    access: libc::c_int,
    flags: libc::c_int,
) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the caller's promise.
    let mapped = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapped.cast()).ok_or_else(io::Error::last_os_error)
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no other code uses it any more.
        let failed = unsafe { libc::munmap(self.reservation.as_ptr().cast(), RESERVED) };
        assert_eq!(failed, 0, "a whole reservation can be unmapped");
    }
}

impl Lane for Bare {
    fn name(&self) -> &'static str {
        match self.calls {
            Calls::ProtectMap => "mprotect+mmap",
            Calls::MapMap => "mmap+mmap",
            Calls::MapUnmap => "mmap+munmap",
        }
    }

    fn run(&mut self, steps: usize) -> Duration {
        let start = CpuTime::now();
        (0..steps).for_each(|_| self.pair().expect("the kernel has no room"));
        start.elapsed()
    }
}

/// The host's provider, counting the calls that change something. Each is one system call on Linux,
/// `commit` of pages that may not be executed among them.
#[derive(Debug, Default)]
pub struct Counting(AtomicUsize);

impl Counting {
    /// Returns how many calls there were.
    pub fn calls(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn host(&self) -> OsProvider {
        self.0.fetch_add(1, Relaxed);
        OsProvider::new()
    }
}

// SAFETY: every call is passed on to the host's provider as it is.
unsafe impl PageProvider for Counting {
    fn page_size(&self) -> PageSize {
        OsProvider::new().page_size()
    }

    fn capabilities(&self) -> Capabilities {
        OsProvider::new().capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.host().reserve(request)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.host().commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.host().protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.host().decommit(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.host().release(range) }
    }
}
