//! Ranges of code that the program fills by itself.

use crate::{
    abi::{Grows, growing, place, read},
    jit::{HM_FORK_DETACH, barrier, fork_of, hm_barrier, hm_fork, hm_mapping, mapping, of_mapping},
    object::{self, Kind, List, Object, opened},
    region::RegionObject,
    source::{Source, hm_source, source},
    status::{Fault, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::{bytes, hm_page_wish, hm_placement, name, placement, wish},
};
use core::{
    cell::UnsafeCell,
    ffi::{c_char, c_void},
    ops::Range,
};
use hostmem::{
    jit::{CodeRange, CodeRangeConfig},
    provider::Fork,
};

/// One long range of executable memory, without an allocator: a program that throws its code away
/// all at once moves a pointer through it, from the bottom or from the top. Places in it are given
/// by their offset in bytes.
pub struct hm_code {
    _opaque: [u8; 0],
}

/// The configuration of a code range. Begin with `HM_CODE_CONFIG_INIT` and set at least `len`; in
/// every other field zero is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_code_config {
    /// The size of this struct.
    pub size: u32,
    /// How the range is mapped.
    pub mapping: hm_mapping,
    /// Where memory comes from; null for the host. It need not live longer than the call.
    pub source: *const hm_source,
    /// Bytes of code, up to 2 GiB, rounded up to pages. They get memory when they are written.
    pub len: usize,
    /// Where the executable view goes, its guards included.
    pub rx: hm_placement,
    /// Bytes before and behind the executable view that stay inaccessible, rounded up to pages.
    pub guard: usize,
    /// The pages wished for. Where the range is toggled, large ones are no more than advice.
    pub pages: hm_page_wish,
    /// What a forked child sees, but for `HM_FORK_DETACH`, which is zero and stands for
    /// `HM_FORK_LOSES_RW`: a child that wants to write code makes a range of its own.
    pub fork: hm_fork,
    /// Zero.
    pub reserved: u32,
    /// A name for the process map, or null for this library's. It must stay as long as the object.
    pub name: *const c_char,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_code_config {
    const FIRST: usize = 96;
}

const _: () = assert!(size_of::<hm_code_config>() == 96);

/// What a code range is. Begin with `HM_CODE_INFO_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_code_info {
    /// The size of this struct.
    pub size: u32,
    /// How it is mapped.
    pub mapping: hm_mapping,
    /// Where code is executed.
    pub rx: *mut c_void,
    /// Where code is written, between `hm_code_begin_write` and `hm_code_end_write`.
    pub rw: *mut c_void,
    /// The length in bytes.
    pub len: usize,
    /// The size of the pages got, in bytes.
    pub page_size: usize,
    /// Whether other cores are made to see code that replaces code: 0 or 1.
    pub syncs_cores: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_code_info {
    const FIRST: usize = 48;
}

const _: () = assert!(size_of::<hm_code_info>() == 48);

/// What is behind a handle.
pub(crate) struct Code {
    range: UnsafeCell<CodeRange<Source>>,
    region: Option<&'static Object<RegionObject>>,
}

// SAFETY: `hm_code_shrink` alone changes the range, and programs in C make no other call on it
// meanwhile.
unsafe impl Sync for Code {}

impl Kind for Code {
    const MAGIC: u32 = 0x686d_6331;

    fn list() -> &'static List<Self> {
        static ALL: List<Code> = List::new();
        &ALL
    }
}

impl Code {
    #[inline]
    pub(crate) fn range(&self) -> &CodeRange<Source> {
        // SAFETY: it is changed by `hm_code_shrink` alone, during which the program makes no other
        // call on it.
        unsafe { &*self.range.get() }
    }
}

/// Finds the code range of a handle from C.
macro_rules! code {
    ($handle:expr) => {
        opened!(Code, $handle).1
    };
}

fn configuration(from: &hm_code_config) -> Result<CodeRangeConfig, Fault> {
    let fork = match from.fork {
        HM_FORK_DETACH => Fork::ChildLosesRw,
        fork => fork_of(fork)?,
    };
    let config = CodeRangeConfig::new(from.len)
        .mapping(mapping(from.mapping)?)
        .placement(placement(&from.rx)?)
        .guard(from.guard)
        .pages(wish(from.pages)?)
        .fork(fork);
    config.check()?;
    // SAFETY: the caller in C promises that the name stays as long as the object.
    match unsafe { name(from.name) } {
        Some(name) => Ok(config.name(name)),
        None => Ok(config),
    }
}

const UNKNOWN: Fault = Fault::Plain(HM_UNKNOWN_POINTER, c"an address outside of the code range");

/// Returns the offsets from `offset` on.
fn part(offset: usize, len: usize) -> Result<Range<usize>, Fault> {
    let end = offset.checked_add(len);
    Ok(offset..end.ok_or(invalid(c"a part that ends beyond all addresses"))?)
}

/// Makes a code range.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_create(
    config: *const hm_code_config,
    code: *mut *mut hm_code,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(code);
        let from: hm_code_config = read!(config);
        let (provider, region) = source!(from.source);
        let config = configuration(&from)?;
        let made = object::open(|| {
            let range = UnsafeCell::new(CodeRange::on(provider, config)?);
            Ok(Code { range, region })
        })?;
        if let Some(region) = region {
            region.enter();
        }
        to.write(made.cast().as_ptr());
    })
}

