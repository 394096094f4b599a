//! Code that waits until no thread runs it: the queue, and its life. The calls are in the files
//! below, in the order in which the header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `executor` | the threads that run code |
//! | `spans` | spans that wait, and forks |

mod executor;
mod spans;

pub use executor::*;
pub use spans::*;

use crate::{
    abi::{Grows, place, read},
    host::HostLock,
    jit::{Allocator, Jit, hm_jit, or},
    object::{self, Kind, List, Object, opened},
    source::Source,
    status::{answer, hm_error, hm_status},
};
use hostmem::jit::{RetireConfig, RetireQueue};

/// A queue of spans that are released once no thread can be running them. Every call on it is
/// thread-safe.
pub struct hm_retire {
    _opaque: [u8; 0],
}

/// A thread that runs code, in the memory of the program: begin with zeros. It may go to another
/// thread, but one at a time uses it; a copy of it is refused.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_executor {
    /// Not for programs.
    pub opaque: [usize; 6],
}

/// The configuration of a retire queue. Begin with `HM_RETIRE_CONFIG_INIT`; in every field zero is
/// the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_retire_config {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// How many spans may wait, up to 1,048,576; 4096.
    pub waiting: usize,
    /// How many executors can be registered at a time, up to 1024; 64.
    pub executors: usize,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_retire_config {
    const FIRST: usize = 24;
}

const _: () = assert!(size_of::<hm_retire_config>() == 24);

/// What waits, and what came before. Begin with `HM_RETIRE_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_retire_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Spans that wait.
    pub waiting_spans: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Spans that were released so far.
    pub reclaimed_spans: u64,
    /// Their bytes.
    pub reclaimed_bytes: u64,
    /// Spans that were not taken back, because a reset or a fork had taken them.
    pub refused: u64,
    /// Executors that are registered.
    pub executors: u64,
    /// Executors that are online: those that spans can wait for.
    pub online: u64,
    /// Bytes of metadata that has memory.
    pub metadata: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_retire_statistics {
    const FIRST: usize = 72;
}

const _: () = assert!(size_of::<hm_retire_statistics>() == 72);

type Queue = RetireQueue<&'static Allocator, Source, HostLock>;

/// The object behind a handle.
pub(crate) struct Retire {
    queue: Queue,
    jit: &'static Jit,
    jit_object: &'static Object<Jit>,
}

impl Kind for Retire {
    const MAGIC: u32 = 0x686d_7231;

    fn list() -> &'static List<Self> {
        static ALL: List<Retire> = List::new();
        &ALL
    }
}

/// Finds the queue of a handle from C.
macro_rules! queue {
    ($handle:expr) => {
        opened!(Retire, $handle).1
    };
}
use queue;

/// Makes a queue in front of executable memory. A null configuration stands for the defaults.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_create(
    jit: *mut hm_jit,
    config: *const hm_retire_config,
    retire: *mut *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(retire);
        let (jit_object, jit) = opened!(Jit, jit);
        let from: hm_retire_config = read!(config);
        let defaults = RetireConfig::new();
        let config = defaults
            .waiting(or(from.waiting, defaults.max_waiting()))
            .executors(or(from.executors, defaults.max_executors()));
        config.check()?;
        let made = object::open(|| {
            let queue = RetireQueue::on(&jit.allocator, Source::OS, config)?;
            Ok(Retire {
                queue,
                jit,
                jit_object,
            })
        })?;
        jit_object.enter();
        to.write(made.cast().as_ptr());
    })
}

/// Releases all that waits, and closes the queue. Returns `HM_BUSY` while executors are registered.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_close(
    retire: *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let end = |retire: Retire| {
            let jit = retire.jit_object;
            drop(retire);
            jit.leave();
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Retire, _>(retire, false, end)? };
    })
}
