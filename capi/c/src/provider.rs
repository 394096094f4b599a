//! Providers of the program's own, as a table of functions.

use crate::{
    abi::Grows,
    pages::{hm_dual, hm_dual_request, of_dual, token},
    region::{HM_PURGED_KEPT, HM_PURGED_ZERO, HM_PURGED_ZERO_OR_OLD, hm_purged},
    status::{
        ALL, Fault, HM_BUSY, HM_DENIED, HM_EXISTS, HM_INVALID_ARGUMENT, HM_OK, HM_OUT_OF_MEMORY,
        HM_OUT_OF_RANGE, HM_RANGE_LOST, HM_SYSTEM_ERROR, HM_TOO_LARGE, HM_UNSUPPORTED, invalid,
    },
    types::{
        HM_PLACE_ANYWHERE, HM_PLACE_EXACT, HM_PLACE_HINT, HM_PLACE_NEAR, access_of, ceiling_of,
        hm_access, hm_ceiling, hm_page_wish, hm_placement, hm_range, hm_request, range_of, wish_of,
    },
};
use core::{
    ffi::c_void,
    ptr::{NonNull, null, null_mut},
};
use hostmem::{
    page::{Access, PageRange, PageSize},
    provider::{
        Capabilities, Commit, CoreSync, DualError, DualMapProvider, DualMapping, DualRequest, Dump,
        Error, ErrorKind, Leave, PageProvider, PageWish, Place, Placement, Purged, Request, Target,
    },
};

/// What a provider can do; numbers are added up.
pub type hm_capability = u32;
/// `protect` can take a page from writable to executable and back, where its ceiling says so.
pub const HM_CAN_TOGGLE_EXEC: hm_capability = 1;
/// Memory can be writable and executable at once.
pub const HM_CAN_READ_WRITE_EXEC: hm_capability = 2;
/// Memory is executable only where that was asked for.
pub const HM_CAN_KEEP_FROM_EXEC: hm_capability = 4;

/// A provider of memory of the program's own: functions that are called with `context` first, from
/// any thread, by several at the same time; they return an `hm_status`. They must not unwind, nor
/// call what stands on the provider. Those that fail change nothing. Begin with
/// `HM_PROVIDER_INIT`; the table stays as long as what is made on it.
///
/// Pages are free, reserved or committed. `reserve` makes free ones reserved, `commit` reserved
/// ones committed, `decommit` either reserved, and `release` either free. Each may be asked of
/// parts of what an earlier call made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_provider {
    /// The size of this struct.
    pub size: u32,
    /// What the provider can do.
    pub capabilities: hm_capability,
    /// The first argument of all functions.
    pub context: *mut c_void,
    /// The size of pages, a power of two from 4096 to 65536: the unit of all ranges.
    pub page_size: usize,
    /// Finds free pages, of which no other code knows. The range is as long as usable bytes and
    /// guards, each rounded up to pages; less, by no more than `min_len` allows, where nothing is
    /// longer. The first byte behind the leading guard is a multiple of the alignment. `HM_EXISTS`
    /// where an exact place is in use, `HM_OUT_OF_RANGE` where it lies outside the window,
    /// `HM_OUT_OF_MEMORY` where nothing fits.
    pub reserve: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            wanted: *const hm_request,
            range: *mut hm_range,
        ) -> u32,
    >,
    /// Gives pages memory that reads zero.
    pub commit: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            range: hm_range,
            access: hm_access,
            ceiling: hm_ceiling,
            wish: hm_page_wish,
        ) -> u32,
    >,
    /// Changes the access of committed pages.
    pub protect: Option<
        unsafe extern "C" fn(context: *mut c_void, range: hm_range, access: hm_access) -> u32,
    >,
    /// Takes the memory of pages away, which are inaccessible then.
    pub decommit: Option<unsafe extern "C" fn(context: *mut c_void, range: hm_range) -> u32>,
    /// Makes pages free.
    pub release: Option<unsafe extern "C" fn(context: *mut c_void, range: hm_range) -> u32>,
    /// Gives the memory of committed pages back and keeps them; stores what they show then. Null
    /// where the provider cannot.
    pub purge: Option<
        unsafe extern "C" fn(context: *mut c_void, range: hm_range, shown: *mut hm_purged) -> u32,
    >,
    /// Maps pages twice, zeroed: fills in all of `dual` but its size, with `HM_STEP_OTHER`. Null
    /// where the provider cannot; then executable memory needs another mapping than
    /// `HM_MAPPING_DUAL`.
    pub map_dual: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            wanted: *const hm_dual_request,
            dual: *mut hm_dual,
        ) -> u32,
    >,
    /// Unmaps both views. Not null where `map_dual` is not.
    pub unmap_dual: Option<unsafe extern "C" fn(context: *mut c_void, dual: *const hm_dual) -> u32>,
    /// Has no thread of the process execute instructions that it fetched before. Null where the
    /// provider cannot.
    pub sync_cores: Option<unsafe extern "C" fn(context: *mut c_void) -> u32>,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_provider {
    const FIRST: usize = 96;
}

