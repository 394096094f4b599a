//! Executable memory.

use crate::{
    abi::{Grows, array, growing, place, read},
    object::{self, Kind, List, Object, opened},
    region::Region,
    source::{Source, hm_source, source},
    status::{Fault, HM_OK, HM_UNKNOWN_POINTER, answer, hm_error, hm_status, invalid},
    types::{bytes, hm_placement, name, placement, window},
};
use core::{
    ffi::{c_char, c_int, c_void},
    ptr::NonNull,
};
use hostmem::{
    OsLock,
    fork::ForkHooks,
    jit::{
        Barrier, Fill, JitAllocator, JitConfig, LargePages, LiveSpan, Mapping, Reset, Span,
        SpanInfo, SyncCores, Words,
    },
    page::RwxOptIn,
    provider::{Fork, Placement},
};

/// Executable memory for many small pieces of code. Every call on it is thread-safe.
pub struct hm_jit {
    _opaque: [u8; 0],
}

/// A piece of executable memory, a name that may be copied. Once the span was released, all copies
/// of its name are refused, whatever has its memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_span {
    /// Where the code is executed.
    pub rx: *mut c_void,
    /// Where the code is written. Whoever writes there by itself publishes it by `hm_flush_icache`.
    pub rw: *mut c_void,
    /// The length in bytes: what was asked for, rounded up.
    pub len: usize,
    /// What tells the span from others that had its memory; never zero.
    pub number: u32,
    /// Zero.
    pub reserved: u32,
}

/// A live span, with what it carries.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_live {
    /// The span.
    pub span: hm_span,
    /// Its word; zero until one is set.
    pub word: u64,
    /// Its group; zero until one is set.
    pub group: u32,
    /// Zero.
    pub reserved: u32,
}

/// How blocks are mapped.
pub type hm_mapping = u32;
/// Twice: written through one view, executed through the other. Nothing is ever both.
pub const HM_MAPPING_DUAL: hm_mapping = 0;
/// Once, executable, and writable instead for the time of a write: no thread executes code in the
/// same pages then.
pub const HM_MAPPING_TOGGLE: hm_mapping = 1;
/// Twice; where the host refuses every strategy for that, as `HM_MAPPING_TOGGLE`.
pub const HM_MAPPING_AUTO: hm_mapping = 2;
/// Once, writable and executable at once.
pub const HM_MAPPING_READ_WRITE_EXEC: hm_mapping = 3;

/// What a forked child sees of code.
pub type hm_fork = u32;
/// No writable view; after `hm_jit_fork_child` a private copy of all code at the same addresses.
pub const HM_FORK_DETACH: hm_fork = 0;
/// No writable view. The executable view still shows what the parent writes.
pub const HM_FORK_LOSES_RW: hm_fork = 1;
/// Neither view.
pub const HM_FORK_LOSES_BOTH: hm_fork = 2;
/// Both views, shared with the parent.
pub const HM_FORK_SHARE: hm_fork = 3;

/// When other cores are made to see code that replaces code.
pub type hm_sync = u32;
/// With each write, where the host can.
pub const HM_SYNC_WHEN_REUSED: hm_sync = 0;
/// With each write; a host that cannot is refused.
pub const HM_SYNC_REQUIRED: hm_sync = 1;
/// By the next `hm_jit_publish`.
pub const HM_SYNC_DEFERRED: hm_sync = 2;
/// Never: the program has one thread, or synchronizes the others itself.
pub const HM_SYNC_NEVER: hm_sync = 3;

/// What memory that belongs to no span reads as.
pub type hm_fill = u32;
/// Whatever it held.
pub const HM_FILL_KEEP: hm_fill = 0;
/// An instruction that traps.
pub const HM_FILL_TRAP: hm_fill = 1;
/// The `fill_pattern` of the configuration.
pub const HM_FILL_PATTERN: hm_fill = 2;

/// What a patch does so that other cores run the code that it replaced.
pub type hm_barrier = u32;
/// Nothing.
pub const HM_BARRIER_NEVER: hm_barrier = 0;
/// It leaves that to the next `hm_jit_publish`.
pub const HM_BARRIER_DEFERRED: hm_barrier = 1;
/// It returns when they do.
pub const HM_BARRIER_NOW: hm_barrier = 2;

