//! The tree against a plain ordered map, with nodes of several sizes.

extern crate std;
use super::{
    Value,
    change::Pages,
    gap::Wanted,
    node::{Entry, Node, saturated},
    pool::{Source, Writer},
    tree::Tree,
};
use crate::provider::{Error, ErrorKind};
use core::{cell::Cell, ptr::NonNull};
use std::{
    boxed::Box,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    vec::Vec,
};

/// A value whose ranges stay apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart(u32);

impl Value for Apart {
    fn to_bits(self) -> u32 {
        self.0
    }
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn joins(self) -> bool {
        false
    }
}

/// A value of more than 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Big(u32);

impl Value for Big {
    fn to_bits(self) -> u32 {
        self.0
    }
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn to_bits64(self) -> u64 {
        u64::from(self.0) << (20 * self.0)
    }
    fn from_bits64(bits: u64) -> Self {
        let all = [0, 1, 2].map(Self);
        let found = all.into_iter().find(|big| big.to_bits64() == bits);
        found.expect("nothing else was inserted")
    }
}

/// Nodes in one slice, given out until they are used up or a call is to fail.
struct Slab<const W: usize> {
    nodes: NonNull<[Node<W>]>,
    used: Cell<usize>,
    /// Whether there is nothing left.
    exhausted: Cell<bool>,
    /// Whether each call gives as little as it may.
    sparing: Cell<bool>,
}

impl<const W: usize> Slab<W> {
    fn new(count: usize) -> Self {
        let nodes: Vec<_> = (0..count).map(|_| Node::new()).collect();
        Self {
            nodes: NonNull::from(Box::leak(nodes.into_boxed_slice())),
            used: Cell::new(0),
            exhausted: Cell::new(false),
            sparing: Cell::new(false),
        }
    }
}

impl<const W: usize> Drop for Slab<W> {
    fn drop(&mut self) {
        // SAFETY: leaked from a box in new, and the trees that used it are gone.
        drop(unsafe { Box::from_raw(self.nodes.as_ptr()) });
    }
}

