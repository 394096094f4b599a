//! mmap's own signatures, for hooks of other people's allocators.

use crate::{
    object,
    region::{Region, hm_region},
    status::{Fault, answer, hm_error, hm_status},
    types::page_size,
};
use core::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
};
use hostmem::{
    page::{Access, AddressRange, Ceiling, PageRange, RwxOptIn},
    provider::{Commit, Dump, Error, ErrorKind, PageProvider, PageWish, Place, Request},
    region::{PageState, RegionRange},
};

/// The region of the calls that name none.
static DEFAULT: AtomicPtr<hm_region> = AtomicPtr::new(null_mut());

/// Takes a region that was closed out of the default's place.
pub(crate) fn forget_default(region: *mut hm_region) {
    let _ = DEFAULT.compare_exchange(region, null_mut(), AcqRel, Acquire);
}

/// Sets the region of `hm_region_mmap` and its kin; null for none, where they fail with `ENODEV`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_set_default(
    region: *mut hm_region,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        if !region.is_null() {
            // SAFETY: the caller in C promises that it is a handle of this library.
            unsafe { object::get::<Region, _>(region)? };
        }
        DEFAULT.store(region, Release);
    })
}

/// Returns the region of `hm_region_mmap` and its kin, or null.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn hm_region_get_default() -> *mut hm_region {
    DEFAULT.load(Acquire)
}

/// Why a call fails: a number, which `errno` is set to.
struct Errno(c_int);

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        // What the kernel said is what it would have said.
        Self(error.errno().unwrap_or_else(|| error.errno_like()))
    }
}

impl From<Fault> for Errno {
    fn from(fault: Fault) -> Self {
        Self(fault.guest_error())
    }
}

const INVALID: Errno = Errno(libc::EINVAL);

/// Sets `errno`.
fn set_errno(errno: c_int) {
    // SAFETY: the C library's own place for the number, which each thread has.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is the calling thread's alone.
    unsafe { place.write(errno) };
}

/// Returns what the last call of the kernel said.
fn last_errno() -> c_int {
    // SAFETY: the C library's own place for the number, which each thread has.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is the calling thread's alone.
    unsafe { place.read() }
}

/// Returns 0, or sets `errno` and returns -1.
fn answered(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

/// Returns an address, or sets `errno` and returns `MAP_FAILED`.
fn mapped(result: Result<PageRange, Errno>) -> *mut c_void {
    match result {
        Ok(range) => range.start().as_ptr().cast(),
        Err(Errno(errno)) => {
            set_errno(errno);
            libc::MAP_FAILED
        }
    }
}

/// Finds the region of a call.
///
/// # Safety
///
/// It is null, or a handle of this library, which is not closed during the call.
unsafe fn find(region: *mut hm_region) -> Result<&'static Region, Errno> {
    if region.is_null() {
        return Err(Errno(libc::ENODEV));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { object::get::<Region, _>(region) }?.1)
}

/// Makes whole pages of an address, which is one's start, and a length.
fn whole(addr: *mut c_void, len: usize) -> Result<PageRange, Errno> {
    let page = page_size();
    let len = page.round_up(len).filter(|len| *len != 0).ok_or(INVALID)?;
    let start = NonNull::new(addr.cast::<u8>()).ok_or(INVALID)?;
    PageRange::new(start, len, page).ok_or(INVALID)
}

/// Makes an access of `PROT_` bits. What is writable or executable is readable, as on most CPUs.
fn access(prot: c_int) -> Result<Access, Errno> {
    const KNOWN: c_int = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    if prot & !KNOWN != 0 {
        return Err(INVALID);
    }
    Ok(match (prot & libc::PROT_WRITE, prot & libc::PROT_EXEC) {
        (0, 0) if prot == libc::PROT_NONE => Access::None,
        (0, 0) => Access::Read,
        (_, 0) => Access::ReadWrite,
        (0, _) => Access::ReadExec,
        // SAFETY: the caller in C has asked for it by its bits.
        _ => Access::ReadWriteExec(unsafe { RwxOptIn::accept() }),
    })
}

