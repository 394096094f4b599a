//! Nodes: words that mean a leaf or an inner node.
//!
//! ```text
//!   leaf         header │ base │ offsets of the starts, two a word │ length and value, a word each
//!   wide leaf    header │      │ starts │ lengths │ values, two a word
//!   inner node   header │ lowest starts │ children, two a word ┃ largest gaps
//!                       └── what a query reads ────────────────┛
//! ```
//!
//! Leaves may have *dead* ranges: of no length, in the gap that they left, so that a range goes and
//! another one comes by one store. The first one is never dead.
//!
//! Every word is an atomic, so that a reader who comes late may read a node that has become another
//! one: what it got is then discarded. Slots behind the last one in use hold starts that no page
//! reaches; in inner nodes all slots of children, used or not, hold nodes.

use crate::atomic::{AtomicU64, Ordering};
use core::{array, ops::ControlFlow};

/// The words of a node: 768 bytes. Sixty-two ranges are found by three cache lines or four, and
/// copied in less time than a miss takes; wider nodes gain little on the first and lose on the
/// second.
pub(super) const WORDS: usize = 96;

/// A start that no page reaches: pages have at least two bytes.
const NEVER: u64 = 1 << 63;
/// The offset of no range in a leaf that is not wide. Offsets have 31 bits, so that pairs of them
/// are compared as words.
const NO_OFFSET: u32 = u32::MAX >> 1;
/// The bit of the header that makes a leaf wide.
const WIDE_BIT: u64 = 1 << 32;
/// What one dead range adds to the header.
const ONE_DEAD: u64 = 1 << 33;

/// How many starts are compared one and all, rather than by halves.
const GROUP: usize = 8;

/// One range of pages and the bits of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) bits: u32,
}

impl Entry {
    pub(super) const fn new(start: u64, end: u64, bits: u32) -> Self {
        Self {
            start,
            len: end - start,
            bits,
        }
    }

    /// Returns the page behind the last one.
    #[inline]
    pub(crate) const fn end(self) -> u64 {
        self.start + self.len
    }
}

/// Room in front of a range of a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) low: u64,
    pub(super) high: u64,
    /// The range behind it, and where the last one before that ends.
    pub(super) next: usize,
    pub(super) end: u64,
}

/// A child of an inner node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    /// The lowest start below it; of the very first child, where the tree's bounds begin.
    pub(super) low: u64,
    pub(super) id: u32,
    /// Pages of the largest gap below it.
    pub(super) gap: u64,
}

/// One node.
#[repr(C, align(64))]
pub(crate) struct Node<const W: usize> {
    words: [AtomicU64; W],
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
const fn low_half(word: u64) -> u32 {
    word as u32
}

#[inline]
const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}

/// Copies words, eight at a time: compilers do not merge steps of a loop over atomics.
#[inline]
fn copy(from: &[AtomicU64], to: &[AtomicU64]) {
    let step = |from: &AtomicU64, to: &AtomicU64| {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    };
    let (from, from_rest) = from.as_chunks::<8>();
    let (to, to_rest) = to.as_chunks::<8>();
    for (from, to) in from.iter().zip(to) {
        for (from, to) in from.iter().zip(to) {
            step(from, to);
        }
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        step(from, to);
    }
}

#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Returns 1 if `a` is less than `b`, both at most [`NEVER`]; by the sign, since compilers make long
/// detours of sums of comparisons.
#[inline]
const fn is_below(a: u64, b: u64) -> usize {
    (a.wrapping_sub(b) >> 63) as usize
}

impl<const W: usize> Node<W> {
    /// Ranges in a leaf; even.
    pub(super) const LEAF: usize = (W - 2) / 3 * 2;
    /// Ranges in a wide leaf.
    pub(super) const WIDE: usize = (W - 2) * 2 / 5;
    /// Children of an inner node.
    pub(super) const INNER: usize = (W - 1) * 2 / 5;

    const OFFSETS: usize = 2;
    const TAILS: usize = Self::OFFSETS + Self::LEAF / 2;

    const STARTS: usize = 2;
    const LENGTHS: usize = Self::STARTS + Self::WIDE;
    const VALUES: usize = Self::LENGTHS + Self::WIDE;

    const LOWS: usize = 1;
    const CHILDREN: usize = Self::LOWS + Self::INNER;
    const GAPS: usize = Self::CHILDREN + Self::INNER.div_ceil(2);

