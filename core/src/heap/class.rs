//! Size classes.
//!
//! ```text
//!   16, 32, 48 … 1024 | 1280, 1536, 1792, 2048, 2560 … 64 KiB | 72, 80, 88 … 256 KiB | larger
//!     16 bytes apart  |            four a doubling            |   eight a doubling   | by granules
//! ```
//!
//! So no block above a kilobyte is longer by a quarter than what was asked for, and few above 64
//! KiB by an eighth.
//!
//! A slab starts at a multiple of [`GRANULE`], so a block is aligned to every power of two, up to
//! that, which divides the size of its class.

mod divide;

#[cfg(test)]
mod tests;

pub(super) use divide::{ONE_BLOCK, divide, index, reciprocal};

use core::{alloc::Layout, hint::cold_path};

/// Bytes of a granule: the unit of slabs and of the page map.
pub(super) const GRANULE: usize = 64 << 10;

/// Classes are this many bytes apart where they are closest, and every block is aligned to as many.
pub(super) const STEP: usize = 16;

/// The largest class of those that are [`STEP`] apart.
const FINE_MAX: usize = 1 << 10;

/// The largest block whose class a table tells.
const TABLE_MAX: usize = 32 << 10;

/// The largest block that a magazine holds.
pub(super) const CACHED_MAX: usize = 4 * GRANULE;

const FINE: usize = FINE_MAX / STEP;

/// The first class of those that are eight to a doubling.
const DENSE: usize = FINE + 4 * (GRANULE / FINE_MAX).ilog2() as usize;

/// How many classes there are.
pub(super) const CLASSES: usize = DENSE + 8 * (CACHED_MAX / GRANULE).ilog2() as usize;

/// The kinds of slabs without a class: one large block, one huge block, or free granules.
pub(super) const LARGE: u8 = 122;

pub(super) const HUGE: u8 = 123;

pub(super) const NOTHING: u8 = 124;

const SIZES: [usize; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = if class < FINE {
            (class + 1) * STEP
        } else if class < DENSE {
            let base = FINE_MAX << ((class - FINE) / 4);
            base + base / 4 * ((class - FINE) % 4 + 1)
        } else {
            let base = GRANULE << ((class - DENSE) / 8);
            base + base / 8 * ((class - DENSE) % 8 + 1)
        };
        class += 1;
    }
    sizes
};

/// Slabs by their number in the page map: the place of the class's magazine in a cache, counted in
/// magazines. Zero is no slab, and numbers above [`KINDS`] do not occur.
pub(super) type Kind = u8;

/// The kind of the first class: the fields of a cache before its magazines are as long as three of
/// those. The kind before it is of no class, and what a size of zero would have: see
/// [`quick_place`].
pub(super) const FIRST_KIND: usize = 3;

const KINDS: usize = 128;

/// Returns the class of a kind of slab, if it has one.
#[inline]
pub(super) const fn of_kind(kind: Kind) -> Option<usize> {
    let class = (kind as usize).wrapping_sub(FIRST_KIND);
    if class < CLASSES { Some(class) } else { None }
}

/// The class of a size by how many [`STEP`]s it takes.
const BY_STEPS: [u8; TABLE_MAX / STEP + 1] = {
    let mut table = [0; TABLE_MAX / STEP + 1];
    let mut class: u8 = 0;
    let mut steps = 0;
    while steps < table.len() {
        if steps * STEP > SIZES[class as usize] {
            class += 1;
        }
        assert!((class as usize) < CLASSES, "magazines are indexed by this");
        table[steps] = class;
        steps += 1;
    }
    table
};

/// The class of [`TABLE_MAX`].
const TABLE_LAST: usize = BY_STEPS[TABLE_MAX / STEP] as usize;

