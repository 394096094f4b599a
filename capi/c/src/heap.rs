//! Heaps.

use crate::{
    abi::{Grows, growing, place, read},
    jit::or,
    object::{self, Here, Kind, List, Object, opened},
    region::Region,
    source::{Source, hm_source, source},
    status::{Fault, answer, hm_error, hm_status, invalid},
    types::pointer,
};
use core::{
    alloc::Layout,
    ffi::{c_int, c_void},
    ops::ControlFlow,
    ptr::{NonNull, null_mut},
};
use hostmem::{
    OsLock, OsProvider,
    heap::{Hardening, Heap, HeapConfig, HeapError, Level, LocalHeap, Return},
    provider::Clock,
};

/// A heap: a value, of which a program has as many as it likes. Every call on it is thread-safe.
pub struct hm_heap {
    _opaque: [u8; 0],
}

/// A thread's own handle of a heap, with free blocks of its own, so that most calls take no lock;
/// in the memory of the program, thread-local for instance: begin with zeros. It may go to another
/// thread, but one at a time uses it; a copy of it is refused. Any block of the heap may be freed
/// by any handle, and by the heap's own calls.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_local {
    /// Not for programs.
    pub opaque: [usize; 4],
}

/// What a heap does to find faults of its users.
pub type hm_hardening = u32;
/// As `HM_HARDENING_CHECKED`.
pub const HM_HARDENING_DEFAULT: hm_hardening = 0;
/// Frees of what is no live block are refused.
pub const HM_HARDENING_CHECKED: hm_hardening = 1;
/// That, and canaries behind blocks, a pattern at the start of free ones, and frees by a wrong
/// size.
pub const HM_HARDENING_CANARIES: hm_hardening = 2;
/// All that the heap can find: guards, quarantine, frees at the same time.
pub const HM_HARDENING_FULL: hm_hardening = 3;

/// When free memory goes back to the host.
pub type hm_return = u32;
/// When it was free for `return_ms` milliseconds.
pub const HM_RETURN_LATER: hm_return = 0;
/// At once.
pub const HM_RETURN_EAGER: hm_return = 1;
/// Only by `hm_heap_trim`.
pub const HM_RETURN_NEVER: hm_return = 2;

/// How much work is done to give memory back.
pub type hm_trim = u32;
/// What is free as a whole: segments, granules of 64 KiB.
pub const HM_TRIM_FREE: hm_trim = 0;
/// That, and pages between live blocks.
pub const HM_TRIM_DEEP: hm_trim = 1;

/// The configuration of a heap. Begin with `HM_HEAP_CONFIG_INIT`; in every field zero is the
/// default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_config {
    /// The size of this struct.
    pub size: u32,
    /// What is done to find faults.
    pub hardening: hm_hardening,
    /// Where memory comes from; null for the host. It need not live longer than the call. Metadata
    /// keeps out of a window, and lies in a region.
    pub source: *const hm_source,
    /// The most bytes of addresses for metadata; 1 GiB.
    pub metadata: usize,
    /// Bytes of free blocks that a thread's handle keeps of each size; 64 KiB.
    pub magazine: usize,
    /// Bytes of addresses that are reserved at first, a multiple of 64 KiB up to 64 MiB; 4 MiB.
    pub segment: usize,
    /// In how many parts with locks of their own blocks are kept, 1 to 64; 4.
    pub shards: u32,
    /// When free memory goes back.
    pub memory_return: hm_return,
    /// How long it is free before, in milliseconds; 250.
    pub return_ms: u32,
    /// Not zero: the host is not asked for large pages.
    pub no_large_pages: u32,
    /// Not zero: calls look at no clock, and memory goes back by `hm_heap_tick` only.
    pub no_clock: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of freed blocks up to 256 KiB that wait before they serve again, with
    /// `HM_HARDENING_FULL`; 1 MiB.
    pub quarantine: usize,
    /// Bytes of addresses of larger freed blocks that wait; 1 GiB.
    pub quarantine_addresses: usize,
    /// How many mappings of the host guards may take; half of those that are left.
    pub mappings: usize,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_heap_config {
    const FIRST: usize = 88;
}

const _: () = assert!(size_of::<hm_heap_config>() == 88);

