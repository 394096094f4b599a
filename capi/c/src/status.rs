//! The status that calls return, and the details of an error where they are asked for. `fault` has
//! why a call failed, and how C is told.

mod fault;

pub(crate) use fault::{Fault, invalid};

use crate::abi::Grows;
use core::ffi::{CStr, c_char};
use hostmem::provider::DualStep;

/// What a call returns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum hm_status {
    /// It did what it was asked for.
    HM_OK = 0,
    /// An argument that no host could make sense of: null, misaligned, zero, or a setting out of
    /// its range, which the `setting` of an `hm_error` names.
    HM_INVALID_ARGUMENT = 1,
    /// No memory, addresses, descriptors or mappings are left, or a configured limit is reached.
    HM_OUT_OF_MEMORY = 2,
    /// A size or an alignment larger than anything there is.
    HM_TOO_LARGE = 3,
    /// The address is not of this object, or nothing live is there: it was given back already.
    HM_UNKNOWN_POINTER = 4,
    /// The place asked for is in use.
    HM_EXISTS = 5,
    /// The host's policy refuses.
    HM_DENIED = 6,
    /// The host, the provider, the configuration or this version of the library does not have it.
    HM_UNSUPPORTED = 7,
    /// The place asked for lies outside of the range, the span or the object.
    HM_OUT_OF_RANGE = 8,
    /// Something else has to end first: an object that others still use, a queue that is full.
    HM_BUSY = 9,
    /// The call failed, and the range that it was given now belongs to somebody else.
    HM_RANGE_LOST = 10,
    /// Memory was written by a user that did not own it; found by a hardened heap.
    HM_CORRUPT = 11,
    /// The host said something else; the `system_error` of an `hm_error` is its number.
    HM_SYSTEM_ERROR = 12,
}

pub use hm_status::{
    HM_BUSY, HM_CORRUPT, HM_DENIED, HM_EXISTS, HM_INVALID_ARGUMENT, HM_OK, HM_OUT_OF_MEMORY,
    HM_OUT_OF_RANGE, HM_RANGE_LOST, HM_SYSTEM_ERROR, HM_TOO_LARGE, HM_UNKNOWN_POINTER,
    HM_UNSUPPORTED,
};

/// A strategy for dual mappings.
pub type hm_step = u32;
/// None.
pub const HM_STEP_NONE: hm_step = 0;
/// `memfd_create`.
pub const HM_STEP_MEMFD: hm_step = 1;
/// `memfd_create` with large pages.
pub const HM_STEP_MEMFD_LARGE: hm_step = 2;
/// An anonymous object of shared memory.
pub const HM_STEP_ANON_SHM: hm_step = 3;
/// An anonymous object of shared memory, of large pages.
pub const HM_STEP_ANON_SHM_LARGE: hm_step = 4;
/// A duplicate of a mapping.
pub const HM_STEP_REMAP_DUP: hm_step = 5;
/// A named object of shared memory, unlinked at once.
pub const HM_STEP_POSIX_SHM: hm_step = 6;
/// An unlinked file in `/dev/shm`.
pub const HM_STEP_DEV_SHM: hm_step = 7;
/// An unlinked file in another directory.
pub const HM_STEP_DIRECTORY: hm_step = 8;
/// Another way, that of a provider of the program's own.
pub const HM_STEP_OTHER: hm_step = 9;

pub(crate) const fn step_of(step: DualStep) -> hm_step {
    match step {
        DualStep::Memfd => HM_STEP_MEMFD,
        DualStep::MemfdLarge => HM_STEP_MEMFD_LARGE,
        DualStep::AnonShm => HM_STEP_ANON_SHM,
        DualStep::AnonShmLarge => HM_STEP_ANON_SHM_LARGE,
        DualStep::RemapDup => HM_STEP_REMAP_DUP,
        DualStep::PosixShm => HM_STEP_POSIX_SHM,
        DualStep::DevShm => HM_STEP_DEV_SHM,
        DualStep::Directory(_) => HM_STEP_DIRECTORY,
        _ => HM_STEP_OTHER,
    }
}

/// The details of an error. A call that fails stores them through its last argument, unless that
/// is null; a call that succeeds leaves it alone. Begin with `HM_ERROR_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_error {
    /// The size of this struct.
    pub size: u32,
    /// What the call returned.
    pub status: hm_status,
    /// The host's error number (`errno`), or 0 where no call of the host failed.
    pub system_error: i32,
    /// The error number that Linux's `mmap`, `munmap`, `mprotect` or `mremap` would give for the
    /// same mistake: what an emulator answers a guest.
    pub guest_error: i32,
    /// The first strategy for a dual mapping that failed, or `HM_STEP_NONE`.
    pub step: hm_step,
    /// Zero.
    pub reserved: u32,
    /// What went wrong, in English, on one line without a full stop. Never null, and never freed.
    pub message: *const c_char,
    /// The name of the setting that is out of its range, or null. Never freed.
    pub setting: *const c_char,
    /// The value that the setting has.
    pub value: u64,
    /// The least value that it may have.
    pub least: u64,
    /// The greatest value that it may have.
    pub most: u64,
    /// The block that was found corrupt, or 0.
    pub address: usize,
    /// How many bytes of addresses would do, where a window or a limit leaves too few for a heap,
    /// or 0.
    pub needed: usize,
}

// SAFETY: the size is first, zeros are a value (HM_OK is 0), and fields fill the struct.
unsafe impl Grows for hm_error {
    const FIRST: usize = 80;
}

const _: () = assert!(size_of::<hm_error>() == 80);

const fn text_of(status: hm_status) -> &'static CStr {
    match status {
        HM_OK => c"success",
        HM_INVALID_ARGUMENT => c"invalid argument",
        HM_OUT_OF_MEMORY => c"out of memory, addresses or descriptors",
        HM_TOO_LARGE => c"too large",
        HM_UNKNOWN_POINTER => c"nothing live is at the address",
        HM_EXISTS => c"the place is in use",
        HM_DENIED => c"refused by the host's policy",
        HM_UNSUPPORTED => c"not supported",
        HM_OUT_OF_RANGE => c"outside of the range",
        HM_BUSY => c"still in use",
        HM_RANGE_LOST => c"the range was lost to another mapping",
        HM_CORRUPT => c"memory was corrupted",
        HM_SYSTEM_ERROR => c"unexpected system error",
    }
}

/// All that there are, by their numbers.
pub(crate) const ALL: [hm_status; 13] = [
    HM_OK,
    HM_INVALID_ARGUMENT,
    HM_OUT_OF_MEMORY,
    HM_TOO_LARGE,
    HM_UNKNOWN_POINTER,
    HM_EXISTS,
    HM_DENIED,
    HM_UNSUPPORTED,
    HM_OUT_OF_RANGE,
    HM_BUSY,
    HM_RANGE_LOST,
    HM_CORRUPT,
    HM_SYSTEM_ERROR,
];

/// Returns what a status means, in English: a string that is never freed. Any number may be asked
/// for.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn hm_status_string(status: u32) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|n| ALL.get(n));
    known
        .map_or(c"unknown status", |status| text_of(*status))
        .as_ptr()
}

/// Runs the body of a call from C, and tells the caller of its error.
macro_rules! answer {
    ($error:expr, $body:block) => {{
        let result = (|| -> Result<(), $crate::status::Fault> {
            $body
            Ok(())
        })();
        match result {
            Ok(()) => $crate::status::HM_OK,
            // SAFETY: the caller in C promises that it is null, or as long as its first field says.
            Err(fault) => unsafe { fault.report($error) },
        }
    }};
}
pub(crate) use answer;