/// Makes what memory is like that may be given any access later, as mmap's may.
fn how(access: Access) -> Commit {
    let ceiling = match access {
        Access::ReadWriteExec(consent) => Ceiling::ReadWriteExec(consent),
        _ => Ceiling::WriteXorExec,
    };
    Commit {
        access,
        ceiling,
        pages: PageWish::Base,
    }
}

/// Returns what the kernel said, in terms of a provider's.
fn refused(errno: c_int) -> Error {
    let kind = match errno {
        libc::ENOMEM | libc::EAGAIN | libc::ENFILE => ErrorKind::Exhausted,
        libc::EACCES | libc::EPERM => ErrorKind::Denied,
        libc::EINVAL | libc::EOVERFLOW => ErrorKind::InvalidArgument,
        libc::ENODEV => ErrorKind::Unsupported,
        libc::EEXIST => ErrorKind::Taken,
        _ => ErrorKind::Other,
    };
    Error::os(kind, errno)
}

/// What the caller of mmap asks for beside a place.
#[derive(Clone, Copy)]
struct Mapped {
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
}

/// Only x86-64 has it.
#[cfg(target_arch = "x86_64")]
const MAP_32BIT: c_int = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const MAP_32BIT: c_int = 0;

/// Flags that say which place is meant.
const PLACES: c_int = libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | MAP_32BIT;
/// Flags that change nothing here.
const PASSED: c_int = libc::MAP_NORESERVE | libc::MAP_STACK;
/// Flags for which the kernel is asked for a mapping of its own.
const OWN: c_int = libc::MAP_POPULATE | libc::MAP_LOCKED | libc::MAP_HUGETLB | libc::MAP_NONBLOCK;

impl Mapped {
    /// Says whether the region's own memory serves: private, of no file, and nothing special.
    const fn is_plain(self) -> bool {
        self.flags & libc::MAP_ANONYMOUS != 0
            && self.flags & libc::MAP_TYPE == libc::MAP_PRIVATE
            && self.flags & OWN == 0
    }

    /// Maps over pages, in one step.
    fn place(self, pages: PageRange) -> Result<(), Error> {
        let (at, len) = (pages.start().as_ptr().cast(), pages.len_bytes());
        let flags = self.flags & !PLACES | libc::MAP_FIXED;
        // SAFETY: the pages are the region's, which gives them to this call, and no other code
        // uses what was there, by the promise of the caller in C.
        let got = unsafe { libc::mmap(at, len, self.prot, flags, self.fd, self.offset) };
        if got == libc::MAP_FAILED {
            return Err(refused(last_errno()));
        }
        Ok(())
    }

    fn check(self, len: usize) -> Result<(), Errno> {
        const KNOWN: c_int = PLACES | PASSED | OWN | libc::MAP_ANONYMOUS | libc::MAP_TYPE;
        let page = page_size();
        let offset = usize::try_from(self.offset).map_err(|_| INVALID)?;
        if len == 0 || !page.is_aligned(offset) {
            return Err(INVALID);
        }
        let kind = self.flags & libc::MAP_TYPE;
        let kinds = [
            libc::MAP_PRIVATE,
            libc::MAP_SHARED,
            libc::MAP_SHARED_VALIDATE,
        ];
        if !kinds.contains(&kind) {
            return Err(INVALID);
        }
        // Sizes of large pages are above the flags.
        let sizes = libc::MAP_HUGE_MASK << libc::MAP_HUGE_SHIFT;
        let sizes = if self.flags & libc::MAP_HUGETLB != 0 {
            sizes
        } else {
            0
        };
        if self.flags & !(KNOWN | sizes) != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        Ok(())
    }