const _: () = assert!(size_of::<hm_provider>() == 96);

/// A provider of C, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    table: &'static hm_provider,
    page: PageSize,
}

// SAFETY: the functions may be called from any thread, by several at the same time, with this
// context, by the promise of whoever made the table.
unsafe impl Send for Foreign {}
// SAFETY: the functions may be called by several threads at the same time, with this context: the
// header asks that of whoever makes the table.
unsafe impl Sync for Foreign {}

impl Foreign {
    /// Checks a table.
    ///
    /// # Safety
    ///
    /// It is null, or as long as its first field says, and stays so as long as the provider is
    /// used; its functions do what the header says of them.
    pub(crate) unsafe fn new(table: *const hm_provider) -> Result<Self, Fault> {
        // SAFETY: null, or as long as its first field says, by this function's condition.
        let read = unsafe { crate::abi::read_struct(table)? };
        let needed = read.reserve.is_some()
            && read.commit.is_some()
            && read.protect.is_some()
            && read.decommit.is_some()
            && read.release.is_some()
            && read.map_dual.is_some() == read.unmap_dual.is_some();
        let page = PageSize::new(read.page_size);
        let page = page.filter(|page| (4 << 10..=64 << 10).contains(&page.bytes()));
        let page = page.ok_or(invalid(c"a provider with a page size that is none"))?;
        if !needed {
            return Err(invalid(c"a provider without a function that it needs"));
        }
        // SAFETY: not null, as a table of zeros lacks functions, and as long as the first version,
        // as read_struct has seen; it stays as long as the provider is used, by this function's
        // condition.
        let table = unsafe { &*table };
        Ok(Self { table, page })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn table(self) -> &'static hm_provider {
        self.table
    }

    fn range(&self, from: hm_range, least: usize, most: usize) -> Result<PageRange, Error> {
        let start = NonNull::new(from.start.cast::<u8>());
        let range = start.and_then(|start| PageRange::new(start, from.len, self.page));
        let range = range.filter(|range| (least..=most).contains(&range.len_bytes()));
        range.ok_or(ErrorKind::Other.into())
    }
}

/// Makes an error of what a function of C returned: any number.
fn answered(status: u32) -> Result<(), Error> {
    if status == HM_OK as u32 {
        return Ok(());
    }
    let known = ALL.into_iter().find(|known| *known as u32 == status);
    let kind = match known.unwrap_or(HM_SYSTEM_ERROR) {
        HM_OUT_OF_MEMORY | HM_TOO_LARGE => ErrorKind::Exhausted,
        HM_EXISTS | HM_BUSY => ErrorKind::Taken,
        HM_OUT_OF_RANGE => ErrorKind::OutsideRange,
        HM_DENIED => ErrorKind::Denied,
        HM_UNSUPPORTED => ErrorKind::Unsupported,
        HM_INVALID_ARGUMENT => ErrorKind::InvalidArgument,
        HM_RANGE_LOST => ErrorKind::RangeLost,
        _ => ErrorKind::Other,
    };
    Err(kind.into())
}

/// Calls a function of a table; one that is not there is not supported.
macro_rules! call {
    ($self:ident.$name:ident($($argument:expr),*)) => {{
        let function = $self.table.$name.ok_or(Error::of(ErrorKind::Unsupported))?;
        // SAFETY: whoever made the table promises that it may be called with its context.
        answered(unsafe { function($self.table.context, $($argument),*) })
    }};
}

fn placement_of(from: &Placement) -> hm_placement {
    let (place, at) = match from.place {
        Place::Near(at) => (HM_PLACE_NEAR, at),
        Place::Hint(at) => (HM_PLACE_HINT, at),
        Place::Exact(at) => (HM_PLACE_EXACT, at),
        _ => (HM_PLACE_ANYWHERE, 0),
    };
    hm_placement {
        first: from.within.start(),
        last: from.within.last(),
        align: from.align,
        at,
        place,
        reserved: 0,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "sizes of structs fit in 32 bits"
)]
const fn size_of_struct<T>() -> u32 {
    size_of::<T>() as u32
}

