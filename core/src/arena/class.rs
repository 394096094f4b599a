//! Size classes of small objects: by 16 bytes up to 128, then four to each power of two.
//!
//! At most a fifth of an object is lost to rounding. An object of a class lies at a multiple of the
//! largest power of two that divides its size, up to [`ALIGN`].

/// What all sizes are multiples of.
pub(super) const STEP: usize = 16;

/// The largest alignment that classes give: two cache lines, which some CPUs fetch together.
pub(super) const ALIGN: usize = 128;

/// The largest size of a class.
pub(super) const LARGEST: usize = 32 << 10;

/// How many classes there are.
pub(super) const COUNT: usize = SMALL + 4 * (LARGEST.ilog2() - LINEAR.ilog2()) as usize;

/// The largest of the sizes that grow by [`STEP`].
const LINEAR: usize = 128;

/// How many classes grow by [`STEP`].
const SMALL: usize = LINEAR / STEP;

/// Returns the smallest class whose objects have `size` bytes or more, of 1 to [`LARGEST`].
#[inline]
pub(super) const fn at_least(size: usize) -> usize {
    if size <= LINEAR {
        return size.div_ceil(STEP) - 1;
    }
    let last = size - 1;
    let log = last.ilog2();
    let quarter = (last >> (log - 2)) & 3;
    SMALL + 4 * (log - LINEAR.ilog2()) as usize + quarter
}

/// Returns the largest class whose objects have `size` bytes or fewer; `size` is [`STEP`] or more.
pub(super) const fn at_most(size: usize) -> usize {
    if size >= LARGEST {
        return COUNT - 1;
    }
    let class = at_least(size);
    if self::size(class) > size {
        class - 1
    } else {
        class
    }
}

/// Returns the size of the objects of a class.
#[inline]
pub(super) const fn size(class: usize) -> usize {
    if class < SMALL {
        return (class + 1) * STEP;
    }
    let above = class - SMALL;
    (5 + above % 4) << (LINEAR.ilog2() as usize + above / 4 - 2)
}

/// Returns what objects of this size are aligned to.
#[inline]
pub(super) const fn align(size: usize) -> usize {
    let natural = 1 << size.trailing_zeros();
    if natural < ALIGN { natural } else { ALIGN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 1..=LARGEST {
            let class = at_least(size);
            assert!(class < COUNT && super::size(class) >= size, "{size}");
            assert!(class == 0 || super::size(class - 1) < size, "{size}");
            assert!(super::size(class) < size + size / 4 + STEP, "{size}: waste");
        }
        for size in STEP..=2 * LARGEST {
            let class = at_most(size);
            assert!(super::size(class) <= size, "{size}");
            assert!(
                class == COUNT - 1 || super::size(class + 1) > size,
                "{size}"
            );
        }
    }

    #[test]
    fn a_size_rounded_up_to_an_alignment_has_a_class_with_that_alignment() {
        for log in 0..=ALIGN.ilog2() {
            for size in (1..LARGEST).step_by(7) {
                let rounded = size.next_multiple_of(1 << log);
                assert!(align(super::size(at_least(rounded))) >= 1 << log, "{size}");
            }
        }
    }
}