    pub(super) fn new() -> Self {
        const {
            assert!(
                W >= 12 && W <= WORDS,
                "buffers are made for the widest nodes"
            )
        };
        Self {
            words: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, at: usize, word: u64) {
        self.words[at].store(word, Ordering::Relaxed);
    }

    /// Returns how many of `slots` sorted words from `at` are at most `key`, which is below
    /// [`NEVER`], as the words are.
    #[inline]
    fn rank_words(&self, at: usize, slots: usize, key: u64) -> usize {
        let words = &self.words[at..at + slots];
        let reached = |word: &AtomicU64| is_below(word.load(Ordering::Relaxed), key + 1);
        if slots < 2 * GROUP {
            return words.iter().map(reached).sum();
        }
        // No branch depends on a page here, so none is predicted wrongly, and the lines of all
        // groups are fetched at once.
        let (groups, _) = words.as_chunks::<GROUP>();
        let whole: usize = groups.iter().map(|group| reached(&group[GROUP - 1])).sum();
        let before = (whole * GROUP).min(slots - GROUP);
        before
            + words[before..before + GROUP]
                .iter()
                .map(reached)
                .sum::<usize>()
    }

    /// Returns how many offsets are at most `key`, which is below [`NO_OFFSET`].
    #[inline]
    fn rank_offsets(&self, key: u32) -> usize {
        const PAIRS: usize = GROUP / 2;
        let words = &self.words[Self::OFFSETS..Self::TAILS];
        // A pair is below this if its larger half is at most the key.
        let end = u64::from(key + 1) << 32;
        let reached = |word: &AtomicU64| is_below(word.load(Ordering::Relaxed), end);
        let pairs = if Self::LEAF < 2 * GROUP {
            words.iter().map(reached).sum()
        } else {
            let (groups, _) = words.as_chunks::<PAIRS>();
            let whole: usize = groups.iter().map(|group| reached(&group[PAIRS - 1])).sum();
            let before = (whole * PAIRS).min(Self::LEAF / 2 - PAIRS);
            before
                + words[before..before + PAIRS]
                    .iter()
                    .map(reached)
                    .sum::<usize>()
        };
        let half = words
            .get(pairs)
            .map_or(NO_OFFSET, |word| low_half(word.load(Ordering::Relaxed)));
        2 * pairs + usize::from(half <= key)
    }
}

/// Leaves.
impl<const W: usize> Node<W> {
    /// Returns how many ranges, or children, there are.
    #[inline]
    pub(super) fn count(&self) -> usize {
        low_half(self.get(0)) as usize
    }

    #[inline]
    pub(super) fn is_wide(&self) -> bool {
        self.get(0) & WIDE_BIT != 0
    }

    /// Returns how many of the ranges are dead.
    #[inline]
    pub(super) fn dead(&self) -> usize {
        (self.get(0) / ONE_DEAD) as usize
    }

    /// Returns how many ranges of a leaf are not dead.
    #[inline]
    pub(super) fn live(&self) -> usize {
        self.count() - self.dead()
    }

    /// Returns how many ranges, dead ones too, start at or below `page`.
    #[inline]
    pub(super) fn rank(&self, page: u64) -> usize {
        self.rank_as(self.is_wide(), page)
    }

    #[inline]
    fn rank_as(&self, wide: bool, page: u64) -> usize {
        if wide {
            return self.rank_words(Self::STARTS, Self::WIDE, page);
        }
        let Some(offset) = page.checked_sub(self.get(1)) else {
            return 0;
        };
        self.rank_offsets(
            u32::try_from(offset)
                .unwrap_or(NO_OFFSET)
                .min(NO_OFFSET - 1),
        )
    }

    /// Returns the range with the highest start at or below `page`, dead or not, and the next one behind
    /// it that is not dead, for a reader: one that comes late gets anything, but gets it from within
    /// the node.
    #[inline]
    pub(super) fn around(&self, page: u64) -> (Option<Entry>, impl FnOnce() -> Option<Entry>) {
        let header = self.get(0);
        let wide = header & WIDE_BIT != 0;
        let rank = self.rank_as(wide, page);
        let below = rank.checked_sub(1).map(|n| self.entry_as(wide, n));
        let next = move || {
            let slots = if wide { Self::WIDE } else { Self::LEAF };
            let count = slots.min(low_half(header) as usize);
            let mut behind = (rank..count).map(|n| self.entry_as(wide, n));
            behind.find(|e| e.len != 0)
        };
        (below, next)
    }