// SAFETY: the functions of the table promise what the trait asks for, as their comments say; what
// they return is checked as far as it can be.
unsafe impl PageProvider for Foreign {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn capabilities(&self) -> Capabilities {
        let has = |bit: hm_capability| self.table.capabilities & bit != 0;
        let mut all = Capabilities::empty();
        all.set(Capabilities::TOGGLE_EXEC, has(HM_CAN_TOGGLE_EXEC));
        all.set(Capabilities::RWX, has(HM_CAN_READ_WRITE_EXEC));
        all.set(
            Capabilities::EXEC_ONLY_WHERE_ASKED,
            has(HM_CAN_KEEP_FROM_EXEC),
        );
        all.set(Capabilities::DUAL, self.table.map_dual.is_some());
        all.set(Capabilities::CORE_SYNC, self.table.sync_cores.is_some());
        all
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.page)?;
        let wanted = hm_request {
            size: size_of_struct::<hm_request>(),
            exclude_from_core: (request.dump == Dump::Excluded).into(),
            len: plan.body(),
            min_len: request.min_len.unwrap_or(0),
            placement: placement_of(&request.placement),
            guard_before: plan.before(),
            guard_after: plan.after(),
            name: request.name.map_or(null(), core::ffi::CStr::as_ptr),
        };
        let mut got = hm_range {
            start: null_mut(),
            len: 0,
        };
        call!(self.reserve(&raw const wanted, &raw mut got))?;
        self.range(got, plan.min_total(), plan.total())
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // Large pages of its own a provider has not.
        let wish = match how.pages {
            PageWish::Large { or_base: true, .. } => PageWish::Base,
            PageWish::Large { or_base: false, .. } => return Err(ErrorKind::Unsupported.into()),
            wish => wish,
        };
        let (access, ceiling) = (access_of(how.access), ceiling_of(how.ceiling));
        call!(self.commit(range_of(range), access, ceiling, wish_of(wish)))?;
        Ok(self.page)
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        call!(self.protect(range_of(range), access_of(access)))
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        call!(self.decommit(range_of(range)))
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        if self.table.purge.is_none() {
            return Ok(Purged::Kept);
        }
        let mut shown = HM_PURGED_KEPT;
        call!(self.purge(range_of(range), &raw mut shown))?;
        match shown {
            HM_PURGED_ZERO => Ok(Purged::Zero),
            HM_PURGED_ZERO_OR_OLD => Ok(Purged::ZeroOrOld),
            _ => Ok(Purged::Kept),
        }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        call!(self.release(range_of(range)))
    }
}

// SAFETY: the header asks of the table's functions what the trait promises of views; what they
// return is checked as far as it can be.
unsafe impl DualMapProvider for Foreign {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        request.validate(self.page)?;
        let place = |target: &Target| match target {
            Target::Find(placement) => Ok(placement_of(placement)),
            // A provider of C has no call that replaces what is reserved.
            Target::Into(_) => Err(Error::of(ErrorKind::Unsupported)),
        };
        let wanted = hm_dual_request {
            size: size_of_struct::<hm_dual_request>(),
            fork: crate::jit::of_fork(request.fork),
            len: request.len,
            min_len: request.min_len.unwrap_or(0),
            rw: place(&request.rw)?,
            rx: place(&request.rx)?,
            large_pages: 0,
            landing_pads: request.landing_pads.into(),
            reserved: 0,
            name: request.name.map_or(null(), core::ffi::CStr::as_ptr),
        };
        let mut got = hm_dual::NONE;
        got.size = size_of_struct::<hm_dual>();
        let mut done =
            || -> Result<(), Error> { call!(self.map_dual(&raw const wanted, &raw mut got)) };
        done()?;
        got.fork = wanted.fork;
        got.page_size = self.page.bytes();
        got.purges = 0;
        let least = request.min_len.unwrap_or(request.len);
        if !(least..=request.len).contains(&got.len) {
            return Err(DualError::of(ErrorKind::Other));
        }
        // SAFETY: the function of the table has just made it, and no other code has it.
        let mapping = unsafe { token(&got, self.page) };
        mapping.map_err(|_| DualError::of(ErrorKind::Other))
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        if leave != Leave::Hole {
            return Err((mapping, ErrorKind::Unsupported.into()));
        }
        let mut dual = of_dual(&mapping);
        dual.size = size_of_struct::<hm_dual>();
        let done = || -> Result<(), Error> { call!(self.unmap_dual(&raw const dual)) };
        done().map_err(|error| (mapping, error))
    }

    unsafe fn purge_dual(&self, _: &DualMapping, _: usize, _: usize) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }

    unsafe fn refill_dual(&self, _: &DualMapping, _: usize, _: usize) -> Result<(), Error> {
        // Nothing was purged.
        Ok(())
    }

    unsafe fn fork_child_dual(&self, _: &DualMapping) -> Result<(), Error> {
        // A provider keeps the addresses of views that a child loses from others.
        Ok(())
    }
}

// SAFETY: the header asks of `sync_cores` what the trait promises: no thread executes what it
// fetched before.
unsafe impl CoreSync for Foreign {
    fn sync_cores(&self) -> Result<(), Error> {
        call!(self.sync_cores())
    }
}
