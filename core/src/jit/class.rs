//! Length classes of free runs.
//!
//! ```text
//!   granules   1  2 …  63  64..80  80..96  96..112  112..128  128..160  …
//!   class      1  2 …  63    64      65      66        67        68     …  127
//! ```
//!
//! A class is a byte below 128, so that eight are compared at once. Up to 64 granules a class is a
//! length; beyond that four classes share a doubling, and a request asks for the first class whose
//! every run is long enough. The last class has no upper end.

/// A class that no run has: nothing free.
pub(super) const NONE: u8 = 0;

/// The class of runs longer than those that have classes of their own.
pub(super) const LAST: u8 = 127;

/// Lengths below have a class each.
const EXACT: usize = 64;

/// Returns the class of a run of `len` granules.
#[inline]
pub(super) fn of_run(len: usize) -> u8 {
    if len < EXACT {
        // Below 64, so it fits.
        return u8::try_from(len).unwrap_or(LAST);
    }
    let log = len.ilog2();
    let class = EXACT + 4 * (log - EXACT.ilog2()) as usize + (len >> (log - 2) & 3);
    u8::try_from(class).map_or(LAST, |c| c.min(LAST))
}

/// Returns the lowest class whose runs all have `need` granules; `None` where the last class has
/// shorter ones.
#[inline]
pub(super) fn that_fits(need: usize) -> Option<u8> {
    let class = of_run(need);
    if need <= EXACT {
        return Some(class);
    }
    let step = 1 << (need.ilog2() - 2);
    if class == LAST {
        return None;
    }
    Some(if need.is_multiple_of(step) {
        class
    } else {
        class + 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_ascend_and_requests_fit() {
        let mut before = 0;
        for len in (1..5000).chain((13..40).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            let class = of_run(len);
            assert!(
                class >= before && class <= LAST,
                "{len}: {class} after {before}"
            );
            before = class;
            let Some(fits) = that_fits(len) else {
                assert_eq!(class, LAST, "{len}: only the last class promises nothing");
                continue;
            };
            assert!(
                fits == class || fits == class + 1,
                "{len}: {fits} for {class}"
            );
            if fits > class {
                assert_eq!(
                    of_run(len - 1),
                    class,
                    "{len}: a shorter run shares its class"
                );
            }
        }
        assert_eq!(of_run(0), NONE);
    }

    #[test]
    fn every_run_of_a_fitting_class_fits() {
        for need in 1..3000 {
            let fits = that_fits(need).expect("far below the last class");
            let shortest = (1..).find(|&len| of_run(len) >= fits);
            assert!(shortest.is_some_and(|len| len >= need), "{need}");
        }
    }
}
