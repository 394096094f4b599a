//! Addresses, accesses and requests, as C has them.

use crate::{
    abi::{Grows, array},
    status::{Fault, invalid},
};
use core::ffi::{CStr, c_char, c_void};
use core::ptr::NonNull;
use hostmem::{
    page::{Access, AddressRange, Ceiling, PageRange, PageSize, RwxOptIn},
    provider::{Commit, Dump, Guards, PageWish, Place, Placement, Request},
};

/// A range of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_range {
    /// Where it starts.
    pub start: *mut c_void,
    /// Its length in bytes.
    pub len: usize,
}

/// What may be done with a page.
pub type hm_access = u32;
/// Nothing: every access faults.
pub const HM_ACCESS_NONE: hm_access = 0;
/// Reading.
pub const HM_ACCESS_READ: hm_access = 1;
/// Reading and writing.
pub const HM_ACCESS_READ_WRITE: hm_access = 2;
/// Reading and executing.
pub const HM_ACCESS_READ_EXEC: hm_access = 3;
/// Everything at once. Whoever can write such memory can run what was written, and hardened hosts
/// refuse it.
pub const HM_ACCESS_READ_WRITE_EXEC: hm_access = 4;

/// The most that pages may be given by a later protect, of which some hosts want to know when they
/// are committed.
pub type hm_ceiling = u32;
/// As the access says now: reading and writing for memory that cannot be executed, reading and
/// executing for memory that can.
pub const HM_CEILING_DEFAULT: hm_ceiling = 0;
/// Reading.
pub const HM_CEILING_READ: hm_ceiling = 1;
/// Reading and writing.
pub const HM_CEILING_READ_WRITE: hm_ceiling = 2;
/// Reading and executing.
pub const HM_CEILING_READ_EXEC: hm_ceiling = 3;
/// Writing or executing, never both at once.
pub const HM_CEILING_WRITE_XOR_EXEC: hm_ceiling = 4;
/// Everything at once.
pub const HM_CEILING_READ_WRITE_EXEC: hm_ceiling = 5;

/// Which pages are wished for. A number from 4096 on is a size of large pages in bytes, which the
/// probe lists: memory is refused where there are none.
pub type hm_page_wish = usize;
/// The host's pages.
pub const HM_PAGES_BASE: hm_page_wish = 0;
/// The host's pages, and advice that large ones are welcome.
pub const HM_PAGES_TRANSPARENT: hm_page_wish = 1;
/// The host's pages, and advice that large ones are not welcome.
pub const HM_PAGES_NEVER_LARGE: hm_page_wish = 2;

/// Which place is wanted.
pub type hm_place = u32;
/// Any.
pub const HM_PLACE_ANYWHERE: hm_place = 0;
/// The free place closest to the address `at`.
pub const HM_PLACE_NEAR: hm_place = 1;
/// The address `at` if it is free, else any.
pub const HM_PLACE_HINT: hm_place = 2;
/// The address `at` or none. What is there is never replaced.
pub const HM_PLACE_EXACT: hm_place = 3;
/// The lowest free place of the window. Executable memory that is placed so is handed out lowest
/// first.
pub const HM_PLACE_LOWEST: hm_place = 4;

/// Where something may lie. All zeros: anywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_placement {
    /// The lowest address of the window.
    pub first: usize,
    /// The highest address of the window; 0 for no bound.
    pub last: usize,
    /// The alignment in bytes, a power of two; 0 for pages, or whatever is the unit.
    pub align: usize,
    /// The address that `place` means.
    pub at: usize,
    /// Which place.
    pub place: hm_place,
    /// Zero.
    pub reserved: u32,
}

/// A request for addresses. Begin with `HM_REQUEST_INIT`, and set at least `len`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_request {
    /// The size of this struct.
    pub size: u32,
    /// Not zero: the range is left out of core files.
    pub exclude_from_core: u32,
    /// Usable bytes, rounded up to pages.
    pub len: usize,
    /// As few usable bytes will do where no hole is longer; 0 for no fewer than `len`.
    pub min_len: usize,
    /// Where.
    pub placement: hm_placement,
    /// Bytes before the usable ones that stay inaccessible, rounded up to pages.
    pub guard_before: usize,
    /// Bytes behind the usable ones that stay inaccessible, rounded up to pages.
    pub guard_after: usize,
    /// A name for the process map, up to 79 bytes, or null.
    pub name: *const c_char,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_request {
    const FIRST: usize = 88;
}

const _: () = assert!(size_of::<hm_request>() == 88);

/// Makes a range of whole pages of one from C.
pub(crate) fn pages_of(range: hm_range, page: PageSize) -> Result<PageRange, Fault> {
    let start = NonNull::new(range.start.cast::<u8>());
    let pages = start.and_then(|start| PageRange::new(start, range.len, page));
    pages.ok_or(invalid(c"a range that is null, empty or no whole pages"))
}

pub(crate) fn range_of(pages: PageRange) -> hm_range {
    hm_range {
        start: pages.start().as_ptr().cast(),
        len: pages.len_bytes(),
    }
}

pub(crate) fn access(access: hm_access) -> Result<Access, Fault> {
    Ok(match access {
        HM_ACCESS_NONE => Access::None,
        HM_ACCESS_READ => Access::Read,
        HM_ACCESS_READ_WRITE => Access::ReadWrite,
        HM_ACCESS_READ_EXEC => Access::ReadExec,
        // SAFETY: the caller in C has asked for it by a name that says so.
        HM_ACCESS_READ_WRITE_EXEC => Access::ReadWriteExec(unsafe { RwxOptIn::accept() }),
        _ => return Err(invalid(c"no such access")),
    })
}