/// What a reset does with the blocks.
pub type hm_reset = u32;
/// One block of each kind is kept, the others are unmapped.
pub const HM_RESET_SOFT: hm_reset = 0;
/// All are unmapped.
pub const HM_RESET_HARD: hm_reset = 1;
/// All are kept.
pub const HM_RESET_KEEP: hm_reset = 2;

/// The configuration of executable memory. Begin with `HM_JIT_CONFIG_INIT`; in every field zero is
/// the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_jit_config {
    /// The size of this struct.
    pub size: u32,
    /// How blocks are mapped.
    pub mapping: hm_mapping,
    /// Where memory comes from; null for the host. It need not live longer than the call.
    pub source: *const hm_source,
    /// The unit and alignment of spans in bytes, a power of two from 16 to 4096; 64.
    pub granularity: usize,
    /// The size of the first block, a power of two from 64 KiB to 1 GiB; 128 KiB.
    pub block_size: usize,
    /// The size up to which blocks double, as `block_size`; 32 MiB, or `block_size` if that is
    /// more.
    pub max_block_size: usize,
    /// Where executable views go.
    pub rx: hm_placement,
    /// Where writable views go.
    pub rw: hm_placement,
    /// The most bytes of metadata; 256 MiB.
    pub metadata: usize,
    /// The most bytes of code that are mapped at a time; no limit.
    pub limit: usize,
    /// The size of large pages in bytes, which blocks are made of where the host has them; none.
    pub large_pages: usize,
    /// Not zero: every block is made a multiple of `large_pages`.
    pub align_large_pages: u32,
    /// What a forked child sees.
    pub fork: hm_fork,
    /// When other cores are made to see code that replaces code.
    pub sync_cores: hm_sync,
    /// How many granularities there are, 1 to 3, each twice the one before; 1.
    pub pools: u32,
    /// How many threads can allocate without waiting for each other, a power of two up to 16; 16.
    pub shards: u32,
    /// What memory that belongs to no span reads as.
    pub fill: hm_fill,
    /// The pattern of `HM_FILL_PATTERN`.
    pub fill_pattern: u32,
    /// Bits of the word that spans carry for the program: 0, 32 or 64.
    pub word_bits: u32,
    /// Not zero: spans have groups.
    pub groups: u32,
    /// Not zero: indirect branches into code must land on a landing pad (`bti` on AArch64).
    pub landing_pads: u32,
    /// Not zero: a block is unmapped as soon as it is empty.
    pub immediate_release: u32,
    /// Not zero: the first granule of a block may be a span's.
    pub no_padding: u32,
    /// Not zero: refused where memory would be writable and executable at once.
    pub strict: u32,
    /// Zero.
    pub reserved: u32,
    /// A name for the process map, or null for this library's. It must stay as long as the object.
    pub name: *const c_char,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_jit_config {
    const FIRST: usize = 208;
}

const _: () = assert!(size_of::<hm_jit_config>() == 208);

/// What is held, in bytes where nothing else is said. Begin with `HM_JIT_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_jit_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Whether other cores are made to see code that replaces code: 0 or 1.
    pub syncs_cores: u32,
    /// Blocks mapped.
    pub blocks: u64,
    /// Live spans.
    pub spans: u64,
    /// Of live spans.
    pub used: u64,
    /// Mapped for code, once for both views.
    pub reserved: u64,
    /// Of metadata that has memory, but for what spans carry.
    pub metadata: u64,
    /// Of what spans carry: words, groups and numbers.
    pub tags: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_jit_statistics {
    const FIRST: usize = 56;
}

const _: () = assert!(size_of::<hm_jit_statistics>() == 56);

/// One of several writes: `len` bytes from `bytes`, to `offset` in a span.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_write {
    /// The span.
    pub span: hm_span,
    /// Where in it.
    pub offset: usize,
    /// What; outside of executable memory of this library.
    pub bytes: *const c_void,
    /// How many bytes.
    pub len: usize,
}

/// Fills a span: writes code through `rw`, which will run at `rx`, and returns how many bytes of
/// the span to keep, or `len` or more for all. It must not unwind, nor leave by `longjmp`.
pub type hm_jit_fill_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        rw: *mut c_void,
        rx: *mut c_void,
        len: usize,
    ) -> usize,
