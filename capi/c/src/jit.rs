//! Executable memory: the handle, and its life. A span's calls are in the files below, in the order
//! in which the header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `types` | structs and numbers |
//! | `config` | how values from C become a configuration |
//! | `alloc` | allocating spans |
//! | `write`, `patch` | writing code, and replacing words of it |
//! | `span` | lengths, queries, words and groups |
//! | `release` | releasing spans |
//! | `walk` | the live spans, and statistics |
//! | `fork` | forks |

mod config;
mod types;

// The header has the calls in this order, as cbindgen reads the files.
mod alloc;
mod write;

mod patch;
mod span;

mod release;
mod walk;

mod fork;

pub use alloc::*;
use config::configuration;
pub(crate) use config::{fork_of, mapping, of_fork, of_mapping, or};
pub use fork::*;
pub(crate) use patch::barrier;
pub use patch::*;
pub use release::*;
pub use span::*;
pub use types::*;
pub use walk::*;
pub use write::*;

use crate::{
    abi::{place, read},
    host::HostLock,
    object::{self, Kind, List, Object},
    region::RegionObject,
    source::{Source, source},
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use hostmem::jit::{JitAllocator, Span};

/// Executable memory for many small pieces of code. Every call on it is thread-safe.
pub struct hm_jit {
    _opaque: [u8; 0],
}

pub(crate) type Allocator = JitAllocator<Source, Source, HostLock>;

/// The object behind a handle.
pub(crate) struct Jit {
    pub(crate) allocator: Allocator,
    region: Option<&'static Object<RegionObject>>,
}

impl Kind for Jit {
    const MAGIC: u32 = 0x686d_6a31;

    fn list() -> &'static List<Self> {
        static ALL: List<Jit> = List::new();
        &ALL
    }
}

/// Reads a span's name from C.
///
/// # Safety
///
/// It is null, or a name can be read there.
pub(crate) unsafe fn name_of<'a>(span: *const hm_span) -> Result<&'a hm_span, Fault> {
    if !span.is_aligned() {
        return Err(invalid(c"a misaligned span"));
    }
    // SAFETY: aligned, as just checked; null, or a name can be read there, by this function's
    // condition.
    unsafe { span.as_ref() }.ok_or(invalid(c"a null span"))
}

impl Jit {
    /// Makes a token of what C names, for one call.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller in C owns it, and does not release it during the call.
    pub(crate) unsafe fn token(&self, span: &hm_span) -> Result<Span, Fault> {
        // SAFETY: the caller in C owns the span, if one is live there, and does not release it
        // during the call, by this function's condition.
        Ok(unsafe { self.allocator.span_at(span.rx.addr(), span.number)? })
    }
}

/// Finds the allocator of a handle from C.
macro_rules! jit {
    ($handle:expr) => {
        opened!(Jit, $handle).1
    };
}
use jit;

/// Makes a token of a span that C names.
macro_rules! token {
    ($jit:expr, $span:expr) => {{
        // SAFETY: the caller in C promises that it is null or a name.
        let name = unsafe { name_of($span) }?;
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe { $jit.token(name) }?
    }};
}
use token;

/// Makes executable memory. Nothing is mapped for code before the first allocation. A null
/// configuration stands for the defaults.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_create(
    config: *const hm_jit_config,
    jit: *mut *mut hm_jit,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(jit);
        let from: hm_jit_config = read!(config);
        let (provider, region) = source!(from.source);
        let config = configuration(&from)?;
        let made = object::open(|| {
            let allocator = JitAllocator::on(provider, provider.for_metadata(), config)?;
            Ok(Jit { allocator, region })
        })?;
        if let Some(region) = region {
            region.enter();
        }
        to.write(made.cast().as_ptr());
    })
}

/// Unmaps all code and closes the object. Nothing of it may be executed, or used in another call,
/// any more. Returns `HM_BUSY` while there is a retire queue in front of it.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_close(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let end = |jit: Jit| {
            let region = jit.region;
            drop(jit);
            if let Some(region) = region {
                region.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Jit, _>(jit, false, end)? };
    })
}