    /// Maps, in a region.
    ///
    /// # Safety
    ///
    /// Nobody uses what it replaces.
    unsafe fn map(
        self,
        region: &Region,
        addr: *mut c_void,
        len: usize,
    ) -> Result<PageRange, Errno> {
        self.check(len)?;
        let access = access(self.prot)?;
        let state = PageState::Committed(access);
        let is_exact = self.flags & libc::MAP_FIXED_NOREPLACE != 0;
        if self.flags & libc::MAP_FIXED != 0 && !is_exact {
            let pages = whole(addr, len)?;
            if self.is_plain() {
                // SAFETY: the caller's promise.
                unsafe { region.map_over(pages, how(access), 0)? };
            } else {
                // SAFETY: the caller's promise.
                unsafe { region.map_over_with(pages, 0, state, |pages| self.place(pages))? };
            }
            return Ok(pages);
        }
        let place = match (is_exact, addr.addr()) {
            (true, _) => Place::Exact(whole(addr, len)?.addr()),
            (false, 0) => Place::Anywhere,
            (false, hint) => Place::Hint(page_size().round_down(hint)),
        };
        let len = page_size().round_up(len).ok_or(Errno(libc::ENOMEM))?;
        let request = Request::bytes(len).place(place);
        let request = if self.flags & MAP_32BIT != 0 {
            request.within(AddressRange::new(0, (2 << 30) - 1).ok_or(INVALID)?)
        } else {
            request
        };
        if self.is_plain() {
            return Ok(region.map(&request, how(access), 0)?);
        }
        Ok(region.map_with(&request, 0, state, |pages| self.place(pages))?)
    }
}

/// Maps as `mmap` does, in a region: the flags are `MAP_PRIVATE` or `MAP_SHARED`, with
/// `MAP_ANONYMOUS`, `MAP_FIXED`, `MAP_FIXED_NOREPLACE`, `MAP_NORESERVE`, `MAP_STACK`,
/// `MAP_POPULATE`, `MAP_LOCKED`, `MAP_NONBLOCK`, `MAP_HUGETLB` and its sizes, and `MAP_32BIT`;
/// others fail with `EOPNOTSUPP`. An address without `MAP_FIXED` is a hint. Returns `MAP_FAILED`,
/// and says why by `errno`, with the numbers that `mmap` would use; addresses that are not of the
/// region cannot be replaced, which is `ENOMEM`.
///
/// What a program does to such memory by the kernel's own calls is described in the guide.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mmap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let asked = Mapped {
        prot,
        flags,
        fd,
        offset,
    };
    // SAFETY: the caller in C promises that it is null or a handle of this library.
    let region = unsafe { find(region) };
    mapped(region.and_then(|region| {
        // SAFETY: the caller in C promises that no other code uses what it replaces.
        unsafe { asked.map(region, address, len) }
    }))
}

/// Unmaps as `munmap` does: any parts of mappings of the region. Returns 0, or -1 and says why by
/// `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_munmap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
) -> c_int {
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        // SAFETY: the caller in C promises that no other code uses the memory.
        unsafe { region.unmap(whole(address, len)?)? };
        Ok(())
    })())
}

/// Changes the access as `mprotect` does. Returns 0, or -1 and says why by `errno`; nothing has
/// changed then.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mprotect_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    prot: c_int,
) -> c_int {
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if !page_size().is_aligned(address.addr()) {
            return Err(INVALID);
        }
        let access = access(prot)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the caller in C promises that the pages are its own.
        unsafe { region.protect(whole(address, len)?, access)? };
        Ok(())
    })())
}

/// Makes a mapping longer or shorter as `mremap` does, of whose flags there is `MREMAP_MAYMOVE`:
/// others fail with `EINVAL`. The mapping has one access all over. Returns where it lies then, or
/// `MAP_FAILED` and says why by `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mremap_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
) -> *mut c_void {
    mapped((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if flags & !libc::MREMAP_MAYMOVE != 0 || new_len == 0 {
            return Err(INVALID);
        }
        let pages = whole(address, len)?;
        let Some(RegionRange {
            state: PageState::Committed(access),
            ..
        }) = region.query(pages.addr())
        else {
            return Err(Errno(libc::EFAULT));
        };
        if flags == 0 {
            // SAFETY: the caller in C promises that the mapping is its own.
            return Ok(unsafe { region.resize(pages, new_len, how(access))? });
        }
        // SAFETY: as above, and that no other code uses it meanwhile.
        Ok(unsafe { region.remap(pages, new_len, how(access))? })
    })())
}

