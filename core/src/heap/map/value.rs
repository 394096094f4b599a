//! The parts of an entry's value: the slab, its class, and the states of its blocks.

use super::GRANULE_BITS;
use crate::{
    atomic::{AtomicU8, Ordering::Relaxed},
    heap::{
        class::{self, GRANULE, Kind},
        slab::{Handle, LIVE, STATES},
    },
};
use core::ptr::{NonNull, with_exposed_provenance_mut};

/// Bits of an entry that are not the descriptor's address.
pub(super) const ADDRESS_SHIFT: u32 = 16;

/// Where the granule's number in its slab is.
pub(super) const INSIDE_SHIFT: u32 = 12;

/// Returns whose a granule is of which an entry has this value.
///
/// # Safety
///
/// As [`live`] asks.
#[inline]
pub(in crate::heap) unsafe fn slab(value: u64) -> Option<Handle> {
    // Zero, if that is what there is.
    let descriptor = states(value).saturating_sub(STATES);
    // SAFETY: `set` stores more than what `Handle::exposed` returned, or zero; the heap is there,
    // as the caller says.
    unsafe { Handle::from_exposed(descriptor) }
}

/// Returns the class and the state of the live block that starts at `addr`, of whose granule an
/// entry has this value, if it has a class. Unless `CHECKED`, one is known to start there.
///
/// # Safety
///
/// The map of a heap has or had this value there, and the heap is there as long as the result.
#[inline]
pub(in crate::heap) unsafe fn live<const CHECKED: bool>(
    value: u64,
    addr: usize,
) -> Option<(usize, NonNull<AtomicU8>)> {
    let (index, class) = class::divide(offset(value, addr), kind(value));
    let class = class?;
    // SAFETY: `set` stored all of the value at once: a class, a granule of a slab of that class,
    // and where its descriptor lies, which keeps its class as long as the heap: the index is that
    // of a block, or one more.
    let state = unsafe { state(value, index) };
    // SAFETY: states are initialised, changed by atomics only, and there as long as the heap, which
    // the caller says is there.
    let is_live = unsafe { state.as_ref() }.load(Relaxed) == LIVE;
    (!CHECKED || is_live).then_some((class, state))
}

/// Returns the [place](class::place) of the magazine for a block of whose granule an entry has this
/// value, if it is the first one of a slab whose [class is quick](class::is_quick).
#[inline]
pub(in crate::heap) const fn quick_place(value: u64) -> Option<usize> {
    let place = low(value);
    // A value of no slab has a lower one, and other granules of a slab have higher ones.
    if place.wrapping_sub(class::place(0)) > class::QUICK_LAST - class::place(0) {
        return None;
    }
    Some(place as usize)
}

/// Says whether an entry of this value has the [place](class::place) of a [quick
/// class](class::is_quick), and so is of the first granule of a slab of that.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "places have twelve bits")]
pub(in crate::heap) const fn has_place(value: u64, place: usize) -> bool {
    low(value) == place as u16
}

/// Returns the state of the live block that starts at `addr`, of whose granule an entry has this
/// value. Unless `CHECKED`, one is known to start there.
///
/// # Safety
///
/// As [`live`] asks; [`quick_place`] returns the place of a class for the value, and the reciprocal
/// is that one's.
#[inline]
pub(in crate::heap) unsafe fn live_quick<const CHECKED: bool>(
    value: u64,
    addr: usize,
    reciprocal: u64,
) -> Option<NonNull<AtomicU8>> {
    let (index, is_start) = class::quick_index(addr % GRANULE, reciprocal);
    if !is_start {
        return None;
    }
    // SAFETY: `quick_place` returned a place for the value, so that it is of a slab of that class;
    // its reciprocal makes the number of a block of the slab, or one more.
    let state = unsafe { state(value, index) };
    // SAFETY: states are initialised, changed by atomics only, and there as long as the heap, which
    // the caller says is there.
    let is_live = unsafe { state.as_ref() }.load(Relaxed) == LIVE;
    (!CHECKED || is_live).then_some(state)
}

/// Returns the state of a block by its number in a slab.
///
/// # Safety
///
/// The value has the address of more than `index` states.
#[inline]
pub(super) unsafe fn state(value: u64, index: usize) -> NonNull<AtomicU8> {
    let first = with_exposed_provenance_mut::<AtomicU8>(states(value));
    // SAFETY: there are more than `index` states at the address, as the caller says.
    let state = unsafe { first.add(index) };
    // SAFETY: inside the allocation of the states, and so not null.
    unsafe { NonNull::new_unchecked(state) }
}

/// Returns the kind of slab in an entry.
#[inline]
pub(super) const fn kind(value: u64) -> Kind {
    (value >> class::MAGAZINE.ilog2() & 0x7f) as Kind
}

/// Returns how far an address is from the start of a slab, of a granule of which an entry has this
/// value.
#[inline]
#[cfg_attr(
    not(target_pointer_width = "64"),
    expect(
        clippy::cast_possible_truncation,
        reason = "it has twenty bits at most"
    )
)]
pub(super) const fn offset(value: u64, addr: usize) -> usize {
    let inside = (value << (GRANULE_BITS - INSIDE_SHIFT)) & (0xf << GRANULE_BITS);
    inside as usize | (addr % GRANULE)
}

/// Returns what an entry has beside an address.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn low(value: u64) -> u16 {
    value as u16
}

/// Returns the address of the states in an entry.
#[inline]
#[cfg_attr(
    not(target_pointer_width = "64"),
    expect(
        clippy::cast_possible_truncation,
        reason = "it was the address of something"
    )
)]
pub(super) const fn states(value: u64) -> usize {
    (value >> ADDRESS_SHIFT) as usize
}

/// Says whether an entry can hold the address of a descriptor.
pub(in crate::heap) const fn fits(addr: usize) -> bool {
    addr as u64 <= u64::MAX >> ADDRESS_SHIFT
}