    #[inline]
    fn offset(&self, n: usize) -> u32 {
        let word = self.get(Self::OFFSETS + n / 2);
        if n.is_multiple_of(2) {
            low_half(word)
        } else {
            high_half(word)
        }
    }

    /// Returns where a range starts.
    #[inline]
    pub(super) fn start(&self, n: usize) -> u64 {
        if self.is_wide() {
            self.get(Self::STARTS + n)
        } else {
            self.get(1).wrapping_add(self.offset(n).into())
        }
    }

    /// Returns a range.
    #[inline]
    pub(super) fn entry(&self, n: usize) -> Entry {
        self.entry_as(self.is_wide(), n)
    }

    #[inline]
    fn entry_as(&self, wide: bool, n: usize) -> Entry {
        if wide {
            let values = self.get(Self::VALUES + n / 2);
            return Entry {
                start: self.get(Self::STARTS + n),
                len: self.get(Self::LENGTHS + n),
                bits: if n.is_multiple_of(2) {
                    low_half(values)
                } else {
                    high_half(values)
                },
            };
        }
        let tail = self.get(Self::TAILS + n);
        Entry {
            start: self.get(1).wrapping_add(self.offset(n).into()),
            len: high_half(tail).into(),
            bits: low_half(tail),
        }
    }

    /// Yields the ranges that are not dead.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries_from(0)
    }