>;

/// Is told of a live span; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_jit_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, live: *const hm_live) -> c_int>;

pub(crate) type Allocator = JitAllocator<Source, Source, OsLock>;

/// What is behind a handle.
pub(crate) struct Jit {
    pub(crate) allocator: Allocator,
    region: Option<&'static Object<Region>>,
}

impl Kind for Jit {
    const MAGIC: u32 = 0x686d_6a31;

    fn list() -> &'static List<Self> {
        static ALL: List<Jit> = List::new();
        &ALL
    }
}

impl hm_span {
    pub(crate) fn of(info: SpanInfo, number: u32) -> Self {
        Self {
            rx: info.rx.as_ptr().cast(),
            rw: info.rw.as_ptr().cast(),
            len: info.len,
            number,
            reserved: 0,
        }
    }
}

impl hm_live {
    fn of(live: &LiveSpan) -> Self {
        Self {
            span: hm_span::of(live.span, live.number),
            word: live.word,
            group: live.group,
            reserved: 0,
        }
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
    // SAFETY: the caller's promise, and aligned.
    unsafe { span.as_ref() }.ok_or(invalid(c"a null span"))
}

impl Jit {
    /// Makes a token of what C names, for one call.
    ///
    /// # Safety
    ///
    /// If the span is live, the caller in C owns it, and does not release it during the call.
    pub(crate) unsafe fn token(&self, span: &hm_span) -> Result<Span, Fault> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.allocator.span_at(span.rx.addr(), span.number)? })
    }

    /// Returns the name of a span that was just allocated.
    fn hand_out(&self, span: Span) -> Result<hm_span, Fault> {
        // Its name stands for the span from now on; a token that goes releases nothing.
        Ok(hm_span::of(span.info(), self.allocator.number(&span)?))
    }
}

/// Finds the allocator of a handle from C.
macro_rules! jit {
    ($handle:expr) => {
        opened!(Jit, $handle).1
    };
}

/// Makes a token of a span that C names.
macro_rules! token {
    ($jit:expr, $span:expr) => {{
        // SAFETY: the caller in C promises that it is null or a name.
        let name = unsafe { name_of($span) }?;
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe { $jit.token(name) }?
    }};
}

pub(crate) fn mapping(from: hm_mapping) -> Result<Mapping, Fault> {
    Ok(match from {
        HM_MAPPING_DUAL => Mapping::Dual,
        HM_MAPPING_TOGGLE => Mapping::Toggle,
        HM_MAPPING_AUTO => Mapping::Auto,
        // SAFETY: the caller in C has asked for it by a name that says so.
        HM_MAPPING_READ_WRITE_EXEC => Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() }),
        _ => return Err(invalid(c"no such mapping")),
    })
}

pub(crate) const fn of_mapping(mapping: Mapping) -> hm_mapping {
    match mapping {
        Mapping::Toggle => HM_MAPPING_TOGGLE,
        Mapping::Auto => HM_MAPPING_AUTO,
        Mapping::ReadWriteExec(_) => HM_MAPPING_READ_WRITE_EXEC,
        _ => HM_MAPPING_DUAL,
    }
}

pub(crate) fn fork_of(from: hm_fork) -> Result<Fork, Fault> {
    Ok(match from {
        HM_FORK_DETACH => Fork::Detach,
        HM_FORK_LOSES_RW => Fork::ChildLosesRw,
        HM_FORK_LOSES_BOTH => Fork::ChildLosesBoth,
        HM_FORK_SHARE => Fork::Share,
        _ => return Err(invalid(c"no such thing for a forked child to see")),
    })
}

pub(crate) const fn of_fork(fork: Fork) -> hm_fork {
    match fork {
        Fork::ChildLosesRw => HM_FORK_LOSES_RW,
        Fork::ChildLosesBoth => HM_FORK_LOSES_BOTH,
        Fork::Share => HM_FORK_SHARE,
        _ => HM_FORK_DETACH,
    }
}

pub(crate) fn barrier(from: hm_barrier) -> Result<Barrier, Fault> {
    Ok(match from {
        HM_BARRIER_NEVER => Barrier::Never,
        HM_BARRIER_DEFERRED => Barrier::Deferred,
        HM_BARRIER_NOW => Barrier::Now,
        _ => return Err(invalid(c"no such barrier")),
    })
}