/// Unmaps the range and closes the object. Nothing of it may be executed, or used in another call,
/// any more.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_close(code: *mut hm_code, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let end = |code: Code| {
            let region = code.region;
            drop(code);
            if let Some(region) = region {
                region.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Code, _>(code, false, end)? };
    })
}

/// Stores where the range lies, and how it is mapped.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_get_info(
    code: *mut hm_code,
    info: *mut hm_code_info,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, range) = (growing!(info), code!(code).range());
        to.write(hm_code_info {
            size: 0,
            mapping: of_mapping(range.mapping()),
            rx: range.rx().as_ptr().cast(),
            rw: range.rw().as_ptr().cast(),
            len: range.len_bytes(),
            page_size: range.page_size().bytes(),
            syncs_cores: u32::from(range.syncs_cores()),
            reserved: 0,
        });
    })
}

/// Stores the offset of an address in the executable or the writable view. Returns
/// `HM_UNKNOWN_POINTER` for one that lies in neither.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_offset(
    code: *mut hm_code,
    address: *const c_void,
    offset: *mut usize,
) -> hm_status {
    answer!(core::ptr::null_mut(), {
        let (to, range) = (place!(offset), code!(code).range());
        let found = range.offset_of(address.addr());
        to.write(found.ok_or(UNKNOWN)?);
    })
}

/// Makes `len` bytes from `offset` writable, and stores where they are written. Costs no system
/// call unless the range is toggled, or the part was purged. A writer may leave by `longjmp`: pages
/// that are toggled stay writable until the next begin or end of a write.
///
/// Thread-safe, and safe in signal handlers. Where the range is toggled, one thread at a time is
/// between this call and `hm_code_end_write`, and no thread executes code in those pages, or in
/// those that the last writer left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_begin_write(
    code: *mut hm_code,
    offset: usize,
    len: usize,
    rw: *mut *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, range) = (place!(rw), code!(code).range());
        // SAFETY: the caller in C promises to be the one writer where the range is toggled, and
        // that no thread executes code in those pages.
        let start = unsafe { range.begin_write(part(offset, len)?) }?;
        to.write(start.as_ptr().cast());
    })
}

/// Makes what `hm_code_begin_write` made writable executable again. It publishes nothing.
///
/// Thread-safe, and safe in signal handlers; as `hm_code_begin_write` where the range is toggled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_end_write(
    code: *mut hm_code,
    offset: usize,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let range = code!(code).range();
        // SAFETY: the caller in C promises to be the one writer where the range is toggled.
        unsafe { range.end_write(part(offset, len)?) }?;
    })
}

/// Makes `len` bytes from `offset`, which were written, visible to instruction fetches. Bytes that
/// were published before may have been fetched by other cores: the barrier says what is done about
/// that.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_publish(
    code: *mut hm_code,
    offset: usize,
    len: usize,
    kind: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let range = code!(code).range();
        range.publish(part(offset, len)?, barrier(kind)?)?;
    })
}

/// Writes `len` bytes at `offset` and publishes them: begin, copy, end and publish in one call. The
/// bytes lie outside of the range.
///
/// Thread-safe, and safe in signal handlers; as `hm_code_begin_write` where the range is toggled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_write(
    code: *mut hm_code,
    offset: usize,
    from: *const c_void,
    len: usize,
    kind: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let range = code!(code).range();
        let (bytes, kind, part) = (bytes(from, len)?, barrier(kind)?, part(offset, len)?);
        // SAFETY: the caller in C promises to be the one writer where the range is toggled, that no
        // thread executes code in those pages, and that the bytes lie outside of the range.
        unsafe { range.write_at(part.start, bytes, kind) }?;
    })
}

/// Makes other cores see all code whose barrier was deferred. Costs nothing where none was.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_sync(code: *mut hm_code, error: *mut hm_error) -> hm_status {
    answer!(error, {
        code!(code).range().sync()?;
    })
}

/// Takes the whole range for one that no code was published in, with one barrier: to begin anew
/// after all code was thrown away. From now on no thread executes code that was published before.
///
/// Not thread-safe beside calls that publish; safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_recycle(code: *mut hm_code, error: *mut hm_error) -> hm_status {
    answer!(error, {
        code!(code).range().recycle()?;
    })
}

/// Gives the memory of whole pages back to the host; their addresses stay. No thread uses them
/// until they were written again, after an `hm_code_begin_write`.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_purge(
    code: *mut hm_code,
    offset: usize,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let range = code!(code).range();
        // SAFETY: the caller in C promises that no thread uses the pages until they are written.
        unsafe { range.purge(part(offset, len)?) }.map_err(Fault::Host)?;
    })
}

/// Gives memory and addresses of both ends of the range back to the host, but for `len` bytes from
/// `offset`, which are whole pages. Offsets count from `offset` afterwards. No thread uses what
/// goes.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_code_shrink(
    code: *mut hm_code,
    offset: usize,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let code = code!(code);
        let kept = part(offset, len)?;
        // SAFETY: the caller in C promises that no other call on this object is made meanwhile.
        let range = unsafe { &mut *code.range.get() };
        // SAFETY: the caller in C promises that no thread uses what goes.
        unsafe { range.shrink(kept) }.map_err(Fault::Host)?;
    })
}