/// What a heap holds, in bytes where nothing else is said. Begin with `HM_HEAP_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_heap_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub padding: u32,
    /// Ever asked for.
    pub requested: u64,
    /// Of live blocks, as they are rounded up.
    pub used: u64,
    /// Of free blocks that threads' handles have.
    pub cached: u64,
    /// Of slabs, free blocks in them included.
    pub slabs: u64,
    /// Of blocks without a slab, up to 1 MiB each.
    pub large: u64,
    /// How many of them are live.
    pub large_blocks: u64,
    /// Of larger blocks.
    pub huge: u64,
    /// How many of them are live.
    pub huge_blocks: u64,
    /// How many segments there are.
    pub segments: u64,
    /// Of addresses, those of metadata excluded.
    pub reserved: u64,
    /// That have memory, or get it when they are written.
    pub committed: u64,
    /// An estimate of what the host has in memory.
    pub resident: u64,
    /// Free, but the host did not take them back.
    pub refused: u64,
    /// That a forked child could not take over.
    pub abandoned: u64,
    /// How many blocks were found corrupt.
    pub corrupt_blocks: u64,
    /// Of freed blocks that wait before they serve again.
    pub quarantined: u64,
    /// Of addresses of larger ones that wait.
    pub quarantined_addresses: u64,
    /// How many live blocks have no guards that should have.
    pub unguarded_blocks: u64,
    /// Of metadata that has memory, without the page map.
    pub metadata: u64,
    /// Of addresses of the page map.
    pub page_map: u64,
    /// How many calls of the provider for blocks there were.
    pub provider_calls: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_heap_statistics {
    const FIRST: usize = 176;
}

const _: () = assert!(size_of::<hm_heap_statistics>() == 176);

/// Is told of a live block; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_heap_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, block: *mut c_void, size: usize) -> c_int>;

type Inner = Heap<Source, Source, OsLock>;
type Local = LocalHeap<'static, Source, Source, OsLock>;

/// What is behind a handle.
pub(crate) struct HeapObject {
    pub(crate) heap: Inner,
    region: Option<&'static Object<Region>>,
}

impl Kind for HeapObject {
    const MAGIC: u32 = 0x686d_6831;

    fn list() -> &'static List<Self> {
        static ALL: List<HeapObject> = List::new();
        &ALL
    }
}

/// What is in an [`hm_local`].
#[repr(C)]
struct Attached {
    here: Here,
    heap: &'static Object<HeapObject>,
    local: Local,
}

const _: () = assert!(size_of::<Attached>() <= size_of::<hm_local>());
const _: () = assert!(align_of::<Attached>() <= align_of::<hm_local>());

/// Finds what is in a thread's handle.
///
/// # Safety
///
/// It is null, zeros, or was attached; no other call uses it until this one returns.
#[inline]
unsafe fn attached<'a>(local: *mut hm_local) -> Result<&'a Local, Fault> {
    // SAFETY: the caller's promise: null, or four words.
    if !unsafe { Here::is_at(local) } {
        return Err(invalid(
            c"a handle of a thread that is null, copied or not attached",
        ));
    }
    // SAFETY: the first word says that it was attached.
    Ok(&unsafe { &*local.cast::<Attached>() }.local)
}

/// Finds the heap of a handle from C, for a call that returns a value of its own.
macro_rules! heap_or {
    ($handle:expr, $instead:expr) => {
        // SAFETY: the caller in C promises that it is null, or a handle of this library which is
        // not closed during the call.
        match unsafe { object::get::<HeapObject, _>($handle) } {
            Ok((_, found)) => &found.heap,
            Err(_) => return $instead,
        }
    };
}

/// Finds the heap of a handle from C.
macro_rules! heap {
    ($handle:expr) => {
        &opened!(HeapObject, $handle).1.heap
    };
}

/// Finds a thread's handle, for a call that returns a value of its own.
macro_rules! local_or {
    ($handle:expr, $instead:expr) => {
        // SAFETY: the caller in C promises that it is null, zeros or attached, and this thread's.
        match unsafe { attached($handle) } {
            Ok(local) => local,
            Err(_) => return $instead,
        }
    };
}

/// Finds a thread's handle.
macro_rules! local {
    ($handle:expr) => {
        // SAFETY: the caller in C promises that it is null, zeros or attached, and this thread's.
        unsafe { attached($handle)? }
    };
}

#[inline]
fn or_null(block: Result<NonNull<u8>, HeapError>) -> *mut c_void {
    block.map_or(null_mut(), |block| block.as_ptr().cast())
}