/// Returns a value, or the default where it is zero.
pub(crate) const fn or(value: usize, default: usize) -> usize {
    if value == 0 { default } else { value }
}

fn configuration(from: &hm_jit_config) -> Result<JitConfig, Fault> {
    let defaults = JitConfig::new();
    let first = or(from.block_size, defaults.block_size_bytes());
    let most = or(
        from.max_block_size,
        defaults.max_block_size_bytes().max(first),
    );
    let large_pages = match (from.large_pages, from.align_large_pages) {
        (0, _) => LargePages::Never,
        (bytes, 0) => LargePages::Wish { bytes },
        (bytes, _) => LargePages::Align { bytes },
    };
    let fill = match from.fill {
        HM_FILL_KEEP => Fill::Keep,
        HM_FILL_TRAP => Fill::Trap,
        HM_FILL_PATTERN => Fill::Pattern(from.fill_pattern),
        _ => return Err(invalid(c"no such fill")),
    };
    let sync = match from.sync_cores {
        HM_SYNC_WHEN_REUSED => SyncCores::WhenReused,
        HM_SYNC_REQUIRED => SyncCores::Required,
        HM_SYNC_DEFERRED => SyncCores::Deferred,
        HM_SYNC_NEVER => SyncCores::Never,
        _ => return Err(invalid(c"no such way to synchronize cores")),
    };
    let words = match from.word_bits {
        0 => Words::None,
        32 => Words::Bits32,
        64 => Words::Bits64,
        _ => return Err(invalid(c"word_bits is 0, 32 or 64")),
    };
    let config = defaults
        .granularity(or(from.granularity, defaults.granularity_bytes()))
        .block_size(first, most)
        .rx(placement(&from.rx)?)
        .rw(placement(&from.rw)?)
        .landing_pads(from.landing_pads != 0)
        .fork(fork_of(from.fork)?)
        .sync_cores(sync)
        .metadata(or(from.metadata, defaults.metadata_bytes()))
        .pools(or(from.pools as usize, defaults.pool_count()))
        .shards(or(from.shards as usize, defaults.max_shards()))
        .fill(fill)
        .mapping(mapping(from.mapping)?)
        .large_pages(large_pages)
        .immediate_release(from.immediate_release != 0)
        .padding(from.no_padding == 0)
        .limit(or(from.limit, usize::MAX))
        .strict(from.strict != 0)
        .words(words)
        .groups(from.groups != 0)
        .numbers(true);
    config.check()?;
    // SAFETY: the caller in C promises that the name stays as long as the object.
    match unsafe { name(from.name) } {
        Some(name) => Ok(config.name(name)),
        None => Ok(config),
    }
}

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

/// Allocates `size` bytes and stores the span's name. What is there is undefined.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc(
    jit: *mut hm_jit,
    size: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        to.write(jit.hand_out(jit.allocator.alloc(size)?)?);
    })
}

/// Allocates `size` bytes that are executed as close to `anchor` as can be, no more than `reach`
/// bytes away: 128 MiB for a branch of AArch64, 2 GiB for one of x86-64.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_near(
    jit: *mut hm_jit,
    size: usize,
    anchor: *const c_void,
    reach: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let near = Placement::near(anchor.addr(), reach);
        to.write(jit.hand_out(jit.allocator.alloc_with(size, near)?)?);
    })
}

/// Allocates `size` bytes where `where_to` says, for which there are `HM_PLACE_ANYWHERE` and
/// `HM_PLACE_NEAR`; within its window, and with its alignment.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_placed(
    jit: *mut hm_jit,
    size: usize,
    where_to: *const hm_placement,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        let [from] = array!(where_to, 1) else {
            return Err(invalid(c"a null placement"));
        };
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        let allocated = jit.allocator.alloc_with(size, placement(from)?)?;
        to.write(jit.hand_out(allocated)?);
    })
}