    /// Yields those of the ranges from the nth on that are not dead.
    #[inline]
    pub(super) fn entries_from(&self, n: usize) -> impl Iterator<Item = Entry> + '_ {
        let wide = self.is_wide();
        let all = (n..self.count()).map(move |n| self.entry_as(wide, n));
        all.filter(|e| e.len != 0)
    }

    /// Returns the start of the first range from the nth on that is not dead.
    #[inline]
    pub(super) fn next_start(&self, n: usize) -> Option<u64> {
        self.entries_from(n).next().map(|e| e.start)
    }

    /// Returns the end of the last range before the nth that is not dead: there is one unless `n` is 0.
    #[inline]
    pub(super) fn end_before(&self, n: usize) -> u64 {
        let before = (0..n).rev().map(|n| self.entry(n));
        let mut live = before.filter(|e| e.len != 0);
        live.next().map_or(self.start(0), Entry::end)
    }

    /// Says whether a leaf that is not wide, and starts at `base`, can hold a range.
    #[inline]
    fn packs(base: u64, entry: Entry) -> bool {
        entry.start >= base && entry.start - base < NO_OFFSET.into() && entry.len <= u32::MAX.into()
    }

    /// Says whether ranges can be written to one leaf.
    pub(super) fn fits(entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else {
            return false;
        };
        entries.len() <= Self::WIDE
            || entries.len() <= Self::LEAF && entries.iter().all(|e| Self::packs(first.start, *e))
    }

    fn tail(entry: Entry) -> u64 {
        pair(entry.bits, u32::try_from(entry.len).unwrap_or(u32::MAX))
    }

    /// Writes a leaf of ranges that fit.
    pub(super) fn write_leaf(&self, entries: &[Entry]) {
        let base = entries.first().map_or(0, |e| e.start);
        let count = entries.len() as u64;
        if entries.iter().all(|e| Self::packs(base, *e)) {
            self.set(0, count);
            self.set(1, base);
            let offset = |n: usize| {
                let offset = entries.get(n).map(|e| e.start - base);
                offset.map_or(NO_OFFSET, low_half)
            };
            for word in 0..Self::LEAF / 2 {
                self.set(
                    Self::OFFSETS + word,
                    pair(offset(2 * word), offset(2 * word + 1)),
                );
            }
            for (n, entry) in entries.iter().enumerate() {
                self.set(Self::TAILS + n, Self::tail(*entry));
            }
            return;
        }
        self.write_wide(entries.iter().copied());
    }

    fn write_wide(&self, entries: impl Iterator<Item = Entry>) {
        let mut count = 0;
        for entry in entries {
            self.set(Self::STARTS + count, entry.start);
            self.set(Self::LENGTHS + count, entry.len);
            self.set_half(Self::VALUES + count / 2, count, entry.bits);
            count += 1;
        }
        for n in count..Self::WIDE {
            self.set(Self::STARTS + n, NEVER);
        }
        self.set(0, count as u64 | WIDE_BIT);
    }

    /// Returns how many ranges fit into a leaf as it is.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        if self.is_wide() {
            Self::WIDE
        } else {
            Self::LEAF
        }
    }

    /// Says whether [`Node::write_spliced`] can make a leaf from this one.
    #[inline]
    pub(super) fn can_splice(&self, from: usize, to: usize, with: &[Entry]) -> bool {
        let first_stays = from > 0 || with.first().is_some_and(|e| e.start == self.start(0));
        first_stays
            && self.count() - (to - from) + with.len() <= self.capacity()
            && with.iter().all(|e| self.can_hold(*e))
    }

    /// Writes a leaf that is `old` with other ranges in place of `from..to`. It has the dead ranges of
    /// `old` elsewhere, and does not count them yet.
    pub(super) fn write_spliced(&self, old: &Self, from: usize, to: usize, with: &[Entry]) {
        let (base, count) = (old.get(1), old.count());
        let shifted = from + with.len();
        if old.is_wide() {
            let in_front = (0..from).map(|n| old.entry_as(true, n));
            let behind = (to..count).map(|n| old.entry_as(true, n));
            self.write_wide(in_front.chain(with.iter().copied()).chain(behind));
            return;
        }
        self.set(0, (shifted + count - to) as u64);
        self.set(1, base);
        self.splice_offsets(old, (from, to), with, base);
        let (source, target) = (&old.words[Self::TAILS..], &self.words[Self::TAILS..]);
        copy(&source[..from], &target[..from]);
        for (new, entry) in target[from..shifted].iter().zip(with) {
            new.store(Self::tail(*entry), Ordering::Relaxed);
        }
        copy(&source[to..count], &target[shifted..shifted + count - to]);
    }

    #[inline]
    fn splice_offsets(&self, old: &Self, (from, to): (usize, usize), with: &[Entry], base: u64) {
        let words = |node| -> &[AtomicU64] {
            let node: &Self = node;
            &node.words[Self::OFFSETS..Self::TAILS]
        };
        let (source, target) = (words(old), words(self));
        let shifted = from + with.len();
        // Where the nth range behind the change was; there is none behind the last slot.
        let offset = |n: usize| match n {
            n if n < from => old.offset(n),
            n if n < shifted => low_half(with[n - from].start - base),
            n if n - shifted + to < Self::LEAF => old.offset(n - shifted + to),
            _ => NO_OFFSET,
        };
        let (first, rest) = (from / 2, shifted.div_ceil(2).min(target.len()));
        copy(&source[..first], &target[..first]);
        for (n, word) in target.iter().enumerate().take(rest).skip(first) {
            word.store(pair(offset(2 * n), offset(2 * n + 1)), Ordering::Relaxed);
        }
        let was = 2 * rest - shifted + to;
        let behind = &source[(was / 2).min(source.len())..];
        let target = &target[rest..];
        let copied = if was.is_multiple_of(2) {
            let copied = behind.len().min(target.len());
            copy(&behind[..copied], &target[..copied]);
            copied
        } else {
            let mut halves = behind.iter().map(|word| word.load(Ordering::Relaxed));
            let mut low = halves.next().unwrap_or(pair(NO_OFFSET, NO_OFFSET));
            let mut copied = 0;
            for (next, word) in halves.zip(target) {
                word.store(low >> 32 | next << 32, Ordering::Relaxed);
                low = next;
                copied += 1;
            }
            if let Some(word) = target.get(copied) {
                word.store(pair(high_half(low), NO_OFFSET), Ordering::Relaxed);
                copied += 1;
            }
            copied
        };
        for word in &target[copied..] {
            word.store(pair(NO_OFFSET, NO_OFFSET), Ordering::Relaxed);
        }
    }

    /// Finds the first range from the nth on that starts `len` pages or more behind `end`, where the one
    /// before ends; returns where the last one ends if there is none.
    #[inline]
    pub(super) fn next_room(&self, n: usize, mut end: u64, len: u64) -> Result<Room, u64> {
        let found = |n: usize, end: u64, entry: Entry| Room {
            low: end,
            high: entry.start,
            next: n + 1,
            end: if entry.len == 0 { end } else { entry.end() },
        };
        if self.is_wide() {
            for n in n..self.count() {
                let entry = self.entry_as(true, n);
                if entry.start - end >= len {
                    return Ok(found(n, end, entry));
                }
                end = if entry.len == 0 { end } else { entry.end() };
            }
            return Err(end);
        }
        let (base, count) = (self.get(1), self.count());
        // From an even one on, since offsets come in pairs, and from the second pair on, since what
        // lies in front of the base is no offset.
        let even = count.min(n.max(1).next_multiple_of(2));
        for n in n..even {
            let entry = self.entry_as(false, n);
            if entry.start - end >= len {
                return Ok(found(n, end, entry));
            }
            end = if entry.len == 0 { end } else { entry.end() };
        }
        end = end.wrapping_sub(base);
        let room = self.scan_narrow(even, |n, offset, pages| {
            // In front of a dead one there is at most as much as in front of the next one.
            if offset - end >= len {
                return ControlFlow::Break(found(n, base + end, self.entry_as(false, n)));
            }
            end = if pages == 0 { end } else { offset + pages };
            ControlFlow::Continue(())
        });
        match room {
            ControlFlow::Break(room) => Ok(room),
            ControlFlow::Continue(()) => Err(base.wrapping_add(end)),
        }
    }

    /// Shows number, offset and length of the ranges from an even one on, in a leaf that is not wide.
    #[inline]
    fn scan_narrow<B>(
        &self,
        even: usize,
        mut visit: impl FnMut(usize, u64, u64) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let tails = &self.words[Self::TAILS + even..Self::TAILS + self.count().max(even)];
        let offsets = &self.words[Self::OFFSETS + even / 2..Self::TAILS];
        let (pairs, last) = tails.as_chunks::<2>();
        let length = |tail: &AtomicU64| tail.load(Ordering::Relaxed) >> 32;
        let mut n = even;
        for (word, [low, high]) in offsets.iter().zip(pairs) {
            let word = word.load(Ordering::Relaxed);
            visit(n, low_half(word).into(), length(low))?;
            visit(n + 1, high_half(word).into(), length(high))?;
            n += 2;
        }
        if let ([tail], Some(word)) = (last, offsets.get(pairs.len())) {
            visit(
                n,
                low_half(word.load(Ordering::Relaxed)).into(),
                length(tail),
            )?;
        }
        ControlFlow::Continue(())
    }

    /// Returns the pages of the largest gap of a leaf that answers for the pages `low..high`. The
    /// caller knows that none is larger than `most`.
    pub(super) fn leaf_gap(&self, low: u64, high: u64, most: u64) -> u64 {
        let count = self.count();
        if self.is_wide() || count == 0 {
            let (mut end, mut gap) = (low, 0);
            for entry in self.entries() {
                gap = gap.max(entry.start - end);
                end = entry.end();
            }
            return gap.max(high - end);
        }
        let base = self.get(1);
        let mut gap = base - low;
        let mut end = 0;
        let _ = self.scan_narrow(0, |_, offset, pages| {
            // What lies between a range and a dead one is a part of the gap around that.
            gap = gap.max(offset - end);
            end = if pages == 0 { end } else { offset + pages };
            if gap >= most {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if gap >= most {
            return gap;
        }
        gap.max(high - base - end)
    }
}

/// Changes of leaves while readers are in them: one store is all that they can tell of each.
impl<const W: usize> Node<W> {
    /// Says whether a leaf as it is can hold a range.
    #[inline]
    pub(super) fn can_hold(&self, entry: Entry) -> bool {
        self.is_wide() || Self::packs(self.get(1), entry)
    }

    /// Changes the length of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(super) fn set_len(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::LENGTHS + n, entry.len);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Changes the value of the nth range to that of `entry`, which differs in nothing else.
    #[inline]
    pub(super) fn set_bits(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set_half(Self::VALUES + n / 2, n, entry.bits);
        } else {
            self.set(Self::TAILS + n, Self::tail(entry));
        }
    }

    /// Makes the nth range a dead one.
    #[inline]
    pub(super) fn kill(&self, n: usize) {
        let entry = Entry {
            len: 0,
            ..self.entry(n)
        };
        self.set_len(n, entry);
        self.set(0, self.get(0) + ONE_DEAD);
    }

    /// Moves the nth range, which is dead, within the gap that it lies in, to where `entry` begins.
    #[inline]
    pub(super) fn move_dead(&self, n: usize, entry: Entry) {
        if self.is_wide() {
            self.set(Self::STARTS + n, entry.start);
            self.set_bits(n, entry);
        } else {
            let offset = low_half(entry.start - self.get(1));
            self.set_half(Self::OFFSETS + n / 2, n, offset);
        }
    }

    /// Makes the nth range, which is dead and was moved for this, `entry`.
    #[inline]
    pub(super) fn revive(&self, n: usize, entry: Entry) {
        self.set_len(n, entry);
        self.set(0, self.get(0) - ONE_DEAD);
    }

    /// Notes how many ranges of a copied leaf are dead.
    #[inline]
    pub(super) fn set_dead(&self, dead: usize) {
        self.set(0, self.get(0) + ONE_DEAD * dead as u64);
    }

    /// Changes the lower half of a word for even numbers, the upper one for odd ones.
    #[inline]
    fn set_half(&self, at: usize, n: usize, half: u32) {
        let word = self.get(at);
        let word = if n.is_multiple_of(2) {
            pair(half, high_half(word))
        } else {
            pair(low_half(word), half)
        };
        self.set(at, word);
    }
}

/// Inner nodes.
impl<const W: usize> Node<W> {
    /// Returns the child that answers for `page`.
    #[inline]
    pub(super) fn child_for(&self, page: u64) -> usize {
        // A reader that comes late may find none.
        self.rank_words(Self::LOWS, Self::INNER, page)
            .saturating_sub(1)
    }

    /// Returns the lowest start of a child; behind the last child, a page that is never reached.
    #[inline]
    pub(super) fn low(&self, n: usize) -> u64 {
        if n < Self::INNER {
            self.get(Self::LOWS + n)
        } else {
            NEVER
        }
    }

    /// Returns a child, and all that was written to it.
    #[inline]
    pub(super) fn child(&self, n: usize) -> u32 {
        let word = self.words[Self::CHILDREN + n / 2].load(Ordering::Acquire);
        if n.is_multiple_of(2) {
            low_half(word)
        } else {
            high_half(word)
        }
    }

    /// Publishes another child in the place of the nth: the one change of a node that readers
    /// reach, a single store.
    #[inline]
    pub(super) fn publish_child(&self, n: usize, id: u32) {
        let slot = &self.words[Self::CHILDREN + n / 2];
        let word = slot.load(Ordering::Relaxed);
        let word = if n.is_multiple_of(2) {
            pair(id, high_half(word))
        } else {
            pair(low_half(word), id)
        };
        slot.store(word, Ordering::Release);
    }

    /// Returns the pages of the largest gap below a child. No reader asks.
    #[inline]
    pub(super) fn gap(&self, n: usize) -> u64 {
        self.get(Self::GAPS + n)
    }

    /// Finds the first child from the nth on with a gap of `len` pages or more.
    #[inline]
    pub(super) fn next_gap(&self, n: usize, len: u64) -> Option<usize> {
        let gaps = &self.words[Self::GAPS..Self::GAPS + self.count()];
        let mut from = gaps.iter().enumerate().skip(n);
        let found = from.find(|(_, gap)| gap.load(Ordering::Relaxed) >= len);
        found.map(|(n, _)| n)
    }

    /// Changes the largest gap below a child. No reader sees it.
    #[inline]
    pub(super) fn set_gap(&self, n: usize, gap: u64) {
        self.set(Self::GAPS + n, gap);
    }

    /// Returns the pages of the largest gap below the node.
    pub(super) fn inner_gap(&self) -> u64 {
        let gaps = &self.words[Self::GAPS..Self::GAPS + self.count()];
        let gaps = gaps.iter().map(|gap| gap.load(Ordering::Relaxed));
        gaps.max().unwrap_or(0)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = Child> + '_ {
        (0..self.count()).map(|n| Child {
            low: self.low(n),
            id: self.child(n),
            gap: self.gap(n),
        })
    }

    /// Writes an inner node of at least one child.
    pub(super) fn write_inner(&self, children: &[Child]) {
        self.set(0, children.len() as u64);
        for n in 0..Self::INNER {
            let low = children.get(n).map_or(NEVER, |child| child.low);
            self.set(Self::LOWS + n, low);
            self.set_gap(n, children.get(n).map_or(0, |child| child.gap));
        }
        // Slots that are not in use hold nodes, too: a reader that comes late may follow any.
        let id = |n: usize| children.get(n).or(children.first()).map_or(0, |c| c.id);
        for word in 0..Self::INNER.div_ceil(2) {
            self.set(Self::CHILDREN + word, pair(id(2 * word), id(2 * word + 1)));
        }
    }
}

/// Nodes that nobody uses.
impl<const W: usize> Node<W> {
    /// Returns the next one.
    pub(super) fn next_free(&self) -> u32 {
        low_half(self.get(0))
    }

    pub(super) fn set_next_free(&self, id: u32) {
        self.set(0, id.into());
    }
}