// SAFETY: the slice is initialised, stays until the slab is dropped, and each part of it is given out
// once.
unsafe impl<const W: usize> Source<W> for Slab<W> {
    fn nodes(&self, least: usize, most: usize) -> Result<(NonNull<Node<W>>, usize), Error> {
        let first = self.used.get();
        let left = self.nodes.len() - first;
        let most = if self.sparing.get() { least } else { most };
        if self.exhausted.get() || left < least {
            return Err(ErrorKind::Exhausted.into());
        }
        let count = most.min(left);
        self.used.set(first + count);
        // SAFETY: first < all nodes of the slice, so that this is inside it.
        Ok((unsafe { self.nodes.cast().add(first) }, count))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// The plain map.
#[derive(Clone, Default)]
struct Oracle {
    /// End and value by start.
    map: BTreeMap<u64, (u64, u32)>,
    joins: bool,
}

impl Oracle {
    fn overlapping(&self, (start, end): Pages) -> Vec<(u64, u64, u32)> {
        let all = self.map.range(..end).rev();
        let mut found: Vec<_> = all
            .take_while(|(_, (e, _))| *e > start)
            .map(|(&s, &(e, v))| (s, e, v))
            .collect();
        found.reverse();
        found
    }

    fn remove(&mut self, (start, end): Pages) -> u64 {
        let mut pages = 0;
        for (s, e, v) in self.overlapping((start, end)) {
            self.map.remove(&s);
            pages += e.min(end) - s.max(start);
            if s < start {
                self.map.insert(s, (start, v));
            }
            if e > end {
                self.map.insert(end, (e, v));
            }
        }
        pages
    }

    fn insert(&mut self, (start, end): Pages, value: u32) -> u64 {
        let pages = self.remove((start, end));
        let (mut start, mut end) = (start, end);
        if self.joins {
            let below = self.map.range(..start).next_back().map(|(&s, &x)| (s, x));
            if let Some((s, _)) = below.filter(|&(_, x)| x == (start, value)) {
                self.map.remove(&s);
                start = s;
            }
            if let Some(&(e, _)) = self.map.get(&end).filter(|&&(_, v)| v == value) {
                self.map.remove(&end);
                end = e;
            }
        }
        self.map.insert(start, (end, value));
        pages
    }

    fn update(&mut self, range: Pages, change: impl Fn(u32) -> u32) -> u64 {
        let mut pages = 0;
        for (s, e, v) in self.overlapping(range) {
            let part = (s.max(range.0), e.min(range.1));
            pages += part.1 - part.0;
            if change(v) != v {
                self.insert(part, change(v));
            }
        }
        pages
    }

    /// All ranges and gaps of a window, cut off at its ends.
    fn pieces(&self, (low, high): Pages) -> Vec<(Pages, Option<u32>)> {
        let ranges = self.overlapping((low, high)).into_iter();
        let ranges = ranges.map(|(s, e, v)| ((s.max(low), e.min(high)), Some(v)));
        let gaps = self.gaps((low, high)).into_iter().map(|gap| (gap, None));
        let mut all: Vec<_> = ranges.chain(gaps).collect();
        all.sort_unstable();
        all
    }

    fn gaps(&self, (low, high): Pages) -> Vec<Pages> {
        let (mut at, mut gaps) = (low, Vec::new());
        for (s, e, _) in self.overlapping((low, high)) {
            if s > at {
                gaps.push((at, s));
            }
            at = e;
        }
        if at < high {
            gaps.push((at, high));
        }
        gaps
    }

    /// All starts of a gap that fit, as first, last and how far apart.
    fn fits(&self, wanted: &Wanted) -> Vec<(u64, u64, u64)> {
        let gaps = self.gaps((wanted.low, wanted.high)).into_iter();
        let fit = |(low, high): Pages| {
            let up = (wanted.align - (low + wanted.shift) % wanted.align) % wanted.align;
            let first = low + up;
            let last = high.checked_sub(wanted.len)?;
            let last = last.checked_sub((last + wanted.shift) % wanted.align)?;
            (first <= last).then_some((first, last, wanted.align))
        };
        gaps.filter_map(fit).collect()
    }

    fn nearest(&self, wanted: &Wanted, page: u64) -> Option<u64> {
        let fits = self.fits(wanted).into_iter();
        let in_one = |(first, last, step): (u64, u64, u64)| {
            let below = first + page.clamp(first, last).abs_diff(first) / step * step;
            [below, (below + step).min(last)]
        };
        fits.flat_map(in_one)
            .min_by_key(|&start| (start.abs_diff(page), start))
    }
}

impl<T: Value, const W: usize> Tree<T, W> {
    fn all(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        let mut page = self.low;
        while let Some(entry) = (page < self.high).then(|| self.next_from(page)).flatten() {
            all.push(entry);
            page = entry.end();
        }
        all
    }

    /// Checks nodes against each other, and what the writer counts against them.
    fn check(&self, writer: &Writer<W>) {
        let (mut nodes, mut ranges, mut pages) = (0, 0, 0);
        let mut below = |node: &Node<W>| {
            ranges += node.live();
            pages += node.entries().map(|e| e.len).sum::<u64>();
        };
        if let Some(root) = self.root() {
            self.check_node(root, (self.low, self.high), &mut nodes, &mut below);
        }
        assert_eq!(nodes, writer.used(), "nodes are in the tree or not in use");
        assert_eq!((ranges, pages), (writer.ranges, writer.pages));
    }

    fn check_node(
        &self,
        (id, level): (u32, usize),
        (low, high): Pages,
        nodes: &mut usize,
        leaf: &mut dyn FnMut(&Node<W>),
    ) -> u64 {
        let node = self.node(id);
        *nodes += 1;
        assert!(node.count() > 0, "no node is empty");
        if level == 0 {
            leaf(node);
            let mut end = low;
            let mut dead = 0;
            for n in 0..node.count() {
                let entry = node.entry(n);
                assert!(entry.start >= end && entry.end() <= high, "in order");
                assert_eq!(node.rank(entry.start), n + 1, "starts differ");
                end = entry.end();
                dead += usize::from(entry.len == 0);
            }
            assert!(node.entry(0).len > 0, "the first one is not dead");
            assert_eq!(dead, node.dead());
            assert!(
                low == self.low || node.start(0) == low,
                "exact lowest starts"
            );
            return saturated(node.leaf_gap(low, high, u64::MAX));
        }
        let children: Vec<_> = node.children().collect();
        assert_eq!(children[0].low, low);
        for (n, child) in children.iter().enumerate() {
            let next = children.get(n + 1).map_or(high, |next| next.low);
            let gap = self.check_node((child.id, level - 1), (child.low, next), nodes, leaf);
            assert_eq!(gap, child.gap, "exact gaps");
        }
        node.inner_gap()
    }
}

/// Where pages of a model lie: so many apart, and from where on.
#[derive(Clone, Copy)]
struct Layout {
    base: u64,
    step: u64,
    slots: u64,
}

/// What is prepared succeeds when there is nothing left.
fn prepared<const W: usize>(layout: Layout, seed: u64) {
    let slab = Slab::<W>::new(60_000);
    slab.sparing.set(true);
    let Layout { base, step, slots } = layout;
    let (low, high) = (base, base + slots * step);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<u32, W> = unsafe { Tree::new(&slab, low, high) };
    let mut writer = Writer::new();
    let mut random = Random(seed);
    let any = |random: &mut Random, longest: u64| {
        let slot = random.below(slots);
        let count = 1 + random.below(longest.min(slots - slot));
        let value = u32::try_from(random.below(3)).ok().filter(|n| *n < 2);
        (
            ((base + slot * step), (base + (slot + count) * step)),
            value,
        )
    };
    for round in 0..scaled(60) {
        // From an empty tree, a full one, and one that is a single range.
        let pages = (low, high);
        slab.exhausted.set(false);
        let filled = [None, Some(7)][round % 2];
        let set = |writer: &mut _, (pages, value): (Pages, Option<u32>)| {
            tree.set_at(writer, &slab, pages, value, None)
        };
        set(&mut writer, (pages, filled)).expect("nodes");
        for _ in 0..random.below(3000) {
            let change = any(&mut random, 3);
            set(&mut writer, change).expect("nodes");
        }
        let changes = 1 + random.below(400);
        let number = usize::try_from(changes).expect("few");
        tree.prepare(&mut writer, &slab, number).expect("nodes");
        slab.exhausted.set(true);
        let (in_order, longest) = (random.below(3), 1 + random.below(5));
        for n in 0..changes {
            let mut change = any(&mut random, longest);
            if in_order == 0 {
                // Every second page of a long range.
                let start = base + 2 * n % slots * step;
                change = ((start, start + step), Some(2));
            } else if random.below(64) == 0 {
                change.0.1 = high;
            }
            set(&mut writer, change).unwrap_or_else(|error| {
                panic!("change {n} of {changes} in round {round}: {error}")
            });
        }
        tree.check(&writer);
    }
}

#[test]
fn what_was_prepared_cannot_fail() {
    for (step, slots) in [(1, 4000), (2, 3000), (1 << 33, 2000)] {
        let layout = Layout {
            base: 16,
            step,
            slots,
        };
        prepared::<48>(layout, 0x1234_5678 + step);
        prepared::<24>(layout, 0x1234_5679 + step);
        prepared::<96>(layout, 0x1234_567a + step);
    }
}

/// Returns how many operations to do of so many: more in a long run, few under an emulator.
fn scaled(operations: usize) -> usize {
    if std::env::var_os("HOSTMEM_LONG").is_some() {
        operations * 20
    } else if std::env::var_os("HOSTMEM_EMULATED").is_some() {
        operations / 20
    } else {
        operations
    }
}

fn model<T: Value, const W: usize>(layout: Layout, operations: usize, seed: u64) {
    let operations = scaled(operations);
    let slab = Slab::<W>::new(40_000);
    let Layout { base, step, slots } = layout;
    let (low, high) = (base, base + slots * step);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<T, W> = unsafe { Tree::new(&slab, low, high) };
    let mut writer = Writer::new();
    let mut oracle = Oracle {
        joins: T::from_bits(0).joins(),
        ..Oracle::default()
    };
    let mut random = Random(seed);
    let (mut deepest, mut most) = (0, 0);
    for n in 0..operations {
        // Slow tides between full and empty, long ranges now and then.
        let fills = (n / (operations / 8).max(1)).is_multiple_of(2);
        let slot = random.below(slots);
        let longest = match random.below(64) {
            0 => slots - slot,
            1..8 => 40.min(slots - slot),
            _ => 3.min(slots - slot),
        };
        let count = 1 + random.below(longest);
        let mut pages = (base + slot * step, base + (slot + count) * step);
        if step > 4 && random.below(3) == 0 {
            // Not in step.
            pages = (
                pages.0 + random.below(step / 2),
                pages.1 - random.below(step / 2),
            );
        }
        if longest > 40 && fills {
            pages.1 = pages.1.min(pages.0 + 40 * step);
        }
        let bits = u32::try_from(random.below(3)).expect("small");
        let value = T::from_bits(bits);
        let kind = random.below(10);
        let removes = if fills { 2 } else { 6 };
        if kind < removes {
            let had = tree.remove(&mut writer, &slab, pages);
            assert_eq!(had, Ok(oracle.remove(pages)));
        } else if kind < 7 {
            let taken = !oracle.overlapping(pages).is_empty();
            let result = tree.insert_new(&mut writer, &slab, pages, value);
            assert_eq!(result.is_err(), taken);
            if !taken {
                oracle.insert(pages, bits);
            }
        } else if kind < 9 {
            let had = tree.insert(&mut writer, &slab, pages, value);
            assert_eq!(had, Ok(oracle.insert(pages, bits)));
        } else if random.below(2) == 0 {
            // Removes, fills and changes; each piece by where it lies.
            let salt = random.below(1000);
            let change = |start: u64, old: Option<u32>| match (start / step + salt) % 7 {
                0 => None,
                1 => Some(1),
                2 => old.map(|bits| (bits + 1) % 3),
                3 => old.or(Some(2)),
                _ => old,
            };
            let mut asked = Vec::new();
            let had = tree.rewrite(&mut writer, &slab, pages, true, |piece, old: Option<T>| {
                let old = old.map(T::to_bits);
                asked.push((piece, old));
                change(piece.0, old).map(T::from_bits)
            });
            let pieces = oracle.pieces(pages);
            assert_eq!(asked, pieces);
            let covered = pieces.iter().filter(|(_, old)| old.is_some());
            let covered: u64 = covered.map(|((start, end), _)| end - start).sum();
            assert_eq!(had, Ok(covered));
            for (piece, old) in pieces {
                match change(piece.0, old) {
                    new if new == old => {}
                    Some(bits) => drop(oracle.insert(piece, bits)),
                    None => drop(oracle.remove(piece)),
                }
            }
        } else {
            let change = |bits: u32| if bits == 2 { 0 } else { bits + 1 };
            let had = tree.update(&mut writer, &slab, pages, |value: T| {
                T::from_bits(change(value.to_bits()))
            });
            assert_eq!(had, Ok(oracle.update(pages, change)));
        }
        compare_near(&tree, &oracle, pages, &mut random);
        compare_gaps(&tree, &oracle, layout, &mut random);
        deepest = deepest.max(tree.root().map_or(0, |(_, height)| height));
        most = most.max(oracle.map.len());
        if n.is_multiple_of(64) || n + 1 == operations {
            tree.check(&writer);
            let plain = oracle.map.iter();
            let entry =
                |(&s, &(e, v)): (&u64, &(u64, u32))| Entry::new(s, e, T::from_bits(v).to_bits64());
            let plain: Vec<_> = plain.map(entry).collect();
            assert_eq!(tree.all(), plain);
        }
    }
    std::eprintln!("{W} words: at most {most} ranges in {} levels", deepest + 1);
    let had = tree.remove(&mut writer, &slab, (low, high));
    assert_eq!(had, Ok(oracle.remove((low, high))));
    tree.check(&writer);
    assert_eq!(writer.used(), 0);
}

fn compare_near<T: Value, const W: usize>(
    tree: &Tree<T, W>,
    oracle: &Oracle,
    (start, end): Pages,
    random: &mut Random,
) {
    let anywhere = tree.low + random.below(tree.high - tree.low);
    for page in [
        start.saturating_sub(1).max(tree.low),
        start,
        end - 1,
        end,
        anywhere,
    ] {
        if page >= tree.high {
            continue;
        }
        let below = oracle.map.range(..=page).next_back();
        let holds = below.filter(|(_, (e, _))| *e > page);
        let entry =
            |(&s, &(e, v)): (&u64, &(u64, u32))| Entry::new(s, e, T::from_bits(v).to_bits64());
        assert_eq!(tree.query(page), holds.map(entry));
        let next = holds.or_else(|| oracle.map.range(page..).next());
        assert_eq!(tree.next_from(page), next.map(entry));
        let prev = oracle.map.range(..=page).next_back();
        assert_eq!(tree.prev_from(page), prev.map(entry));
        let mut buffer = [core::mem::MaybeUninit::uninit(); 5];
        let count = tree.read_from((page, tree.high - 1), &mut buffer);
        let following = next
            .iter()
            .flat_map(|(start, _)| oracle.map.range(*start..));
        // SAFETY: so many were written.
        let read = unsafe { buffer[..count].assume_init_ref() };
        assert!(count > 0 || next.is_none());
        assert!(following.map(entry).take(count).eq(read.iter().copied()));
    }
}

fn compare_gaps<T: Value, const W: usize>(
    tree: &Tree<T, W>,
    oracle: &Oracle,
    layout: Layout,
    random: &mut Random,
) {
    let Layout { base, step, slots } = layout;
    let mut wanted = Wanted {
        len: (1 + random.below(6)) * step,
        align: 1 << random.below(5),
        shift: random.below(9),
        low: tree.low,
        high: tree.high,
    };
    if random.below(2) == 0 {
        let slot = random.below(slots);
        wanted.low = base + slot * step + random.below(step);
        wanted.high = (wanted.low + 1 + random.below(60 * step)).min(tree.high);
    }
    let fits = oracle.fits(&wanted);
    assert_eq!(tree.find_lowest(&wanted), fits.first().map(|fit| fit.0));
    assert_eq!(tree.find_highest(&wanted), fits.last().map(|fit| fit.1));
    let page = base + random.below(slots * step);
    assert_eq!(
        tree.find_nearest(&wanted, page),
        oracle.nearest(&wanted, page),
        "{wanted:?} near {page}"
    );
    let gaps = oracle.gaps((wanted.low, wanted.high));
    let largest = gaps
        .iter()
        .copied()
        .reduce(|a, b| if b.1 - b.0 > a.1 - a.0 { b } else { a });
    assert_eq!(tree.largest_gap(wanted.low, wanted.high), largest);
    assert_eq!(
        tree.next_gap(wanted.low, wanted.high),
        gaps.first().copied()
    );
}

const CLOSE: Layout = Layout {
    base: 7,
    step: 1,
    slots: 3000,
};

#[test]
fn narrow_nodes_agree_with_a_plain_map() {
    model::<u32, 12>(CLOSE, 20_000, 0x1234_5678_9abc_def1);
    model::<Apart, 12>(CLOSE, 20_000, 0x9abc_def1_2345_6781);
    model::<u32, 16>(CLOSE, 20_000, 0x1111_5678_9abc_def1);
    model::<Apart, 16>(CLOSE, 20_000, 0x2222_5678_9abc_def1);
    model::<Big, 16>(CLOSE, 20_000, 0x3333_5678_9abc_def1);
}

#[test]
fn nodes_of_the_real_size_agree_with_a_plain_map() {
    let many = Layout {
        slots: 30_000,
        ..CLOSE
    };
    model::<u32, 96>(many, 50_000, 0x1357_9bdf_0246_8ace);
    model::<Apart, 96>(many, 50_000, 0xace0_2468_1357_9bdf);
    model::<Big, 96>(many, 20_000, 0xace0_2468_1357_9be1);
}

#[test]
fn ranges_far_apart_and_long_agree_with_a_plain_map() {
    for step in [1 << 27, 1 << 30, 1 << 33] {
        let far = Layout {
            base: (1 << 33) + 5,
            step,
            slots: 3000,
        };
        model::<u32, 16>(far, 10_000, 0x1234_5678_9abc_def1 ^ step);
        model::<Apart, 96>(far, 10_000, 0x9abc_def1_2345_6781 ^ step);
    }
}

/// Tries a change without memory; if it needs some, nothing may have changed. Then makes it.
fn fails_or_works<const W: usize, N: PartialEq + core::fmt::Debug>(
    tree: &Tree<u32, W>,
    writer: &mut Writer<W>,
    slab: &Slab<W>,
    change: impl Fn(&mut Writer<W>) -> Result<N, Error>,
) -> (N, bool) {
    let (before, counts) = (tree.all(), (writer.used(), writer.ranges, writer.pages));
    slab.exhausted.set(true);
    let tried = change(writer);
    slab.exhausted.set(false);
    match tried {
        Ok(n) => (n, false),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Exhausted);
            assert_eq!(tree.all(), before);
            assert_eq!((writer.used(), writer.ranges, writer.pages), counts);
            tree.check(writer);
            let done = change(writer).expect("there is memory again");
            (done, true)
        }
    }
}