/// Allocates `size` bytes that are executed `offset` bytes behind the start of the window, where a
/// code cache from a file has them. For executable memory whose `rx` is placed by
/// `HM_PLACE_LOWEST`.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_alloc_at(
    jit: *mut hm_jit,
    offset: usize,
    size: usize,
    span: *mut hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(span), jit!(jit));
        if size == 0 {
            return Err(invalid(c"a size of zero"));
        }
        to.write(jit.hand_out(jit.allocator.alloc_at(offset, size)?)?);
    })
}

/// Writes `len` bytes at `offset` in a span and publishes them: they can be executed when the call
/// returns, on all cores. The bytes lie outside of executable memory of this library.
///
/// Costs a system call only where code was published before. One thread at a time writes the same
/// bytes, and no thread executes them meanwhile, unless any mix of old and new bytes does no harm.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    from: *const c_void,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let mut span = token!(jit, span);
        jit.allocator.write(&mut span, offset, bytes(from, len)?)?;
    })
}

/// Writes as `hm_jit_write` does, and leaves what makes other cores see it to the next
/// `hm_jit_publish`: until then no other thread executes it.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_deferred(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    from: *const c_void,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let mut span = token!(jit, span);
        let bytes = bytes(from, len)?;
        jit.allocator.write_deferred(&mut span, offset, bytes)?;
    })
}

/// Writes many pieces with one pass of cache maintenance and one barrier: none of them is executed
/// before the call returns. Stores through `done`, unless that is null, how many were written: all
/// of them, or those before the one that failed, which are published.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_many(
    jit: *mut hm_jit,
    writes: *const hm_write,
    count: usize,
    done: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let writes = array!(writes, count);
        let mut batch = jit.allocator.batch();
        let mut written = 0;
        let mut result = Ok(());
        for write in writes {
            result = (|| {
                let bytes = bytes(write.bytes, write.len)?;
                // SAFETY: the caller in C promises that it owns the span, if that is live.
                let span = unsafe { jit.token(&write.span)? };
                let rx = span.rx().addr().get();
                // SAFETY: as above, and that no other code releases it during the call.
                unsafe { batch.write_at(rx, write.offset, bytes)? };
                Ok::<(), Fault>(())
            })();
            if result.is_err() {
                break;
            }
            written += 1;
        }
        let finished = batch.finish();
        if !done.is_null() {
            place!(done).write(written);
        }
        result?;
        finished?;
    })
}

/// Lets `fill` write code into a span in place, publishes all of it, and shrinks the span if asked
/// to, of which `span` then tells. `fill` may call this library, but not release this span.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_write_with(
    jit: *mut hm_jit,
    span: *mut hm_span,
    fill: hm_jit_fill_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let fill = fill.ok_or(invalid(c"a null function"))?;
        let mut token = token!(jit, span);
        let number = jit.allocator.number(&token)?;
        jit.allocator.write_with(&mut token, |writer| {
            let (rx, all) = (writer.rx().as_ptr().cast(), writer.bytes_mut());
            let (rw, len) = (all.as_mut_ptr().cast(), all.len());
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            let keep = unsafe { fill(context, rw, rx, len) };
            if keep < len {
                writer.shrink_to(keep.max(1));
            }
        })?;
        place!(span).write(hm_span::of(token.info(), number));
    })
}

/// Makes other cores see all code whose barrier was left to this call, by any thread.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_publish(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        jit!(jit).allocator.publish()?;
    })
}

/// Stores four bytes at `offset`, a multiple of four, in a span whose code other threads may be
/// executing: they run the old ones or the new ones. What a CPU allows to be replaced so, the
/// documentation of Rust's `JitAllocator::patch_u32` lists.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u32(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    value: u32,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let span = token!(jit, span);
        let when = barrier(when)?;
        jit.allocator.patch_u32(&span, offset, value, when)?;
    })
}

/// Stores eight bytes as `hm_jit_patch_u32` stores four.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u64(
    jit: *mut hm_jit,
    span: *const hm_span,
    offset: usize,
    value: u64,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let span = token!(jit, span);
        let when = barrier(when)?;
        jit.allocator.patch_u64(&span, offset, value, when)?;
    })
}

/// Stores four bytes, as `hm_jit_patch_u32` does, that are executed at `rx`, in whatever span is
/// live there: which is the caller's, and is not released during the call.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u32_at(
    jit: *mut hm_jit,
    rx: *const c_void,
    value: u32,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it owns the span, if one is live there.
        unsafe { jit.allocator.patch_at(rx.addr(), value, when)? };
    })
}

