//! Heaps: the handle, and its life. The calls are in the files below, in the order in which the
//! header has them:
//!
//! | file | what it has |
//! |---|---|
//! | `types` | structs and numbers |
//! | `alloc` | allocating and freeing blocks |
//! | `handler` | the same for signal handlers |
//! | `query` | which block and which heap an address belongs to |
//! | `trim` | giving free memory back |
//! | `walk` | the live blocks, and statistics |
//! | `lua` | Lua's allocator |
//! | `local` | threads' own handles |
//! | `turns` | caches that threads without a handle use by turns |

mod types;

// The header has the calls in this order, as cbindgen reads the files.
mod alloc;
mod handler;
mod query;
mod trim;
mod walk;

mod lua;

mod local;
mod turns;

pub use alloc::*;
pub use handler::*;
pub use local::*;
pub use lua::*;
pub use query::*;
pub use trim::*;
pub use types::*;
pub use walk::*;

use crate::{
    abi::{place, read},
    host::{self, HostLock},
    jit::or,
    object::{self, Kind, List, Object, opened},
    region::RegionObject,
    source::{Source, source},
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use core::{ffi::c_int, mem::forget};
use hostmem::heap::{Hardening, Heap, HeapConfig, LocalHeap, Return};

/// A heap: a value, of which a program has as many as it likes. Every call on it is thread-safe.
pub struct hm_heap {
    _opaque: [u8; 0],
}

type Inner = Heap<Source, Source, HostLock>;
type Local = LocalHeap<'static, Source, Source, HostLock>;

/// The object behind a handle.
pub(crate) struct HeapObject {
    pub(crate) heap: Inner,
    caches: turns::Caches,
    has_caches: bool,
    region: Option<&'static Object<RegionObject>>,
}

impl Kind for HeapObject {
    const MAGIC: u32 = 0x686d_6831;

    fn list() -> &'static List<Self> {
        static ALL: List<HeapObject> = List::new();
        &ALL
    }
}

/// Finds what is behind a handle from C, for a call that returns a value of its own.
macro_rules! found_or {
    ($handle:expr, $instead:expr) => {
        // SAFETY: the caller in C promises that it is null, or a handle of this library which is
        // not closed during the call.
        match unsafe { object::get::<HeapObject, _>($handle) } {
            Ok((_, found)) => found,
            Err(_) => return $instead,
        }
    };
}
use found_or;

/// Finds the heap of a handle from C.
macro_rules! heap {
    ($handle:expr) => {
        &opened!(HeapObject, $handle).1.heap
    };
}
use heap;

fn configuration(from: &hm_heap_config) -> Result<HeapConfig, Fault> {
    let level = match from.hardening {
        HM_HARDENING_DEFAULT | HM_HARDENING_CHECKED => Hardening::Checked,
        HM_HARDENING_CANARIES => Hardening::Canaries,
        HM_HARDENING_FULL => Hardening::Full,
        _ => return Err(invalid(c"no such level of hardening")),
    };
    let back = match (from.memory_return, from.return_ms) {
        (HM_RETURN_LATER, 0) => Return::After(250),
        (HM_RETURN_LATER, period) => Return::After(period.into()),
        (HM_RETURN_EAGER, _) => Return::Eager,
        (HM_RETURN_NEVER, _) => Return::Never,
        _ => return Err(invalid(c"no such time for memory to go back")),
    };
    let mut config = HeapConfig::new()
        .hardening(level)
        .memory_return(back)
        .large_pages(from.no_large_pages == 0)
        .metadata(or(from.metadata, 1 << 30))
        .magazine(or(from.magazine, 64 << 10))
        .segment(or(from.segment, 4 << 20))
        .shards(or(from.shards as usize, 4))
        .quarantine(or(from.quarantine, 1 << 20))
        .quarantine_addresses(or(from.quarantine_addresses, 1 << 30));
    if from.no_clock == 0 {
        config = config.clock(host::now_ms);
    }
    if from.mappings != 0 {
        config = config.mappings(from.mappings);
    }
    if !from.keys.is_null() {
        // SAFETY: the caller in C promises that 32 bytes are there, which need no alignment.
        config = config.keys(unsafe { from.keys.cast::<[u8; 32]>().read() });
    }
    config.check()?;
    Ok(config)
}

/// Makes a heap. It reserves metadata, but no memory for blocks yet. A null configuration stands
/// for the defaults.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_create(
    config: *const hm_heap_config,
    heap: *mut *mut hm_heap,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(heap);
        let from: hm_heap_config = read!(config);
        let (provider, region) = source!(from.source);
        let config = configuration(&from)?;
        let made = object::open(|| {
            let heap = Heap::on(provider, provider.for_metadata(), config)?;
            Ok(HeapObject {
                heap,
                caches: turns::Caches::new(),
                has_caches: from.no_thread_caches == 0,
                region,
            })
        })?;
        if let Some(region) = region {
            region.enter();
        }
        to.write(made.cast().as_ptr());
    })
}

/// Closes a heap and gives all of its memory back: its blocks are not used any more. Returns
/// `HM_BUSY` while a thread's handle is attached to it. With `force` not zero those are forgotten,
/// and not used again: handles of threads that ended without detaching, or that are not in this
/// forked child.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_close(
    heap: *mut hm_heap,
    force: c_int,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        // Before the heap moves, to which they refer.
        opened!(HeapObject, heap).1.caches.end();
        let end = |heap: HeapObject| {
            let HeapObject {
                heap,
                caches,
                region,
                ..
            } = heap;
            // Empty, but for those that threads were using which this forked child does not have.
            forget(caches);
            drop(heap);
            if let Some(region) = region {
                region.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<HeapObject, _>(heap, force != 0, end)? };
    })
}
