//! What calls return: a status, and the details of an error where they are asked for.

use crate::abi::{Growing, Grows};
use core::{
    ffi::{CStr, c_char},
    ptr::null,
};
use hostmem::{
    ConfigError,
    heap::HeapError,
    jit::JitError,
    provider::{DualError, DualStep, Error, ErrorKind},
};

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

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// An argument that this crate refused, or the like.
    Plain(hm_status, &'static CStr),
    /// A setting out of its range.
    Setting(ConfigError),
    /// A provider's error.
    Host(Error),
    /// No dual mapping.
    Dual(DualError),
    /// A heap's error.
    Heap(HeapError),
    /// An error of executable memory.
    Jit(JitError),
}

/// Says that an argument cannot be.
pub(crate) const fn invalid(message: &'static CStr) -> Fault {
    Fault::Plain(HM_INVALID_ARGUMENT, message)
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::Setting(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl From<DualError> for Fault {
    fn from(error: DualError) -> Self {
        Self::Dual(error)
    }
}

impl From<HeapError> for Fault {
    fn from(error: HeapError) -> Self {
        Self::Heap(error)
    }
}

impl From<JitError> for Fault {
    fn from(error: JitError) -> Self {
        Self::Jit(error)
    }
}

/// Settings' names end with zero for C; Rust's do not.
fn setting_name(name: &str) -> &'static CStr {
    match name {
        "granularity" => c"granularity",
        "block_size" => c"block_size",
        "metadata" => c"metadata",
        "pools" => c"pools",
        "shards" => c"shards",
        "large_pages" => c"large_pages",
        "mapping" => c"mapping",
        "segment" => c"segment",
        "waiting" => c"waiting",
        "executors" => c"executors",
        "len" => c"len",
        "guard" => c"guard",
        "align" => c"align",
        "pages" => c"pages",
        "fork" => c"fork",
        _ => c"a setting",
    }
}

const fn status_of_kind(kind: ErrorKind) -> hm_status {
    match kind {
        ErrorKind::Exhausted => HM_OUT_OF_MEMORY,
        ErrorKind::Taken => HM_EXISTS,
        ErrorKind::OutsideRange => HM_OUT_OF_RANGE,
        ErrorKind::Denied => HM_DENIED,
        ErrorKind::Unsupported => HM_UNSUPPORTED,
        ErrorKind::InvalidArgument => HM_INVALID_ARGUMENT,
        ErrorKind::RangeLost => HM_RANGE_LOST,
        _ => HM_SYSTEM_ERROR,
    }
}

/// Returns the status and the message of an error without a provider's inside.
fn plain_heap(error: &HeapError) -> (hm_status, &'static CStr) {
    match error {
        HeapError::Config => (HM_INVALID_ARGUMENT, c"pages too large for a heap"),
        HeapError::InvalidSize => (
            HM_TOO_LARGE,
            c"no host has memory of that size or alignment",
        ),
        HeapError::NotOwned => (HM_UNKNOWN_POINTER, c"the address is not of this heap"),
        HeapError::NotLive => (HM_UNKNOWN_POINTER, c"no live block is at the address"),
        HeapError::Interior => (
            HM_UNKNOWN_POINTER,
            c"the address lies inside a block, not at its start",
        ),
        HeapError::Overflow(_) => (HM_CORRUPT, c"the block was written beyond its end"),
        HeapError::WriteAfterFree(_) => (HM_CORRUPT, c"the block was written while it was free"),
        HeapError::WrongLayout(_) => (
            HM_INVALID_ARGUMENT,
            c"the block was asked for by another size or alignment",
        ),
        HeapError::Busy => (HM_BUSY, c"the heap is locked, and the call must not wait"),
        HeapError::Closed => (HM_INVALID_ARGUMENT, c"the heap is closed"),
        HeapError::TooSmall { .. } => (
            HM_OUT_OF_MEMORY,
            c"fewer addresses are left than a heap needs",
        ),
        _ => (HM_SYSTEM_ERROR, c"another error of the heap"),
    }
}

fn plain_jit(error: &JitError) -> (hm_status, &'static CStr) {
    match error {
        JitError::Config => (
            HM_UNSUPPORTED,
            c"the CPU or the host does not have what the configuration asks for",
        ),
        JitError::InvalidSize => (HM_TOO_LARGE, c"too long for any block"),
        JitError::InvalidPlacement => (HM_INVALID_ARGUMENT, c"no such placement for a span"),
        JitError::OutOfBounds => (HM_OUT_OF_RANGE, c"the write would leave its span"),
        JitError::Grow => (HM_OUT_OF_RANGE, c"a span cannot grow by shrinking"),
        JitError::NotOwned => (HM_UNKNOWN_POINTER, c"the address is not of this allocator"),
        JitError::NotLive => (HM_UNKNOWN_POINTER, c"no such live span is at the address"),
        JitError::Interior => (
            HM_UNKNOWN_POINTER,
            c"the address lies inside a span, not at its start",
        ),
        JitError::ReadOnly => (
            HM_DENIED,
            c"the span cannot be written in this forked child",
        ),
        JitError::Untagged => (HM_UNSUPPORTED, c"spans carry no such word or group"),
        JitError::Limit => (HM_OUT_OF_MEMORY, c"the configured limit is reached"),
        JitError::QueueFull => (HM_BUSY, c"too many retired spans wait already"),
        JitError::TooManyExecutors => (HM_BUSY, c"too many executors are registered already"),
        _ => (HM_SYSTEM_ERROR, c"another error of executable memory"),
    }
}

impl Fault {
    /// Returns the provider's error, if it is one.
    fn host(&self) -> Option<Error> {
        match self {
            Self::Host(error)
            | Self::Heap(HeapError::Metadata(error) | HeapError::Memory(error))
            | Self::Jit(
                JitError::Metadata(error) | JitError::SyncCores(error) | JitError::Protect(error),
            ) => Some(*error),
            Self::Dual(error) | Self::Jit(JitError::Map(error)) => Some(error.cause()),
            Self::Plain(..) | Self::Setting(_) | Self::Heap(_) | Self::Jit(_) => None,
        }
    }

    fn what(&self) -> (hm_status, &'static CStr) {
        if let Some(error) = self.host() {
            let status = status_of_kind(error.kind());
            return (status, self.host_message(status));
        }
        match self {
            Self::Plain(status, message) => (*status, message),
            Self::Setting(_) => (HM_INVALID_ARGUMENT, c"a setting is out of its range"),
            Self::Heap(error) => plain_heap(error),
            Self::Jit(error) => plain_jit(error),
            Self::Host(_) | Self::Dual(_) => (HM_SYSTEM_ERROR, c"an error of the host"),
        }
    }

    fn host_message(&self, status: hm_status) -> &'static CStr {
        match self {
            Self::Jit(JitError::SyncCores(_)) => {
                c"written, but other cores could not be made to see it"
            }
            Self::Jit(JitError::Protect(_)) => {
                c"pages could not be made writable, or executable again"
            }
            Self::Dual(_) | Self::Jit(JitError::Map(_)) => c"memory could not be mapped for code",
            _ => text_of(status),
        }
    }

    /// Returns the number of Linux for a mistake.
    pub(crate) fn guest_error(&self) -> i32 {
        if let Some(error) = self.host() {
            return error.errno_like();
        }
        match self.status() {
            HM_OUT_OF_MEMORY | HM_TOO_LARGE => libc::ENOMEM,
            HM_EXISTS => libc::EEXIST,
            HM_DENIED => libc::EACCES,
            HM_BUSY => libc::EBUSY,
            _ => libc::EINVAL,
        }
    }

    /// Returns the status.
    pub(crate) fn status(&self) -> hm_status {
        self.what().0
    }

    /// Tells C of the error; returns the status.
    ///
    /// # Safety
    ///
    /// `to` is null, or as many bytes can be read and written there as its first field says.
    #[cold]
    pub(crate) unsafe fn report(&self, to: *mut hm_error) -> hm_status {
        let (status, message) = self.what();
        if to.is_null() {
            return status;
        }
        // SAFETY: the caller's promise.
        let Ok(place) = (unsafe { Growing::new(to) }) else {
            return status;
        };
        let mut told = hm_error {
            size: 0,
            status,
            system_error: self.host().and_then(Error::errno).unwrap_or(0),
            guest_error: self.guest_error(),
            step: HM_STEP_NONE,
            reserved: 0,
            message: message.as_ptr(),
            setting: null(),
            value: 0,
            least: 0,
            most: 0,
            address: 0,
            needed: 0,
        };
        match self {
            Self::Setting(error) => {
                told.setting = setting_name(error.setting()).as_ptr();
                told.value = error.value() as u64;
                told.least = *error.allowed().start() as u64;
                told.most = *error.allowed().end() as u64;
            }
            Self::Dual(error) | Self::Jit(JitError::Map(error)) => {
                let first = error.steps().next();
                told.step = first.map_or(HM_STEP_NONE, |(step, _)| step_of(step));
            }
            Self::Heap(HeapError::TooSmall { needed }) => told.needed = *needed,
            Self::Heap(
                HeapError::Overflow(block)
                | HeapError::WriteAfterFree(block)
                | HeapError::WrongLayout(block),
            ) => told.address = block.addr(),
            _ => {}
        }
        place.write(told);
        status
    }
}

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