/// Stores eight bytes as `hm_jit_patch_u32_at` stores four.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_patch_u64_at(
    jit: *mut hm_jit,
    rx: *const c_void,
    value: u64,
    when: hm_barrier,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (jit, when) = (jit!(jit), barrier(when)?);
        // SAFETY: the caller in C promises that it owns the span, if one is live there.
        unsafe { jit.allocator.patch_at(rx.addr(), value, when)? };
    })
}

/// Shrinks a span to `len` bytes, rounded up, of which `span` then tells. Other copies of its name
/// serve as before, with a length that is too long.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_shrink(
    jit: *mut hm_jit,
    span: *mut hm_span,
    len: usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it is null or a name.
        let name = unsafe { name_of(span) }?;
        let (rx, number) = (name.rx.addr(), name.number);
        if len == 0 {
            return Err(invalid(c"a size of zero"));
        }
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        let mut taken = unsafe { jit.allocator.take_numbered(rx, number)? };
        let shrunk = jit.allocator.shrink(&mut taken, len);
        jit.allocator.set_number(&taken, number)?;
        shrunk?;
        place!(span).write(hm_span::of(taken.info(), number));
    })
}

/// Finds the live span around an address, any address at all, and stores what is known of it.
/// Returns `HM_UNKNOWN_POINTER` where there is none. Touches nothing at the address. Exact for a
/// span that is not being released or shrunk at that moment.
///
/// Thread-safe, and safe in signal handlers: it takes no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_query(
    jit: *mut hm_jit,
    address: *const c_void,
    live: *mut hm_live,
) -> hm_status {
    let mut found = HM_OK;
    let asked = answer!(core::ptr::null_mut(), {
        let (to, jit) = (place!(live), jit!(jit));
        match jit.allocator.query_tagged(address.addr()) {
            Some(live) => drop(to.write(hm_live::of(&live))),
            None => found = HM_UNKNOWN_POINTER,
        }
    });
    if asked == HM_OK { found } else { asked }
}

/// Sets the word of a span, which a query returns and which goes with the span; see `word_bits` of
/// the configuration.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_set_word(
    jit: *mut hm_jit,
    span: *const hm_span,
    word: u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        jit.allocator.set_word(&token!(jit, span), word)?;
    })
}

/// Sets the group of a span, which goes with the span; see `groups` of the configuration.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_set_group(
    jit: *mut hm_jit,
    span: *const hm_span,
    group: u32,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        jit.allocator.set_group(&token!(jit, span), group)?;
    })
}

/// Releases a span, which no thread executes any more. The name of a span that was released is
/// refused with `HM_UNKNOWN_POINTER`; of several calls for one span, one succeeds.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release(
    jit: *mut hm_jit,
    span: *const hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it is null or a name.
        let span = unsafe { name_of(span) }?;
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        unsafe {
            jit.allocator
                .release_numbered(span.rx.addr(), span.number)?
        };
    })
}

/// Releases many spans. Those that are not live are passed by: stores through `refused`, unless
/// that is null, how many those were.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release_many(
    jit: *mut hm_jit,
    spans: *const hm_span,
    count: usize,
    refused: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    /// Spans that are released together.
    const PART: usize = 64;
    answer!(error, {
        let (jit, spans) = (jit!(jit), array!(spans, count));
        let mut live = 0;
        for part in spans.chunks(PART) {
            let mut tokens = [const { None }; PART];
            for (span, token) in part.iter().zip(&mut tokens) {
                // SAFETY: the caller in C promises that it owns the span, if that is live.
                *token = unsafe { jit.allocator.take_numbered(span.rx.addr(), span.number) }.ok();
                live += usize::from(token.is_some());
            }
            live -= jit.allocator.release_many(&mut tokens);
        }
        if !refused.is_null() {
            place!(refused).write(count - live);
        }
    })
}

/// Releases all spans of a group, which no thread executes or names any more; stores through
/// `count`, unless that is null, how many those were.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_release_group(
    jit: *mut hm_jit,
    group: u32,
    count: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that no other code uses a span of the group.
        let released = unsafe { jit.allocator.release_group(group)? };
        if !count.is_null() {
            place!(count).write(released);
        }
    })
}

