//! How descriptors are made, several at once, with all that lies behind each.

use super::{FREED, Guarded, Handle, Link, NEVER, STATES, Slab};
use crate::{
    arena::Arena,
    atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize},
    heap::{
        class::{self},
        error::HeapError,
        map::{self},
    },
    provider::{ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
};

/// What is kept of blocks beside their states.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::heap) enum Notes {
    None,
    /// What was asked for.
    Asked,
    /// That, and the canaries of blocks with a class.
    Canaries,
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
    let layout = Layout::new::<Slab>();
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
    let numbers_bytes = numbers * size_of::<AtomicU64>();
    let stride = (before_numbers + numbers_bytes).next_multiple_of(layout.align());
    let whole = Layout::from_size_align(stride * count, layout.align())
        .map_err(|_| HeapError::Metadata(ErrorKind::InvalidArgument.into()))?;
    let chunk = arena.alloc(whole).map_err(HeapError::Metadata)?;
    if !map::fits(chunk.addr().get() + (whole.size() - 1)) {
        // SAFETY: allocated just now with this layout, and not used.
        unsafe { arena.free(chunk, whole) };
        return Err(HeapError::Metadata(ErrorKind::OutsideRange.into()));
    }
    let mut next = None;
    for n in (0..count).rev() {
        // SAFETY: count strides fit in the chunk.
        let place = unsafe { chunk.add(n * stride) };
        // SAFETY: the states follow the descriptor within the stride.
        let first_state = unsafe { place.add(STATES) }.cast::<AtomicU8>();
        for number in 0..states {
            // SAFETY: so many bytes fit, by the stride.
            let state = unsafe { first_state.add(number) };
            let value = if number <= blocks { FREED } else { 0 };
            // SAFETY: in the fresh chunk.
            unsafe { state.write(AtomicU8::new(value)) };
        }
        // SAFETY: the bits follow the states within the stride.
        let bits = unsafe { place.add(before_bits) }.cast::<AtomicU64>();
        for word in 0..words {
            // SAFETY: so many words fit, by the stride.
            let word = unsafe { bits.add(word) };
            // SAFETY: in the fresh chunk; aligned, as strides and what is before the bits are.
            unsafe { word.write(AtomicU64::new(0)) };
        }
        // SAFETY: the numbers follow the bits within the stride, or nothing does.
        let first_number = unsafe { place.add(before_numbers) }.cast::<AtomicU64>();
        for number in 0..numbers {
            // SAFETY: so many fit, by the stride.
            let number = unsafe { first_number.add(number) };
            // SAFETY: in the fresh chunk; aligned, as words of bits are.
            unsafe { number.write(AtomicU64::new(0)) };
        }
        let slab = Slab {
            start: AtomicPtr::new(null_mut()),
            len: AtomicUsize::new(0),
            size: AtomicUsize::new(size),
            reciprocal,
            states: NonNull::slice_from_raw_parts(first_state, blocks + 1),
            numbers: (numbers != 0).then_some(first_number),
            class,
            has_asked,
            shard: AtomicU8::new(0),
            is_abandoned: AtomicBool::new(false),
            version: AtomicU32::new(0),
            guarded: Guarded {
                bits: NonNull::slice_from_raw_parts(bits, words),
                holes: AtomicU64::new(0),
                free: AtomicU32::new(0),
                first: AtomicU16::new(0),
                looked_at: AtomicU16::new(NEVER),
                fresh_from: AtomicU32::new(0),
                taken_at: AtomicU32::new(0),
                child: Link::none(),
                next: Link::none(),
                previous: Link::none(),
            },
        };
        slab.next.set(next);
        let place = place.cast::<Slab>();
        // SAFETY: in the fresh chunk; the chunk and the stride are aligned for it.
        unsafe { place.write(slab) };
        next = Some(Handle(place));
    }
    next.ok_or(HeapError::Config)
}
