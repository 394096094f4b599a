//! How an offset into a slab becomes the number of a block: by a multiplication.

use super::{CLASSES, FIRST_KIND, KINDS, Kind, NOTHING, SIZES, blocks};

/// The reciprocal for slabs of one block, of any size.
pub(in crate::heap) const ONE_BLOCK: u64 = 1;

/// The factors of [`index`]: `2^64 / size`, rounded up; by kind. Zero for kinds that are no slab
/// with a class: no offset starts a block there.
const RECIPROCALS: [u64; KINDS] = {
    assert!(
        FIRST_KIND + (NOTHING as usize) < KINDS,
        "kinds have seven bits"
    );
    let mut table = [0; KINDS];
    let mut class = 0;
    while class < CLASSES {
        // A slab of one block: an offset has the index zero, and only zero is a block's start.
        table[class + FIRST_KIND] = match blocks(class) {
            1 => ONE_BLOCK,
            _ => u64::MAX / SIZES[class] as u64 + 1,
        };
        class += 1;
    }
    table
};

/// Returns the reciprocal for [`index`] of a class.
#[inline]
pub(in crate::heap) const fn reciprocal(class: usize) -> u64 {
    RECIPROCALS[class + FIRST_KIND]
}

/// Divides an offset into a slab of some kind, less than 2^32, by the size of its blocks; returns
/// the quotient, and the class if nothing remains. Where the kind has no class, returns zero and
/// none.
#[inline]
pub(in crate::heap) const fn divide(offset: usize, kind: Kind) -> (usize, Option<usize>) {
    let (quotient, is_start) = index(offset, RECIPROCALS[kind as usize % KINDS]);
    if !is_start {
        return (quotient, None);
    }
    let class = (kind as usize).wrapping_sub(FIRST_KIND);
    // SAFETY: nothing starts where the reciprocal is zero, as it is for all kinds but those of
    // classes.
    unsafe { core::hint::assert_unchecked(class < CLASSES) };
    (quotient, Some(class))
}

/// Divides an offset into a slab, less than 2^32, by the size of its blocks; says also whether
/// nothing remains (Lemire, Kaser and Kurz, Faster remainder by direct computation, 2019).
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of a product"
)]
pub(in crate::heap) const fn index(offset: usize, reciprocal: u64) -> (usize, bool) {
    let product = offset as u128 * reciprocal as u128;
    ((product >> 64) as usize, (product as u64) < reciprocal)
}