/// Returns the class for `layout` where the table has it: a small size without special alignment.
/// It is less than [`CLASSES`].
#[inline]
pub(super) const fn quick(layout: Layout) -> Option<usize> {
    if layout.size() <= TABLE_MAX && layout.align() <= STEP {
        let class = BY_STEPS[layout.size().div_ceil(STEP)] as usize;
        // SAFETY: every entry of the table was asserted to be so where the table is made.
        unsafe { core::hint::assert_unchecked(class < CLASSES) };
        Some(class)
    } else {
        None
    }
}

/// Where in a cache the magazine of a class is, in bytes: what [`MAGAZINE`] is multiplied by is the
/// kind.
#[expect(
    clippy::cast_possible_truncation,
    reason = "asserted to have twelve bits"
)]
pub(super) const fn place(class: usize) -> u16 {
    let place = (class + FIRST_KIND) * MAGAZINE;
    assert!(
        place < 1 << 12,
        "an entry of the page map has twelve bits for it"
    );
    place as u16
}

/// Bytes of a magazine.
pub(super) const MAGAZINE: usize = 32;

/// The [`place`] for a size by how many [`STEP`]s it takes.
const PLACES: [u16; TABLE_MAX / STEP + 1] = {
    let mut table = [0; TABLE_MAX / STEP + 1];
    let mut steps = 0;
    while steps < table.len() {
        table[steps] = place(BY_STEPS[steps] as usize);
        steps += 1;
    }
    table
};

/// Returns the [`place`] for `layout` where the table has it: of a class, whatever the layout, or
/// [`NO_PLACE`] for a size of zero.
#[inline]
pub(super) const fn quick_place(layout: Layout) -> Option<usize> {
    if layout.align() > STEP {
        return None;
    }
    quick_place_of(layout.size())
}

/// As [`quick_place`], of a size without special alignment.
#[inline]
pub(super) const fn quick_place_of(size: usize) -> Option<usize> {
    if size <= FINE_MAX {
        // The kind is how many steps it takes, and those of what comes before.
        Some(((size + (STEP - 1) + (FIRST_KIND - 1) * STEP) & !(STEP - 1)) * (MAGAZINE / STEP))
    } else {
        cold_path();
        if size > TABLE_MAX {
            return None;
        }
        Some(PLACES[size.div_ceil(STEP)] as usize)
    }
}

/// Returns the size of the class of a place that [`quick_place_of`] returned for `size`, which is
/// not zero.
#[inline]
pub(super) const fn quick_size_of(size: usize) -> usize {
    if size <= FINE_MAX {
        return (size + (STEP - 1)) & !(STEP - 1);
    }
    cold_path();
    SIZES[BY_STEPS[size.div_ceil(STEP)] as usize]
}

/// The largest class of which one byte tells how much of a block was not asked for.
pub(super) const BYTE_MAX: usize = 2 << 10;

/// More blocks than a slab of a larger class has.
pub(super) const FEW_BLOCKS: usize = 32;

/// Returns how far behind a block's state the byte is that tells how much of it was not asked for.
/// Of classes above [`BYTE_MAX`], another one lies as far behind that.
pub(super) const fn slack_after(class: usize) -> usize {
    if SIZES[class] <= BYTE_MAX {
        slack_after_quick(reciprocal(class))
    } else {
        FEW_BLOCKS
    }
}

/// As [`slack_after`], of a class up to [`BYTE_MAX`], by its reciprocal.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it has sixteen bits")]
pub(super) const fn slack_after_quick(reciprocal: u64) -> usize {
    (reciprocal >> (u64::BITS - GRANULE.ilog2())) as usize + 1
}

const _: () = {
    let mut class = 0;
    while class < CLASSES {
        assert!(
            slack_after(class) > blocks(class),
            "behind the states, one more included"
        );
        class += 1;
    }
};

/// The place before the first class's: of no class, and always empty.
pub(super) const NO_PLACE: usize = (FIRST_KIND - 1) * MAGAZINE;

/// Says whether a table tells the class of its sizes: then its slabs are cut into several blocks,
/// and [`quick_index`] tells their numbers in the first granule.
pub(super) const fn is_quick(class: usize) -> bool {
    class <= TABLE_LAST
}

