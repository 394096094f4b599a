//! Where the addresses of a process end.

use crate::page::PageSize;

/// Steps of this many bytes are tried before pages are: the ends of address spaces that are no
/// powers of two are multiples of what one entry of a page table covers, or a page or two less.
const COARSE: usize = 1 << 30;

/// Finds the last address of a process by asking which pages exist, in about a dozen questions
/// where the addresses end at a power of two or a page or two before it, and in 60 at most.
///
/// `known` is an address that exists. `exists` is asked of the first address of a page: whether a
/// mapping can lie there, now or after another one has gone; `None` where that cannot be told,
/// which ends the search. Of two pages above `known`, the lower exists if the higher does.
///
/// ```
/// use hostmem_core::{page::PageSize, provider::last_address};
/// let end = (1 << 47) - 0x1000;
/// let last = last_address(0x40_0000, PageSize::KIB_4, &mut |page| Some(page < end));
/// assert_eq!(last, Some(end - 1));
/// ```
pub fn last_address(
    known: usize,
    page: PageSize,
    exists: &mut dyn FnMut(usize) -> Option<bool>,
) -> Option<usize> {
    let mut pages = Pages {
        exists,
        page: page.bytes(),
        low: page.round_down(known),
        high: None,
    };
    pages.bisect_bits()?;
    // The first page that does not exist, or what lies behind the last of all.
    let step = pages.page;
    let end = pages.high.unwrap_or(0);
    if pages.bisect_end(end, step)? {
        return Some(pages.last());
    }
    pages.bisect(COARSE.max(step))?;
    let end = pages.high?;
    if !pages.bisect_end(end, step)? {
        pages.bisect(step)?;
    }
    Some(pages.last())
}

/// What is known of the pages.
struct Pages<'a> {
    exists: &'a mut dyn FnMut(usize) -> Option<bool>,
    /// The bytes of one.
    page: usize,
    /// The highest that is known to exist.
    low: usize,
    /// The lowest that is known not to exist.
    high: Option<usize>,
}

impl Pages<'_> {
    /// Asks for one page, and remembers the answer.
    fn ask(&mut self, page: usize) -> Option<bool> {
        let exists = (self.exists)(page)?;
        if exists {
            self.low = self.low.max(page);
        } else {
            self.high = Some(self.high.map_or(page, |high| high.min(page)));
        }
        Some(exists)
    }

    /// Narrows down to addresses of one length in bits.
    fn bisect_bits(&mut self) -> Option<()> {
        let bits = usize::BITS - self.low.leading_zeros();
        let mut bits = bits.max(self.page.trailing_zeros());
        let mut too_many = usize::BITS;
        // Most processes have their stack near the end.
        let mut next = bits;
        while bits < too_many {
            if self.ask(1 << next)? {
                bits = next + 1;
            } else {
                too_many = next;
            }
            next = bits.midpoint(too_many);
        }
        Some(())
    }

    /// Asks for the last pages before `end`. Says whether the end is found with that.
    fn bisect_end(&mut self, end: usize, page: usize) -> Option<bool> {
        for pages in 1..=3 {
            let last = end.wrapping_sub(pages * page);
            if last <= self.low || self.ask(last)? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Halves what is not known at multiples of `step`, until none is left.
    fn bisect(&mut self, step: usize) -> Option<()> {
        loop {
            let high = self.high?;
            let middle = self.low.midpoint(high);
            let below = middle - middle % step;
            let middle = if below > self.low {
                below
            } else {
                below.saturating_add(step)
            };
            if middle >= high {
                return Some(());
            }
            self.ask(middle)?;
        }
    }

    /// Returns the last address of the highest page that exists.
    fn last(&self) -> usize {
        self.low + (self.page - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the end of a space of `end` bytes, 0 for all, from `known`; returns what it costs,
    /// too.
    fn find(end: usize, known: usize, page: PageSize) -> (Option<usize>, u32) {
        let mut asked = 0;
        let last = last_address(known, page, &mut |at| {
            asked += 1;
            assert!(page.is_aligned(at), "{at:#x} is no page");
            Some(at <= end.wrapping_sub(page.bytes()))
        });
        (last, asked)
    }

    const PAGES: [PageSize; 3] = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];

    #[test]
    fn powers_of_two_are_found_with_and_without_their_last_pages() {
        for page in PAGES {
            for bits in [57, 56, 52, 48, 47, 42, 39, 38, 36, 32, 31] {
                for missing in 0..3 {
                    let end = (1usize << bits) - missing * page.bytes();
                    for known in [0x1_0000, end / 2 + 77, end - 1] {
                        let (last, asked) = find(end, known, page);
                        assert_eq!(last, Some(end - 1), "{bits} bits, {missing} missing");
                        assert!(asked <= 10, "{asked} questions");
                    }
                }
            }
        }
    }

    #[test]
    fn other_ends_are_found() {
        let ends = [
            0xc000_0000,
            0xbf00_0000,
            0xffff_e000,
            0x7fc0_0000_0000,
            0x7f80_0000_0000,
            0x7fff_c000_0000,
            0x5555_5555_0000,
            0x60_0000_0000,
            0x1_0001_0000,
            0x2_0000,
        ];
        for page in PAGES {
            for end in ends {
                let end = page.round_down(end);
                for known in [0x1_0000, end / 2, end - 1] {
                    let (last, asked) = find(end, known, page);
                    assert_eq!(last, Some(end - 1), "from {known:#x} with {page:?}");
                    assert!(asked <= 60, "{asked} questions");
                }
            }
        }
        // What one entry of a page table covers is missing at the end.
        let (_, asked) = find(0x7fc0_0000_0000, 0x7fbf_ffff_0000, PageSize::KIB_4);
        assert!(asked <= 20, "{asked} questions");
    }

    #[test]
    fn any_end_is_found_from_anywhere() {
        let mut random = 1usize;
        let mut next = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            random
        };
        for page in PAGES {
            for _ in 0..20_000 {
                let end = page.round_down(next() >> (next() % 47)).max(page.bytes());
                let known = next() % end;
                assert_eq!(find(end, known, page).0, Some(end - 1), "{known:#x}");
            }
        }
    }

    #[test]
    fn a_space_may_have_all_addresses() {
        for page in PAGES {
            assert_eq!(find(0, 0x1_0000, page).0, Some(usize::MAX));
            assert_eq!(find(0, usize::MAX, page).0, Some(usize::MAX));
            let end = page.bytes().wrapping_neg();
            assert_eq!(find(end, 0x1_0000, page).0, Some(end - 1));
        }
    }

    #[test]
    fn one_page_is_a_space() {
        assert_eq!(find(0x1000, 0x10, PageSize::KIB_4).0, Some(0xfff));
    }

    #[test]
    fn a_question_without_an_answer_ends_the_search() {
        for nth in 0..60 {
            let (mut asked, mut none) = (0, false);
            let end = 0x5555_5555_0000;
            let last = last_address(0x1_0000, PageSize::KIB_4, &mut |at| {
                asked += 1;
                none = asked > nth;
                (!none).then_some(at < end)
            });
            assert_eq!(last, (!none).then_some(end - 1), "after {nth}");
        }
    }
}
