//! What lies between the mappings of a process.

use super::{Error, ProcessMap};
use crate::page::AddressRange;

/// Addresses below are never chosen: hosts keep them free so that null pointers fault.
pub(crate) const FLOOR: usize = 0x1_0000;

/// Calls `visit` for every part of `within` that `map` shows no mapping at, in ascending order,
/// until it returns `false`. As old as the walk is: somebody may have mapped there meanwhile.
///
/// # Errors
///
/// What the map says where it cannot be read. Some gaps may have been visited.
pub fn walk_gaps(
    map: &(impl ProcessMap + ?Sized),
    within: AddressRange,
    visit: &mut dyn FnMut(AddressRange) -> bool,
) -> Result<(), Error> {
    // The first address not known to be used; None once the last one was, or the visitor is done.
    let mut free_from = Some(within.start());
    map.walk(&mut |entry| {
        let Some(from) = free_from else { return false };
        let before = entry.range.start().checked_sub(1);
        let gap = before.and_then(|last| AddressRange::new(from, last.min(within.last())));
        if gap.is_some_and(|gap| !visit(gap)) {
            free_from = None;
            return false;
        }
        let behind = entry.range.last().checked_add(1);
        free_from = behind
            .map(|next| next.max(from))
            .filter(|&next| next <= within.last());
        free_from.is_some()
    })?;
    if let Some(gap) = free_from.and_then(|from| AddressRange::new(from, within.last())) {
        visit(gap);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{MapEntry, MapFlags};

    extern crate std;
    use std::{vec, vec::Vec};

    struct Used(Vec<(usize, usize)>);

    impl ProcessMap for Used {
        fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
            for &(start, last) in &self.0 {
                let range = AddressRange::new(start, last).expect("not empty");
                let flags = MapFlags::READ;
                if !visit(MapEntry { range, flags }) {
                    break;
                }
            }
            Ok(())
        }
    }

    fn gaps(used: &[(usize, usize)], start: usize, last: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let within = AddressRange::new(start, last).expect("not empty");
        walk_gaps(&Used(used.to_vec()), within, &mut |gap| {
            found.push((gap.start(), gap.last()));
            true
        })
        .expect("there is a map");
        found
    }

    #[test]
    fn r1_gaps_lie_around_a_mapping_and_none_inside_it() {
        let used = [(0x10_0000, 0x10_1fff)];
        assert_eq!(
            gaps(&used, 0xf_f000, 0x10_2fff),
            [(0xf_f000, 0xf_ffff), (0x10_2000, 0x10_2fff)]
        );
        assert_eq!(gaps(&used, 0x10_0000, 0x10_1fff), []);
        assert_eq!(gaps(&used, 0x10_1000, 0x10_1fff), []);
        assert_eq!(gaps(&[], 0x1000, 0x1fff), [(0x1000, 0x1fff)]);
    }

    #[test]
    fn the_ends_of_the_address_space_are_gaps_too() {
        let used = [(0x1000, 0x1fff), (0x3000, usize::MAX - 0x1000)];
        let top = (usize::MAX - 0xfff, usize::MAX);
        assert_eq!(
            gaps(&used, 0, usize::MAX),
            [(0, 0xfff), (0x2000, 0x2fff), top]
        );
        assert_eq!(gaps(&[(0, usize::MAX)], 0, usize::MAX), []);
        assert_eq!(gaps(&[(0x5000, usize::MAX)], 0, 0x4fff), [(0, 0x4fff)]);
    }

    #[test]
    fn entries_seen_twice_or_overlapping_open_no_gap() {
        let used = [
            (0x1000, 0x4fff),
            (0x2000, 0x2fff),
            (0x1000, 0x4fff),
            (0x6000, 0x6fff),
        ];
        assert_eq!(
            gaps(&used, 0, 0x7fff),
            [(0, 0xfff), (0x5000, 0x5fff), (0x7000, 0x7fff)]
        );
    }

    #[test]
    fn the_walk_ends_when_the_visitor_says_so() {
        let used = Used(vec![(0x1000, 0x1fff)]);
        let mut seen = 0;
        walk_gaps(&used, AddressRange::ALL, &mut |_| {
            seen += 1;
            false
        })
        .expect("there is a map");
        assert_eq!(seen, 1);
    }
}