/// Says whether a region has given out all pages of a range.
fn is_given_out(region: &Region, pages: PageRange) -> bool {
    let mut at = pages.addr();
    for range in region.ranges(pages.addresses()) {
        if range.addresses.start() > at || range.state == PageState::Dual {
            return false;
        }
        at = range.addresses.last().saturating_add(1);
        if at >= pages.end() {
            return true;
        }
    }
    false
}

/// Gives advice as `madvise` does: `MADV_NORMAL`, `MADV_RANDOM`, `MADV_SEQUENTIAL`,
/// `MADV_WILLNEED`, `MADV_DONTNEED`, `MADV_FREE`, `MADV_COLD`, `MADV_PAGEOUT`, `MADV_HUGEPAGE`,
/// `MADV_NOHUGEPAGE`, `MADV_DONTDUMP`, `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`; others fail
/// with `EINVAL`. Pages that the region has not given out fail with `ENOMEM`, and nothing is done.
/// Returns 0, or -1 and says why by `errno`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_madvise_in(
    region: *mut hm_region,
    address: *mut c_void,
    len: usize,
    advice: c_int,
) -> c_int {
    const KERNELS: [c_int; 10] = [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_COLD,
        libc::MADV_PAGEOUT,
        libc::MADV_POPULATE_READ,
        libc::MADV_POPULATE_WRITE,
    ];
    answered((|| {
        // SAFETY: the caller in C promises that it is null or a handle of this library.
        let region = unsafe { find(region)? };
        if !page_size().is_aligned(address.addr()) {
            return Err(INVALID);
        }
        if len == 0 {
            return Ok(());
        }
        let pages = whole(address, len)?;
        if region.is_active() && !is_given_out(region, pages) {
            return Err(Errno(libc::ENOMEM));
        }
        match advice {
            // SAFETY: the caller in C promises that the pages are its own.
            libc::MADV_HUGEPAGE => unsafe { region.wish_pages(pages, PageWish::Transparent) },
            // SAFETY: as above.
            libc::MADV_NOHUGEPAGE => unsafe { region.wish_pages(pages, PageWish::Never) },
            libc::MADV_DONTDUMP => {
                // SAFETY: as above.
                unsafe { PageProvider::describe(region, pages, None, Dump::Excluded) };
            }
            _ if KERNELS.contains(&advice) => {
                let at = pages.start().as_ptr().cast();
                // SAFETY: as above, and that the contents are not needed where the advice says so.
                if unsafe { libc::madvise(at, pages.len_bytes(), advice) } != 0 {
                    return Err(Errno(last_errno()));
                }
            }
            _ => return Err(INVALID),
        }
        Ok(())
    })())
}

/// As `hm_region_mmap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mmap(
    address: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let region = hm_region_get_default();
    // SAFETY: the caller in C has made the promises of the other call.
    unsafe { hm_region_mmap_in(region, address, len, prot, flags, fd, offset) }
}

/// As `hm_region_munmap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_munmap(address: *mut c_void, len: usize) -> c_int {
    // SAFETY: the caller in C has made the promises of the other call.
    unsafe { hm_region_munmap_in(hm_region_get_default(), address, len) }
}

/// As `hm_region_mprotect_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mprotect(
    address: *mut c_void,
    len: usize,
    prot: c_int,
) -> c_int {
    // SAFETY: the caller in C has made the promises of the other call.
    unsafe { hm_region_mprotect_in(hm_region_get_default(), address, len, prot) }
}

/// As `hm_region_mremap_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_mremap(
    address: *mut c_void,
    len: usize,
    new_len: usize,
    flags: c_int,
) -> *mut c_void {
    // SAFETY: the caller in C has made the promises of the other call.
    unsafe { hm_region_mremap_in(hm_region_get_default(), address, len, new_len, flags) }
}

/// As `hm_region_madvise_in`, in the region of `hm_region_set_default`.
///
/// Thread-safe; not for signal handlers, unless the region blocks signals.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_region_madvise(
    address: *mut c_void,
    len: usize,
    advice: c_int,
) -> c_int {
    // SAFETY: the caller in C has made the promises of the other call.
    unsafe { hm_region_madvise_in(hm_region_get_default(), address, len, advice) }
}