/// The place of the last quick class.
pub(super) const QUICK_LAST: u16 = place(TABLE_LAST);

/// Low halves of the products of [`index`] are below this for the starts of blocks, and at least as
/// large for other offsets, in the first granule of slabs of quick classes.
const START_BOUND: u64 = 1 << 31;

const _: () = {
    let mut class = 0;
    while class < CLASSES {
        if is_quick(class) {
            assert!(blocks(class) > 1, "a reciprocal of its own");
            // With r = 2^64 / size, rounded up, and e = r * size - 2^64, block n starts at n *
            // size, and r times that is n * 2^64 + n * e. One at which another one would start has
            // the largest n.
            let beyond = reciprocal(class).wrapping_mul(SIZES[class] as u64);
            assert!(
                beyond * (blocks(class) as u64 + 1) < START_BOUND,
                "products of starts"
            );
            // An offset of 0 < m < size bytes more has m * r more: no less than r, and less than
            // 2^64 - n * e, since 2^64 + e - r is no less than (size - 1) * r.
            assert!(
                reciprocal(class) > beyond * (blocks(class) as u64 + 1) + START_BOUND,
                "products of other offsets"
            );
        }
        class += 1;
    }
};

/// As [`index`], of a class that [`is_quick`]: compares with a constant.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of a product"
)]
pub(super) const fn quick_index(offset: usize, reciprocal: u64) -> (usize, bool) {
    let product = offset as u128 * reciprocal as u128;
    ((product >> 64) as usize, (product as u64) < START_BOUND)
}

/// Returns the class for `layout`; `None` where it is too large, or its alignment is, for all.
pub(super) fn of(layout: Layout) -> Option<usize> {
    let size = layout.size();
    if size > CACHED_MAX || layout.align() > GRANULE {
        return None;
    }
    let first = match quick(Layout::from_size_align(size, 1).ok()?) {
        Some(class) => class,
        None => TABLE_LAST,
    };
    (first..CLASSES)
        .find(|&class| SIZES[class] >= size && SIZES[class].is_multiple_of(layout.align()))
}

/// Says whether a block that may be used for `size` bytes stays when it is to have `new_size`: one
/// that is a little too large is not worth a copy.
#[inline]
pub(super) const fn stays(size: usize, new_size: usize) -> bool {
    new_size <= size && new_size > size / 2
}

/// Returns the layout to allocate for a block that holds `had` bytes and becomes `new`: a longer
/// one for a block that grows by little, since it will again and so moves less often, and for one
/// of the classes from 32 KiB on, whose unused pages take no memory.
#[inline]
pub(super) fn with_slack(had: usize, new: Layout) -> Layout {
    let size = new.size();
    let slack = match size {
        _ if size <= had || size > CACHED_MAX => return new,
        0..=TABLE_MAX if size - had > had / 8 => return new,
        0..=TABLE_MAX => size / 8,
        _ => size / 4,
    };
    let size = (size + slack).min(CACHED_MAX);
    Layout::from_size_align(size, new.align()).unwrap_or(new)
}

/// Returns the size of the blocks of a class.
#[inline]
pub(super) const fn size(class: usize) -> usize {
    SIZES[class]
}

/// Returns how many granules a slab of the class has: little is left over behind the last block.
pub(super) const fn granules(class: usize) -> usize {
    match SIZES[class] {
        0..=4096 => 1,
        4097..=8192 => 2,
        8193..=TABLE_MAX => 4,
        // As many as nothing is left over of: fifteen at most, since sizes are eight to a doubling
        // at most.
        size => {
            let zeros = size.trailing_zeros();
            let most = GRANULE.trailing_zeros();
            size >> if zeros < most { zeros } else { most }
        }
    }
}

/// Returns how many blocks a slab of the class has.
pub(super) const fn blocks(class: usize) -> usize {
    granules(class) * GRANULE / SIZES[class]
}