/// Returns the layout of a block that was asked for by size and alignment.
fn layout(size: usize, align: usize) -> Result<Layout, Fault> {
    let layout = Layout::from_size_align(size, align.max(16));
    layout.map_err(|_| invalid(c"no such size or alignment"))
}

fn now_ms() -> Option<u64> {
    OsProvider::new().now_ms()
}

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
        config = config.clock(now_ms);
    }
    if from.mappings != 0 {
        config = config.mappings(from.mappings);
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
            Ok(HeapObject { heap, region })
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
        let end = |heap: HeapObject| {
            let region = heap.region;
            drop(heap);
            if let Some(region) = region {
                region.leave();
            }
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<HeapObject, _>(heap, force != 0, end)? };
    })
}

/// Allocates `size` bytes at a multiple of `align`, a power of two, or 0 for 16. They read zero if
/// `zeroed` is not zero. As `hm_heap_malloc`, and says why there is no block.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_alloc(
    heap: *mut hm_heap,
    size: usize,
    align: usize,
    zeroed: c_int,
    block: *mut *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, heap) = (place!(block), heap!(heap));
        if align != 0 && !align.is_power_of_two() {
            return Err(invalid(c"an alignment that is no power of two"));
        }
        let layout = Layout::from_size_align(size, align.max(16));
        let layout = layout.map_err(|_| HeapError::InvalidSize)?;
        let block = if zeroed == 0 {
            heap.alloc(layout)?
        } else {
            heap.alloc_zeroed(layout)?
        };
        to.write(block.as_ptr().cast());
    })
}

/// Allocates `size` bytes at a multiple of 16; a block of size zero has an address of its own.
/// Returns null without memory, and for a null or closed heap. Takes a lock, which
/// `hm_local_malloc` seldom does.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_malloc(heap: *mut hm_heap, size: usize) -> *mut c_void {
    or_null(heap_or!(heap, null_mut()).alloc_bytes(size))
}

/// Allocates `count` times `size` bytes that read zero. Returns null as `hm_heap_malloc` does, and
/// where the product overflows.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_calloc(
    heap: *mut hm_heap,
    count: usize,
    size: usize,
) -> *mut c_void {
    let heap = heap_or!(heap, null_mut());
    let bytes = count.checked_mul(size).ok_or(HeapError::InvalidSize);
    or_null(bytes.and_then(|bytes| heap.alloc_bytes_zeroed(bytes)))
}

/// Allocates `size` bytes at a multiple of `align`, a power of two. Returns null as
/// `hm_heap_malloc` does, and for another alignment.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_aligned_alloc(
    heap: *mut hm_heap,
    align: usize,
    size: usize,
) -> *mut c_void {
    or_null(heap_or!(heap, null_mut()).alloc_aligned(size, align))
}

/// Makes a block `size` bytes long, where it lies or elsewhere; its contents stay, as far as they
/// fit. A null block is allocated anew; a size of zero leaves a block of size zero. Returns null
/// without memory, and where no live block of the heap starts at `block`: it stays as it is then.
/// A block that moves is aligned to 16.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_realloc(
    heap: *mut hm_heap,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    let heap = heap_or!(heap, null_mut());
    let Some(block) = NonNull::new(block.cast::<u8>()) else {
        return or_null(heap.alloc_bytes(size));
    };
    // SAFETY: the caller in C gives the block up; others are noticed.
    or_null(unsafe { heap.realloc_bytes(block, size) })
}

/// Frees a block of the heap, allocated by any call; null is passed by. Returns
/// `HM_UNKNOWN_POINTER`, and changes nothing, where no live block of the heap starts there.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_free(heap: *mut hm_heap, block: *mut c_void) -> hm_status {
    answer!(null_mut(), {
        let heap = heap!(heap);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up; others are noticed.
            unsafe { heap.free(block)? };
        }
    })
}

/// Frees as `hm_heap_free` does a block that was allocated with this size and alignment (0 for 16),
/// or last resized to this size, for which the alignment is 0; a hardened heap compares them.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_free_sized(
    heap: *mut hm_heap,
    block: *mut c_void,
    size: usize,
    align: usize,
) -> hm_status {
    answer!(null_mut(), {
        let (heap, layout) = (heap!(heap), layout(size, align)?);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up, and says what it asked for.
            unsafe { heap.free_sized(block, layout)? };
        }
    })
}

