//! The stop before a granule and the one behind it, found by way of the summaries.

use super::{Bits, LEVELS, WORD, from_bit, highest, lowest, up_to_bit, words_for};
use crate::atomic::Ordering;

impl Bits<'_> {
    /// Returns the first stop at or behind `granule`.
    #[inline]
    pub(super) fn next_stop(self, granule: usize) -> Option<usize> {
        let word = granule / WORD;
        let here = self.stop(word) & from_bit(granule);
        if here != 0 {
            return Some(word * WORD + lowest(here));
        }
        self.next_stop_behind(word)
    }

    /// Returns the first stop in a word behind this one.
    #[inline]
    pub(super) fn next_stop_behind(self, word: usize) -> Option<usize> {
        let (mut at, mut nodes, mut level) = (word + 1, self.lines, 0);
        if at >= nodes {
            return None;
        }
        // Most spans end here, and the word is most likely cached.
        if let Some(bit) = Self::bit(self.stop(at), lowest) {
            return Some(at * WORD + bit);
        }
        let summary = self.summary();
        let mut starts = [0; LEVELS];
        loop {
            if at >= nodes {
                return None;
            }
            let here = summary[starts[level] + at / WORD].load(Ordering::Acquire);
            let here = here & from_bit(at);
            nodes = words_for(nodes);
            if here != 0 {
                at = at / WORD * WORD + lowest(here);
                break;
            }
            at = at / WORD + 1;
            starts[level + 1] = starts[level] + nodes;
            level += 1;
        }
        for start in starts[..level].iter().rev() {
            let below = summary[start + at].load(Ordering::Acquire);
            // Nothing, though the summary says otherwise: the run is just being taken apart.
            at = at * WORD + Self::bit(below, lowest)?;
        }
        Some(at * WORD + Self::bit(self.stop(at), lowest)?)
    }

    /// Returns the last stop before `granule`.
    #[inline]
    pub(super) fn last_stop(self, granule: usize) -> Option<usize> {
        let last = granule.checked_sub(1)?;
        let word = last / WORD;
        let here = self.stop(word) & up_to_bit(last);
        if here != 0 {
            return Some(word * WORD + highest(here));
        }
        self.last_stop_before(word)
    }

    /// Returns the last stop in a word before this one.
    #[inline]
    pub(super) fn last_stop_before(self, word: usize) -> Option<usize> {
        let (mut end, mut nodes, mut level) = (word, self.lines, 0);
        if let Some(bit) = Self::bit(self.stop(end.checked_sub(1)?), highest) {
            return Some((end - 1) * WORD + bit);
        }
        let summary = self.summary();
        let mut starts = [0; LEVELS];
        let mut at = loop {
            let at = end.checked_sub(1)?;
            let here = summary[starts[level] + at / WORD].load(Ordering::Acquire);
            let here = here & up_to_bit(at);
            nodes = words_for(nodes);
            if here != 0 {
                break at / WORD * WORD + highest(here);
            }
            end = at / WORD;
            starts[level + 1] = starts[level] + nodes;
            level += 1;
        };
        for start in starts[..level].iter().rev() {
            let below = summary[start + at].load(Ordering::Acquire);
            at = at * WORD + Self::bit(below, highest)?;
        }
        Some(at * WORD + Self::bit(self.stop(at), highest)?)
    }
}
