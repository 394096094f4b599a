//! The structs and numbers of executable memory.

use crate::{
    abi::Grows,
    source::hm_source,
    types::{hm_placement, hm_range},
};
use core::ffi::{c_char, c_int, c_void};
use hostmem::jit::{LiveSpan, SpanInfo};

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

/// A block of memory that spans are cut from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_jit_block {
    /// Where its code is executed.
    pub rx: hm_range,
    /// Where it is written; the same where blocks are mapped once.
    pub rw: hm_range,
    /// The size of its pages.
    pub page_size: usize,
    /// The unit of its spans.
    pub granularity: usize,
    /// Live spans.
    pub spans: u64,
    /// Bytes of live spans.
    pub used: u64,
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

/// Is told of a block; returns 0 to go on, and anything else to stop. It must not unwind.
pub type hm_jit_block_visit_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, block: *const hm_jit_block) -> c_int>;

impl hm_span {
    /// Returns by what the allocator knows it.
    pub(crate) fn key(&self) -> (usize, u32) {
        (self.rx.addr(), self.number)
    }

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
    pub(super) fn of(live: &LiveSpan) -> Self {
        Self {
            span: hm_span::of(live.span, live.number),
            word: live.word,
            group: live.group,
            reserved: 0,
        }
    }
}
