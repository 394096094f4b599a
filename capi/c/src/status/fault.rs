//! Why a call failed, and how C is told.

use super::hm_status::{self, *};
use super::{HM_STEP_NONE, hm_error, step_of, text_of};
use crate::abi::Growing;
use core::{ffi::CStr, ptr::null};
use hostmem::{
    ConfigError,
    heap::HeapError,
    jit::JitError,
    provider::{DualError, Error, ErrorKind},
};

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
        match error {
            HeapError::Config(setting) => Self::Setting(setting.error()),
            error => Self::Heap(error),
        }
    }
}

impl From<JitError> for Fault {
    fn from(error: JitError) -> Self {
        match error {
            JitError::Config(error) => Self::Setting(error),
            error => Self::Jit(error),
        }
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
        HeapError::PagesTooLarge => (HM_UNSUPPORTED, c"the host's pages are longer than 64 KiB"),
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
        JitError::Unsupported => (
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
        // SAFETY: null, or as many bytes can be read and written there as its first field says, by
        // this function's condition.
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