/// Returns how many bytes of the live block that starts at `block` may be used; 0 where none does.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_usable_size(heap: *mut hm_heap, block: *const c_void) -> usize {
    let heap = heap_or!(heap, 0);
    let block = NonNull::new(block.cast_mut().cast::<u8>());
    block.and_then(|block| heap.usable_size(block)).unwrap_or(0)
}

/// Says whether an address, any address at all, lies in the heap's memory, freed blocks included: 1
/// or 0. Touches nothing there.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_owns(heap: *mut hm_heap, address: *const c_void) -> c_int {
    heap_or!(heap, 0).owns(address.addr()).into()
}

/// Returns the start of the live block around an address, any address at all, and stores through
/// `size`, unless that is null, how many bytes of it may be used. Returns null where there is none.
/// Exact for a block that is not being freed at that moment.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_block_of(
    heap: *mut hm_heap,
    address: *const c_void,
    size: *mut usize,
) -> *mut c_void {
    let Some(found) = heap_or!(heap, null_mut()).block_of(address.addr()) else {
        return null_mut();
    };
    if !size.is_null() {
        // SAFETY: the caller in C promises that a number may be stored there.
        unsafe { size.write(found.len) };
    }
    pointer(found.addr)
}

/// Returns the open heap that an address, any address at all, lies in the memory of, or null: to
/// free a block of one of several heaps. No heap is closed meanwhile.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub extern "C" fn hm_heap_of(address: *const c_void) -> *mut hm_heap {
    let found = HeapObject::list().find(|object, found| {
        let owns = found.heap.owns(address.addr());
        owns.then_some(object)
    });
    found.map_or(null_mut(), |object| {
        core::ptr::from_ref(object).cast_mut().cast()
    })
}

/// Gives free memory back to the host. What other threads' handles have goes back at their next
/// calls.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_trim(
    heap: *mut hm_heap,
    how: hm_trim,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        heap.collect(level(how)?);
    })
}

fn level(how: hm_trim) -> Result<Level, Fault> {
    Ok(match how {
        HM_TRIM_FREE => Level::Free,
        HM_TRIM_DEEP => Level::Deep,
        _ => return Err(invalid(c"no such level of trimming")),
    })
}

/// Gives memory back until no more than `bytes` of it are resident, or no more is free; stores
/// through `resident`, unless that is null, how many are then.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_trim_to(
    heap: *mut hm_heap,
    bytes: usize,
    resident: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let left = heap!(heap).trim_to(bytes);
        if !resident.is_null() {
            place!(resident).write(left);
        }
    })
}

/// Gives back what was free for long enough, by a clock of the program that only goes forwards, in
/// milliseconds: for heaps with `no_clock`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_tick(
    heap: *mut hm_heap,
    now_ms: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        heap!(heap).tick(now_ms);
    })
}

/// Tells `visit` of live blocks: exact while no other thread allocates or frees. `visit` holds no
/// lock, and may use the heap.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_walk(
    heap: *mut hm_heap,
    visit: hm_heap_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let heap = heap!(heap);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let _ = heap.walk(|block| {
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            match unsafe { visit(context, pointer(block.addr), block.len) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
    })
}

/// Stores what is held.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_get_statistics(
    heap: *mut hm_heap,
    to: *mut hm_heap_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, heap) = (growing!(to), heap!(heap));
        let held = heap.statistics();
        let calls = held.calls;
        let calls = [
            calls.reserve,
            calls.commit,
            calls.purge,
            calls.moves,
            calls.decommit,
            calls.release,
        ];
        to.write(hm_heap_statistics {
            size: 0,
            padding: 0,
            requested: held.requested,
            used: held.used as u64,
            cached: held.cached as u64,
            slabs: held.slabs as u64,
            large: held.large as u64,
            large_blocks: held.large_blocks as u64,
            huge: held.huge as u64,
            huge_blocks: held.huge_blocks as u64,
            segments: held.segments as u64,
            reserved: held.reserved as u64,
            committed: held.committed as u64,
            resident: held.resident as u64,
            refused: held.refused as u64,
            abandoned: held.abandoned as u64,
            corrupt_blocks: held.corrupt_blocks as u64,
            quarantined: held.quarantined as u64,
            quarantined_addresses: held.quarantined_addresses as u64,
            unguarded_blocks: held.unguarded_blocks as u64,
            metadata: held.metadata as u64,
            page_map: held.page_map as u64,
            provider_calls: calls.iter().sum::<usize>() as u64,
        });
    })
}