/// Releases all spans at once: no thread executes, names or touches one during the call or later.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_reset(
    jit: *mut hm_jit,
    how: hm_reset,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let how = match how {
            HM_RESET_SOFT => Reset::Soft,
            HM_RESET_HARD => Reset::Hard,
            HM_RESET_KEEP => Reset::Keep,
            _ => return Err(invalid(c"no such reset")),
        };
        // SAFETY: the caller in C promises that no other code uses a span.
        unsafe { jit.allocator.reset(how) };
    })
}

/// Tells `visit` of the live spans by address, while others may allocate and release: a span that
/// is there all the time is told once. `first` and `last` bound where spans start, and `last` may
/// be 0 for no bound; `group` is null, or the group whose spans are told.
///
/// `visit` holds no lock and may call this library.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_spans(
    jit: *mut hm_jit,
    first: usize,
    last: usize,
    group: *const u32,
    visit: hm_jit_visit_fn,
    context: *mut c_void,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        let visit = visit.ok_or(invalid(c"a null function"))?;
        let spans = jit.allocator.spans().within(window(first, last)?);
        let of_group = if group.is_null() { 0 } else { 1 };
        let spans = match array!(group, of_group) {
            [group] => spans.of_group(*group),
            _ => spans,
        };
        for live in spans {
            let live = hm_live::of(&live);
            // SAFETY: the caller in C promises that it may be called so, and does not unwind.
            if unsafe { visit(context, &raw const live) } != 0 {
                break;
            }
        }
    })
}

/// Gives the memory of blocks that are kept empty back to the host; stores through `bytes`, unless
/// that is null, how much that was.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_trim(
    jit: *mut hm_jit,
    bytes: *mut usize,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let given = jit!(jit).allocator.decommit_unused();
        if !bytes.is_null() {
            place!(bytes).write(given);
        }
    })
}

/// Stores what is held.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_get_statistics(
    jit: *mut hm_jit,
    to: *mut hm_jit_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (growing!(to), jit!(jit));
        let held = jit.allocator.statistics();
        to.write(hm_jit_statistics {
            size: 0,
            syncs_cores: jit.allocator.syncs_cores().into(),
            blocks: held.blocks as u64,
            spans: held.spans as u64,
            used: held.used as u64,
            reserved: held.reserved as u64,
            metadata: held.metadata as u64,
            tags: held.tags as u64,
        });
    })
}

/// Stores how blocks are mapped: as the configuration said, or what `HM_MAPPING_AUTO` became.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_get_mapping(
    jit: *mut hm_jit,
    to: *mut hm_mapping,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, jit) = (place!(to), jit!(jit));
        to.write(of_mapping(jit.allocator.mapping().0));
    })
}

/// Locks the object for a fork by this thread, and copies its code where a child is to have it.
/// Answered by `hm_jit_fork_parent` in the parent, also where no fork came about, and by
/// `hm_jit_fork_child` in the child. After an error nothing is locked.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_prepare(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        jit!(jit).allocator.fork_prepare()?;
    })
}

/// Unlocks in the parent what this thread's `hm_jit_fork_prepare` locked.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_parent(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that it has prepared the fork.
        unsafe { jit.allocator.fork_parent() };
    })
}

/// Makes the code the child's own, on its only thread, and unlocks it. A region that the code lies
/// in is repaired before, by `hm_fork_child_all`.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_jit_fork_child(jit: *mut hm_jit, error: *mut hm_error) -> hm_status {
    answer!(error, {
        let jit = jit!(jit);
        // SAFETY: the caller in C promises that this is the only thread of a child of that fork.
        unsafe { jit.allocator.fork_child()? };
    })
}

/// Makes code that was written through the address itself, or another one of the same memory,
/// visible to the calling core's execution. What other cores have fetched before is another matter:
/// `hm_sync_cores`.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_flush_icache(code: *const c_void, len: usize) {
    let Some(code) = NonNull::new(code.cast_mut()) else {
        return;
    };
    // SAFETY: the caller in C promises that the bytes are mapped there.
    unsafe { hostmem::arch::publish_code(code.as_ptr().cast(), len) };
}
