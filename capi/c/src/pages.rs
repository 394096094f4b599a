//! Pages: reserved, committed, protected, given back, and mapped twice.

use crate::{
    abi::{Grows, growing, place, read},
    jit::{fork_of, hm_fork, of_fork},
    region::{hm_purged, purged_of},
    source::{hm_source, source},
    status::{
        Fault, HM_STEP_ANON_SHM, HM_STEP_ANON_SHM_LARGE, HM_STEP_DEV_SHM, HM_STEP_DIRECTORY,
        HM_STEP_MEMFD, HM_STEP_MEMFD_LARGE, HM_STEP_POSIX_SHM, HM_STEP_REMAP_DUP, answer, hm_error,
        hm_status, hm_step, invalid, step_of,
    },
    types::{
        access, commit, hm_access, hm_ceiling, hm_page_wish, hm_placement, hm_range, hm_request,
        name, pages_of, placement, range_of, request,
    },
};
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use hostmem::{
    page::PageSize,
    provider::{
        CoreSync, DualMapProvider, DualMapping, DualRequest, DualStep, Leave, PageProvider,
        PageWish, Target,
    },
};

/// A request for a dual mapping. Begin with `HM_DUAL_REQUEST_INIT`, and set at least `len`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_dual_request {
    /// The size of this struct.
    pub size: u32,
    /// What a forked child sees: all but `HM_FORK_DETACH`'s private copy, which is for
    /// `hm_jit_fork_child`.
    pub fork: hm_fork,
    /// Bytes of each view, whole pages.
    pub len: usize,
    /// As few bytes will do where no hole is longer; 0 for no fewer than `len`.
    pub min_len: usize,
    /// Where the writable view goes.
    pub rw: hm_placement,
    /// Where the executable view goes.
    pub rx: hm_placement,
    /// A size of large pages, or 0 for the host's pages.
    pub large_pages: usize,
    /// Not zero: indirect branches into the executable view must land on a landing pad.
    pub landing_pads: u32,
    /// Zero.
    pub reserved: u32,
    /// A name for the process map, or null.
    pub name: *const c_char,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_dual_request {
    const FIRST: usize = 128;
}

const _: () = assert!(size_of::<hm_dual_request>() == 128);

/// The same pages, seen through a writable and through an executable view. It stands for both views
/// until `hm_dual_unmap`. Begin with `HM_DUAL_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_dual {
    /// The size of this struct.
    pub size: u32,
    /// How it was made.
    pub step: hm_step,
    /// The writable view.
    pub rw: *mut c_void,
    /// The executable view.
    pub rx: *mut c_void,
    /// Bytes of each view.
    pub len: usize,
    /// The size of its pages.
    pub page_size: usize,
    /// What a forked child sees.
    pub fork: hm_fork,
    /// Whether `hm_dual_purge` works: 0 or 1.
    pub purges: u32,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_dual {
    const FIRST: usize = 48;
}

const _: () = assert!(size_of::<hm_dual>() == 48);

impl hm_dual {
    /// No mapping.
    pub(crate) const NONE: Self = Self {
        size: 0,
        step: 0,
        rw: null_mut(),
        rx: null_mut(),
        len: 0,
        page_size: 0,
        fork: 0,
        purges: 0,
    };
}

/// Describes a mapping to C.
pub(crate) fn of_dual(mapping: &DualMapping) -> hm_dual {
    hm_dual {
        size: 0,
        step: step_of(mapping.step()),
        rw: mapping.rw().start().as_ptr().cast(),
        rx: mapping.rx().start().as_ptr().cast(),
        len: mapping.len_bytes(),
        page_size: mapping.page_size().bytes(),
        fork: of_fork(mapping.fork()),
        purges: mapping.purges().into(),
    }
}

/// Makes the token of what C holds, of a provider with this page size.
///
/// # Safety
///
/// The caller in C made it by this library, from the same provider, and has not unmapped it.
pub(crate) unsafe fn token(dual: &hm_dual, page: PageSize) -> Result<DualMapping, Fault> {
    let view = |start| {
        let len = dual.len;
        pages_of(hm_range { start, len }, page)
    };
    let (rw, rx) = (view(dual.rw)?, view(dual.rx)?);
    let step = match dual.step {
        HM_STEP_MEMFD => DualStep::Memfd,
        HM_STEP_MEMFD_LARGE => DualStep::MemfdLarge,
        HM_STEP_ANON_SHM => DualStep::AnonShm,
        HM_STEP_ANON_SHM_LARGE => DualStep::AnonShmLarge,
        HM_STEP_REMAP_DUP => DualStep::RemapDup,
        HM_STEP_POSIX_SHM => DualStep::PosixShm,
        HM_STEP_DEV_SHM => DualStep::DevShm,
        HM_STEP_DIRECTORY => DualStep::Directory(0),
        _ => DualStep::Provider,
    };
    let own = PageSize::new(dual.page_size).filter(|own| own.bytes() >= page.bytes());
    let own = own.ok_or(invalid(c"no dual mapping"))?;
    if rw.overlaps(rx) || !own.is_aligned(dual.len) {
        return Err(invalid(c"no dual mapping"));
    }
    let fork = fork_of(dual.fork)?;
    // SAFETY: the two ranges are equally long and do not overlap, as just checked; that they show
    // the same pages, and that no other token of them is used, is this function's condition.
    let mapping = unsafe { DualMapping::from_parts(rw, rx, step, own, fork) };
    Ok(if dual.purges == 0 {
        mapping.without_purge()
    } else {
        mapping
    })
}