/// Lua's allocator (`lua_Alloc`): `context` is a heap. Frees for a new size of zero, allocates for
/// a null block, and resizes else. A block that is made shorter never fails.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_heap_lua_alloc(
    context: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    let heap = heap_or!(context.cast::<hm_heap>(), null_mut());
    // Of a null block the old size says what kind of object it will be.
    let Some(at) = NonNull::new(block.cast::<u8>()) else {
        if new_size == 0 {
            return null_mut();
        }
        return or_null(heap.alloc_bytes(new_size));
    };
    if new_size == 0 {
        // SAFETY: the caller in C gives the block up; others are noticed, and there is no way to
        // tell.
        let _ = unsafe { heap.free(at) };
        return null_mut();
    }
    // SAFETY: the caller in C gives the block up; others are noticed.
    match unsafe { heap.realloc_bytes(at, new_size) } {
        Ok(block) => block.as_ptr().cast(),
        Err(_) if new_size <= old_size => block,
        Err(_) => null_mut(),
    }
}

/// Attaches a thread's handle to a heap. It takes three kilobytes of metadata, and more as it is
/// used.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_attach(
    heap: *mut hm_heap,
    local: *mut hm_local,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(local.cast::<Attached>());
        let (object, found) = opened!(HeapObject, heap);
        let local = found.heap.local()?;
        object.enter();
        to.write(Attached {
            here: Here::at(to.as_ptr()),
            heap: object,
            local,
        });
    })
}

/// Detaches a thread's handle, which gives its free blocks to the others; its memory is zeros then.
/// A thread that ends without this leaves the free blocks of its handle unused until the heap is
/// closed.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_detach(local: *mut hm_local, error: *mut hm_error) -> hm_status {
    answer!(error, {
        local!(local);
        // SAFETY: attached, as just checked, and zeros from the next line on.
        let was = unsafe { local.cast::<Attached>().read() };
        // SAFETY: the caller in C promises that it can be written.
        unsafe { local.write(hm_local { opaque: [0; 4] }) };
        drop(was.local);
        was.heap.leave();
    })
}

/// As `hm_heap_malloc`, by a thread's handle: takes a lock only once in many calls.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_malloc(local: *mut hm_local, size: usize) -> *mut c_void {
    or_null(local_or!(local, null_mut()).alloc_bytes(size))
}

/// As `hm_heap_calloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_calloc(
    local: *mut hm_local,
    count: usize,
    size: usize,
) -> *mut c_void {
    let local = local_or!(local, null_mut());
    let bytes = count.checked_mul(size).ok_or(HeapError::InvalidSize);
    or_null(bytes.and_then(|bytes| local.alloc_bytes_zeroed(bytes)))
}

/// As `hm_heap_aligned_alloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_aligned_alloc(
    local: *mut hm_local,
    align: usize,
    size: usize,
) -> *mut c_void {
    or_null(local_or!(local, null_mut()).alloc_aligned(size, align))
}

/// As `hm_heap_realloc`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_realloc(
    local: *mut hm_local,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    let local = local_or!(local, null_mut());
    let Some(block) = NonNull::new(block.cast::<u8>()) else {
        return or_null(local.alloc_bytes(size));
    };
    // SAFETY: the caller in C gives the block up; others are noticed.
    or_null(unsafe { local.realloc_bytes(block, size) })
}

/// As `hm_heap_free`, by a thread's handle.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_free(local: *mut hm_local, block: *mut c_void) -> hm_status {
    answer!(null_mut(), {
        let local = local!(local);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up; others are noticed.
            unsafe { local.free(block)? };
        }
    })
}

/// As `hm_heap_free_sized`, by a thread's handle: a little faster than `hm_local_free`.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_free_sized(
    local: *mut hm_local,
    block: *mut c_void,
    size: usize,
    align: usize,
) -> hm_status {
    answer!(null_mut(), {
        let (local, layout) = (local!(local), layout(size, align)?);
        if let Some(block) = NonNull::new(block.cast::<u8>()) {
            // SAFETY: the caller in C gives the block up, and says what it asked for.
            unsafe { local.free_sized(block, layout)? };
        }
    })
}

/// Gives the free blocks of a thread's handle back to the heap: before the thread does nothing for
/// long.
///
/// On the handle's thread; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_local_flush(local: *mut hm_local, error: *mut hm_error) -> hm_status {
    answer!(error, {
        local!(local).flush();
    })
}
