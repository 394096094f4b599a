//! How descriptors are made, several at once, with all that lies behind each.

use super::{FREED, Guarded, Handle, Link, NEVER, STATES, Slab};
use crate::{
    arena::Arena,
    atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize},
    heap::{class, error::HeapError, map},
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
};

/// The notes that a slab keeps of its blocks beside their states.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::heap) enum Notes {
    None,
    /// The sizes that were asked for.
    Asked,
    /// That, and the canaries of blocks with a class.
    Canaries,
}

/// The parts of a descriptor of a class, and where they lie.
struct Plan {
    class: u8,
    blocks: usize,
    /// Bytes of a block, and what offsets are divided by.
    size: usize,
    reciprocal: u64,
    has_asked: bool,
    /// Bytes of states, and of what was asked for behind them.
    states: usize,
    /// Words of bits, and where they begin.
    words: usize,
    before_bits: usize,
    /// Canaries, or what was asked for of the only block, and where they begin.
    numbers: usize,
    before_numbers: usize,
    /// Bytes from one descriptor to the next.
    stride: usize,
}

impl Plan {
    fn new(class: u8, notes: Notes) -> Self {
        let kind = usize::from(class);
        let has_class = kind < class::CLASSES;
        let (blocks, size, reciprocal) = if has_class {
            (
                class::blocks(kind),
                class::size(kind),
                class::reciprocal(kind),
            )
        } else {
            (1, 0, class::ONE_BLOCK)
        };
        let has_asked = notes != Notes::None;
        let words = blocks.div_ceil(64);
        // One state more, for addresses behind the last block.
        let states = match (has_class && has_asked, size <= class::BYTE_MAX) {
            (false, _) => blocks + 1,
            (true, true) => 2 * class::slack_after(kind),
            (true, false) => 3 * class::slack_after(kind),
        };
        let states_bytes = states * size_of::<AtomicU8>();
        let before_bits = STATES + states_bytes.next_multiple_of(size_of::<AtomicU64>());
        let before_numbers = before_bits + words * size_of::<AtomicU64>();
        let numbers = match notes {
            Notes::Canaries => blocks,
            Notes::Asked if !has_class => 1,
            Notes::Asked | Notes::None => 0,
        };
        let end = before_numbers + numbers * size_of::<AtomicU64>();
        Self {
            class,
            blocks,
            size,
            reciprocal,
            has_asked,
            states,
            words,
            before_bits,
            numbers,
            before_numbers,
            stride: end.next_multiple_of(align_of::<Slab>()),
        }
    }

    /// Writes a descriptor, and all that lies behind it.
    ///
    /// # Safety
    ///
    /// Fresh memory of a stride lies at `place`, aligned for a [`Slab`], and stays as long as the
    /// heap.
    unsafe fn write(&self, place: NonNull<u8>, next: Option<Handle>) -> Handle {
        // SAFETY: the states follow the descriptor within the stride, which `place` has room for.
        let first_state = unsafe { place.add(STATES) }.cast::<AtomicU8>();
        for number in 0..self.states {
            // SAFETY: `new` has counted as many bytes into the stride.
            let state = unsafe { first_state.add(number) };
            let value = if number <= self.blocks { FREED } else { 0 };
            // SAFETY: inside the stride, which is fresh memory.
            unsafe { state.write(AtomicU8::new(value)) };
        }
        // SAFETY: the bits follow the states within the stride.
        let bits = unsafe { place.add(self.before_bits) }.cast::<AtomicU64>();
        // SAFETY: as many words lie there within the stride, which is fresh memory; `new` has
        // aligned where they begin.
        unsafe { write_zeros(bits, self.words) };
        // SAFETY: the numbers follow the bits within the stride, or its end does.
        let numbers = unsafe { place.add(self.before_numbers) }.cast::<AtomicU64>();
        // SAFETY: as many words lie there within the stride, which is fresh memory; they are
        // aligned as the bits before them are.
        unsafe { write_zeros(numbers, self.numbers) };
        let slab = Slab {
            start: AtomicPtr::new(null_mut()),
            len: AtomicUsize::new(0),
            size: AtomicUsize::new(self.size),
            reciprocal: self.reciprocal,
            states: NonNull::slice_from_raw_parts(first_state, self.blocks + 1),
            numbers: (self.numbers != 0).then_some(numbers),
            class: self.class,
            has_asked: self.has_asked,
            shard: AtomicU8::new(0),
            is_abandoned: AtomicBool::new(false),
            version: AtomicU32::new(0),
            guarded: Guarded::new(NonNull::slice_from_raw_parts(bits, self.words)),
        };
        slab.next.set(next);
        let place = place.cast::<Slab>();
        // SAFETY: the stride is fresh memory, begins with the descriptor, and is aligned for it.
        unsafe { place.write(slab) };
        Handle(place)
    }
}

/// Writes words that are zero.
///
/// # Safety
///
/// Fresh memory for as many lies at `first`, aligned for them.
unsafe fn write_zeros(first: NonNull<AtomicU64>, count: usize) {
    for number in 0..count {
        // SAFETY: the memory at `first` has room for `count` words.
        let word = unsafe { first.add(number) };
        // SAFETY: inside that memory, which is fresh and aligned.
        unsafe { word.write(AtomicU64::new(0)) };
    }
}

impl Guarded {
    /// Describes no granules.
    fn new(bits: NonNull<[AtomicU64]>) -> Self {
        Self {
            bits,
            holes: AtomicU64::new(0),
            free: AtomicU32::new(0),
            first: AtomicU16::new(0),
            looked_at: AtomicU16::new(NEVER),
            fresh_from: AtomicU32::new(0),
            taken_at: AtomicU32::new(0),
            child: Link::none(),
            next: Link::none(),
            previous: Link::none(),
        }
    }
}

/// Makes `count` descriptors of a class, each with room for the states of its blocks and for what
/// is kept of them, linked by `next`; returns the first.
///
/// # Errors
///
/// Where there is no metadata, or it lies above the addresses that the page map has room for.
pub(in crate::heap) fn make<M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    class: u8,
    count: usize,
    notes: Notes,
) -> Result<Handle, HeapError> {
    let plan = Plan::new(class, notes);
    let whole = Layout::from_size_align(plan.stride * count, align_of::<Slab>())
        .map_err(|_| HeapError::Metadata(ErrorKind::InvalidArgument.into()))?;
    let chunk = arena.alloc(whole).map_err(HeapError::Metadata)?;
    if !map::fits(chunk.addr().get() + (whole.size() - 1)) {
        // SAFETY: allocated just now with this layout, and not used.
        unsafe { arena.free(chunk, whole) };
        return Err(HeapError::Metadata(ErrorKind::OutsideRange.into()));
    }
    let mut next = None;
    for n in (0..count).rev() {
        // SAFETY: `count` strides fit in the chunk.
        let place = unsafe { chunk.add(n * plan.stride) };
        // SAFETY: a stride of the chunk, which was allocated just now, in the arena that lives as
        // long as the heap; the chunk and the strides are aligned for a descriptor.
        next = Some(unsafe { plan.write(place, next) });
    }
    next.ok_or(HeapError::Internal)
}