/// Reserves addresses: nothing else lands there, and every access faults. The guards of the request
/// lie within the range that is stored.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_reserve(
    from: *const hm_source,
    wanted: *const hm_request,
    range: *mut hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, (provider, _)) = (place!(range), source!(from));
        let wanted: hm_request = read!(wanted);
        // SAFETY: the caller in C promises that the name is null or a string.
        let request = unsafe { request(&wanted)? };
        to.write(range_of(provider.reserve(&request)?));
    })
}

/// Gives reserved pages memory, which reads zero.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_commit(
    from: *const hm_source,
    range: hm_range,
    access: hm_access,
    ceiling: hm_ceiling,
    wish: hm_page_wish,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, how) = (source!(from).0, commit(access, ceiling, wish)?);
        // SAFETY: the caller in C promises that it has reserved the pages, without memory.
        unsafe { provider.commit(pages_of(range, provider.page_size())?, how)? };
    })
}

/// Changes the access of pages that have memory. Where this fails in the middle, pages in front may
/// have the new access.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_protect(
    from: *const hm_source,
    range: hm_range,
    to: hm_access,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, to) = (source!(from).0, access(to)?);
        // SAFETY: the caller in C promises that the pages are its own, and have memory.
        unsafe { provider.protect(pages_of(range, provider.page_size())?, to)? };
    })
}

/// Gives the memory of pages back to the host and keeps the pages, which show what is stored
/// through `shown`, unless that is null.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_purge(
    from: *const hm_source,
    range: hm_range,
    shown: *mut hm_purged,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        // SAFETY: the caller in C promises that the pages are its own, have memory, and that their
        // contents are not needed.
        let purged = unsafe { provider.purge(pages_of(range, provider.page_size())?)? };
        if !shown.is_null() {
            place!(shown).write(purged_of(purged));
        }
    })
}

/// Takes the memory of pages back: they are reserved then.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_decommit(
    from: *const hm_source,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        // SAFETY: the caller in C promises that the pages are its own, and no other code uses them.
        unsafe { provider.decommit(pages_of(range, provider.page_size())?)? };
    })
}

/// Gives pages back, any part of what was reserved: whatever is mapped next may land there.
///
/// Thread-safe; safe in signal handlers without a region.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_pages_release(
    from: *const hm_source,
    range: hm_range,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        // SAFETY: the caller in C promises that the pages are its own, and no other code uses them.
        unsafe { provider.release(pages_of(range, provider.page_size())?)? };
    })
}

/// Maps new pages twice, by the first strategy that the host allows. They read zero.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_dual_map(
    from: *const hm_source,
    wanted: *const hm_dual_request,
    dual: *mut hm_dual,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, (provider, _)) = (growing!(dual), source!(from));
        let wanted: hm_dual_request = read!(wanted);
        let mut request = DualRequest::bytes(wanted.len);
        request.min_len = (wanted.min_len != 0).then_some(wanted.min_len);
        request.rw = Target::Find(placement(&wanted.rw)?);
        request.rx = Target::Find(placement(&wanted.rx)?);
        if wanted.large_pages != 0 {
            request.pages = PageWish::Large {
                bytes: wanted.large_pages,
                or_base: true,
            };
        }
        request.landing_pads = wanted.landing_pads != 0;
        request.fork = fork_of(wanted.fork)?;
        // SAFETY: the caller in C promises that it is null or a string.
        request.name = unsafe { name(wanted.name) };
        // SAFETY: no view goes into a range of the caller's.
        let mapping = unsafe { provider.map_dual(&request)? };
        to.write(of_dual(&mapping));
    })
}

/// Unmaps both views, which are not used any more. After an error both are still mapped, or the
/// writable one is reserved, and the call may be made again.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_dual_unmap(
    from: *const hm_source,
    dual: *mut hm_dual,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        let held: hm_dual = read!(dual);
        // SAFETY: the caller in C promises that it is its mapping, of this provider.
        let mapping = unsafe { token(&held, provider.page_size())? };
        // SAFETY: the caller in C promises that the mapping is its own, of this provider, and that
        // no other code uses either view.
        let unmapped = unsafe { provider.unmap_dual(mapping, Leave::Hole) };
        unmapped.map_err(|(_, error)| error)?;
        growing!(dual).write(hm_dual::NONE);
    })
}

/// Gives the pages of `len` bytes from `offset` back to the host. Nobody uses them before
/// `hm_dual_refill`; then they read zero.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_dual_purge(
    from: *const hm_source,
    dual: *const hm_dual,
    offset: usize,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        let held: hm_dual = read!(dual);
        // SAFETY: the caller in C promises that it is its mapping, of this provider.
        let mapping = unsafe { token(&held, provider.page_size())? };
        // SAFETY: the caller in C promises that the mapping is its own, of this provider, and that
        // no other code uses those pages.
        unsafe { provider.purge_dual(&mapping, offset, len)? };
    })
}

/// Makes sure that the pages of `len` bytes from `offset` have memory, after they were purged.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_dual_refill(
    from: *const hm_source,
    dual: *const hm_dual,
    offset: usize,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (provider, _) = source!(from);
        let held: hm_dual = read!(dual);
        // SAFETY: the caller in C promises that it is its mapping, of this provider.
        let mapping = unsafe { token(&held, provider.page_size())? };
        // SAFETY: the caller in C promises that the mapping is its own, of this provider.
        unsafe { provider.refill_dual(&mapping, offset, len)? };
    })
}

/// Has no thread of the process execute instructions that it fetched before. Returns
/// `HM_UNSUPPORTED` or `HM_DENIED` where the host cannot.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_sync_cores(error: *mut hm_error) -> hm_status {
    answer!(error, {
        crate::source::Source::OS.sync_cores()?;
    })
}