pub(crate) const fn access_of(access: Access) -> hm_access {
    match access {
        Access::Read => HM_ACCESS_READ,
        Access::ReadWrite => HM_ACCESS_READ_WRITE,
        Access::ReadExec => HM_ACCESS_READ_EXEC,
        Access::ReadWriteExec(_) => HM_ACCESS_READ_WRITE_EXEC,
        _ => HM_ACCESS_NONE,
    }
}

pub(crate) const fn ceiling_of(ceiling: Ceiling) -> hm_ceiling {
    match ceiling {
        Ceiling::Read => HM_CEILING_READ,
        Ceiling::ReadExec => HM_CEILING_READ_EXEC,
        Ceiling::WriteXorExec => HM_CEILING_WRITE_XOR_EXEC,
        Ceiling::ReadWriteExec(_) => HM_CEILING_READ_WRITE_EXEC,
        _ => HM_CEILING_READ_WRITE,
    }
}

pub(crate) const fn wish_of(wish: PageWish) -> hm_page_wish {
    match wish {
        PageWish::Base => HM_PAGES_BASE,
        PageWish::Transparent => HM_PAGES_TRANSPARENT,
        PageWish::Never => HM_PAGES_NEVER_LARGE,
        PageWish::Large { bytes, .. } => bytes,
    }
}

fn ceiling(ceiling: hm_ceiling, access: Access) -> Result<Ceiling, Fault> {
    let ceiling = match ceiling {
        HM_CEILING_DEFAULT => match access {
            Access::ReadExec => Ceiling::ReadExec,
            Access::ReadWriteExec(consent) => Ceiling::ReadWriteExec(consent),
            _ => Ceiling::ReadWrite,
        },
        HM_CEILING_READ => Ceiling::Read,
        HM_CEILING_READ_WRITE => Ceiling::ReadWrite,
        HM_CEILING_READ_EXEC => Ceiling::ReadExec,
        HM_CEILING_WRITE_XOR_EXEC => Ceiling::WriteXorExec,
        // SAFETY: the caller in C has asked for it by a name that says so.
        HM_CEILING_READ_WRITE_EXEC => Ceiling::ReadWriteExec(unsafe { RwxOptIn::accept() }),
        _ => return Err(invalid(c"no such ceiling")),
    };
    if ceiling.allows(access) {
        Ok(ceiling)
    } else {
        Err(invalid(c"the access is above the ceiling"))
    }
}

pub(crate) fn wish(wish: hm_page_wish) -> Result<PageWish, Fault> {
    Ok(match wish {
        HM_PAGES_BASE => PageWish::Base,
        HM_PAGES_TRANSPARENT => PageWish::Transparent,
        HM_PAGES_NEVER_LARGE => PageWish::Never,
        bytes if bytes >= 4096 && bytes.is_power_of_two() => PageWish::Large {
            bytes,
            or_base: false,
        },
        _ => return Err(invalid(c"no such size of pages")),
    })
}

/// Makes what a commit is to be like of what C says.
pub(crate) fn commit(
    now: hm_access,
    most: hm_ceiling,
    pages: hm_page_wish,
) -> Result<Commit, Fault> {
    let access = access(now)?;
    Ok(Commit {
        access,
        ceiling: ceiling(most, access)?,
        pages: wish(pages)?,
    })
}

/// Makes a window of its first and last address, of which the last may be 0 for no bound.
pub(crate) fn window(first: usize, last: usize) -> Result<AddressRange, Fault> {
    let last = if last == 0 { usize::MAX } else { last };
    AddressRange::new(first, last).ok_or(invalid(c"a window that ends before it starts"))
}

pub(crate) fn placement(from: &hm_placement) -> Result<Placement, Fault> {
    let within = window(from.first, from.last)?;
    let place = match from.place {
        HM_PLACE_ANYWHERE => Place::Anywhere,
        HM_PLACE_NEAR => Place::Near(from.at),
        HM_PLACE_HINT => Place::Hint(from.at),
        HM_PLACE_EXACT => Place::Exact(from.at),
        HM_PLACE_LOWEST => Place::Near(within.start()),
        _ => return Err(invalid(c"no such place")),
    };
    Ok(Placement {
        align: from.align.max(1),
        within,
        place,
    })
}

/// Reads a name from C, which may be null.
///
/// # Safety
///
/// It is null, or a string that does not change as long as the name is used.
pub(crate) unsafe fn name<'a>(name: *const c_char) -> Option<&'a CStr> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null; a string that does not change as long as the name is used, by this
    // function's condition.
    Some(unsafe { CStr::from_ptr(name) })
}

/// Makes a request of one from C.
///
/// # Safety
///
/// Its name is null, or a string that does not change as long as the request is used.
pub(crate) unsafe fn request<'a>(from: &hm_request) -> Result<Request<'a>, Fault> {
    Ok(Request {
        len: from.len,
        min_len: (from.min_len != 0).then_some(from.min_len),
        placement: placement(&from.placement)?,
        guards: Guards {
            before: from.guard_before,
            after: from.guard_after,
        },
        dump: if from.exclude_from_core != 0 {
            Dump::Excluded
        } else {
            Dump::Default
        },
        // SAFETY: null, or a string that does not change as long as the request is used, by this
        // function's condition.
        name: unsafe { name(from.name) },
    })
}

/// Reads bytes from C.
pub(crate) fn bytes<'a>(from: *const c_void, len: usize) -> Result<&'a [u8], Fault> {
    Ok(array!(from.cast::<u8>(), len))
}

/// Returns a pointer to an address that a provider has told of.
pub(crate) fn pointer(addr: usize) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(addr)
}