#[test]
fn without_memory_a_change_changes_nothing() {
    let slab = Slab::<12>::new(20_000);
    slab.sparing.set(true);
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<u32, 12> = unsafe { Tree::new(&slab, 0, 4000) };
    let mut writer = Writer::new();
    let mut oracle = Oracle {
        joins: true,
        ..Oracle::default()
    };
    let mut random = Random(0x0bad_cafe_0bad_cafe);
    let mut failures = [0; 3];
    for n in 0..6000 {
        let start = random.below(3990);
        let many = if random.below(50) == 0 { 400 } else { 5 };
        let pages = (start, (start + 1 + random.below(many)).min(4000));
        let bits = u32::try_from(random.below(5)).expect("small");
        let kind = usize::try_from(random.below(if n < 2000 { 5 } else { 8 })).expect("small");
        let (had, kind, failed) = match kind {
            0..4 => {
                let change = |writer: &mut Writer<12>| tree.insert(writer, &slab, pages, bits);
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.insert(pages, bits), 0, failed)
            }
            4..7 => {
                let change = |writer: &mut Writer<12>| tree.remove(writer, &slab, pages);
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.remove(pages), 1, failed)
            }
            _ => {
                let change = |writer: &mut Writer<12>| {
                    tree.update(writer, &slab, pages, |bits: u32| bits / 2)
                };
                let (had, failed) = fails_or_works(&tree, &mut writer, &slab, change);
                (had == oracle.update(pages, |bits| bits / 2), 2, failed)
            }
        };
        assert!(had, "as many pages as the plain map says");
        failures[kind] += usize::from(failed);
        let plain = oracle.map.iter();
        let plain: Vec<_> = plain
            .map(|(&s, &(e, v))| Entry::new(s, e, v.into()))
            .collect();
        assert_eq!(tree.all(), plain);
    }
    assert!(failures.iter().all(|&n| n > 5), "all failed: {failures:?}");
}

/// Pages of a cell; ranges of the threads' test begin and end in one cell, or are whole cells.
const CELL: u64 = 16;
/// Cells of a block; the first range of each stays.
const BLOCK: u64 = 32;
const BLOCKS: u64 = 64;

/// A value that says what range it belongs to.
fn named((start, end): Pages) -> Apart {
    Apart(u32::try_from(start << 12 | (end - start)).expect("small"))
}

fn is_named(entry: Entry) -> bool {
    entry.value::<Apart>() == named((entry.start, entry.end()))
}

fn readers_see_only_what_was_there<const W: usize>(changes: usize) {
    let slab = Slab::<W>::new(20_000);
    let block = CELL * BLOCK;
    // SAFETY: the slab is what all changes are given, and is dropped last.
    let tree: Tree<Apart, W> = unsafe { Tree::new(&slab, 0, block * BLOCKS) };
    let mut writer = Writer::new();
    for n in 0..BLOCKS {
        let stays = (n * block, n * block + 3);
        let inserted = tree.insert_new(&mut writer, &slab, stays, named(stays));
        assert_eq!(inserted, Ok(()));
    }
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for seed in [0x1234_5678_9abc_def1, 0x7777_5678_9abc_def1] {
            let (tree, done, answers) = (&tree, &done, &answers);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !done.load(Relaxed) {
                    let page = random.below(block * BLOCKS);
                    let stays = page / block * block;
                    assert_eq!(tree.query(stays + 1).map(|e| e.len), Some(3));
                    if let Some(entry) = tree.query(page) {
                        assert!(is_named(entry) && entry.start <= page && page < entry.end());
                    }
                    let next = tree.next_from(page);
                    assert!(next.is_none_or(is_named));
                    let latest = stays + if page < stays + 3 { 0 } else { block };
                    if latest < block * BLOCKS {
                        assert!(next.is_some_and(|e| e.start <= latest && e.end() > page));
                    }
                    answers.fetch_add(1, Relaxed);
                }
            });
        }
        let mut random = Random(0x5555_5678_9abc_def1);
        for n in 0..changes {
            let base = random.below(BLOCKS) * block;
            let cell = base + CELL * (1 + random.below(BLOCK - 1));
            let cells = 1 + random.below((base + block - cell) / CELL);
            let start = cell + random.below(CELL);
            let inside = (start, start + 1 + random.below(cell + CELL - start));
            // Whole ranges only: what is left of one would have the wrong name.
            let last = cell + CELL * cells - 1;
            let whole = (
                tree.query(cell).map_or(cell, |e| e.start.min(cell)),
                tree.query(last).map_or(last + 1, |e| e.end().max(last + 1)),
            );
            let result = match random.below(if n % 8192 < 4096 { 40 } else { 20 }) {
                0 => tree
                    .insert(&mut writer, &slab, whole, named(whole))
                    .map(drop),
                1..6 => tree.remove(&mut writer, &slab, whole).map(drop),
                _ => tree.insert_new(&mut writer, &slab, inside, named(inside)),
            };
            assert!(result.is_ok() || result == Err(ErrorKind::Taken.into()));
        }
        done.store(true, Relaxed);
    });
    tree.check(&writer);
    std::eprintln!("{} answers", answers.load(Relaxed));
    assert!(answers.load(Relaxed) > 100, "the readers ran meanwhile");
}

#[test]
fn readers_without_a_lock_see_only_what_was_there() {
    readers_see_only_what_was_there::<12>(200_000);
    readers_see_only_what_was_there::<96>(200_000);
}
