//! The tree: one writer, and readers without a lock.

use super::{
    Value,
    change::Pages,
    node::{Entry, Node, WORDS},
    pool::{NONE, Places, Source, Writer},
};
use crate::{
    arch::prefetch,
    atomic::{AtomicU64, Ordering, fence},
    provider::Error,
};
use core::{marker::PhantomData, mem::MaybeUninit};

/// Levels that a tree can have. Nodes are at least a third full when they are merged, so that no
/// map that fits into memory gets there.
pub(super) const LEVELS: usize = 16;

/// Ranges of pages, disjoint and in order, with a value each.
///
/// Changes take the [`Writer`] that was made for this tree; whoever has it holds the lock of all
/// changes. All numbers are pages.
pub(crate) struct Tree<T, const W: usize = WORDS> {
    /// Moves before nodes are used again, and before a word of a leaf changes.
    version: AtomicU64,
    /// Moves behind every change.
    changes: AtomicU64,
    /// The topmost node and its level; [`EMPTY`] without one.
    root: AtomicU64,
    /// The first page.
    pub(super) low: u64,
    /// The page behind the last one.
    pub(crate) high: u64,
    /// Where nodes lie.
    places: Places<W>,
    values: PhantomData<fn(T) -> T>,
}

/// The root of a tree without ranges.
const EMPTY: u64 = u64::MAX;

/// The nodes were used again while a reader was in them.
struct Moved;

/// A way from a leaf up to the root.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    /// The node of each level; the leaf's is 0.
    pub(super) node: [u32; LEVELS],
    /// Which child of each level's node the node below it is.
    pub(super) at: [u8; LEVELS],
    pub(super) height: usize,
}

impl Path {
    /// Returns a way that leads nowhere.
    #[inline]
    pub(crate) const fn unknown() -> Self {
        Self {
            node: [NONE; LEVELS],
            at: [0; LEVELS],
            height: 0,
        }
    }

    /// Returns the way, if it is known.
    #[inline]
    pub(crate) fn known(&self) -> Option<&Self> {
        (self.node[0] != NONE).then_some(self)
    }

    /// Makes the way unknown.
    pub(super) const fn forget(&mut self) {
        self.node[0] = NONE;
    }

    #[inline]
    pub(super) fn at(&self, level: usize) -> usize {
        self.at[level].into()
    }

    #[inline]
    pub(super) fn step(&mut self, level: usize, node: u32, at: usize) {
        self.node[level] = node;
        self.at[level] = u8::try_from(at).expect("nodes have fewer children");
    }
}

#[inline]
fn unpack(root: u64) -> (u32, usize) {
    let [a, b, c, d, level, ..] = root.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), level.into())
}

impl<T: Value, const W: usize> Tree<T, W> {
    /// Makes an empty tree for the pages from `low` up to `high`, with nodes from `source`.
    ///
    /// # Safety
    ///
    /// All changes are given this source, which outlives the tree.
    pub(crate) unsafe fn new(_source: &impl Source<W>, low: u64, high: u64) -> Self {
        Self {
            version: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            root: AtomicU64::new(EMPTY),
            low,
            high,
            places: Places::new(),
            values: PhantomData,
        }
    }

    #[inline]
    pub(super) fn node(&self, id: u32) -> &Node<W> {
        // A reader follows a number only after it saw that the version had not moved, or that it
        // was published: the word it came from was then a child's or the root's, never another one's.
        // It has the number by an acquiring load, and so sees what the places had when it was stored.
        let node = self.places.node(id);
        // SAFETY: numbers are those that the writer gave to nodes of the source, so that the places
        // have them: initialised, and only changed by their atomics as long as the source is there,
        // which outlives self.
        unsafe { &*node }
    }
}

/// Reading without a lock.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Says whether `version` is current still, after all loads before.
    #[inline]
    fn is_current(&self, version: u64) -> bool {
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Returns the leaf that answers for `page`, and, if asked, where the next one begins.
    #[inline]
    fn leaf_for<const NEXT: bool>(
        &self,
        page: u64,
        version: u64,
    ) -> Result<Option<(&Node<W>, u64)>, Moved> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(None);
        }
        let (mut id, height) = unpack(root);
        let mut next = self.high;
        for _ in 0..height {
            let node = self.node(id);
            // An acquiring load, so that a number from another life of the node comes with the
            // version that began it.
            let (at, child) = node.way_to(page);
            if NEXT {
                next = next.min(node.low(at + 1));
            }
            id = child;
            if self.version.load(Ordering::Relaxed) != version {
                return Err(Moved);
            }
        }
        let leaf = self.node(id);
        // What will be read depends on what is read first; together they cost one miss.
        prefetch(leaf);
        Ok(Some((leaf, next)))
    }

    /// Finds the range that holds `page`, without a lock.
    #[inline]
    pub(crate) fn query(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<false>(page, version) else {
                continue;
            };
            let below = leaf.and_then(|(leaf, _)| leaf.around(page).0);
            if self.is_current(version) {
                return below.filter(|e| page.wrapping_sub(e.start) < e.len);
            }
        }
    }

    /// Finds the first range that ends behind `page`, without a lock.
    pub(crate) fn next_from(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let changes = self.changes.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<true>(page, version) else {
                continue;
            };
            let (leaf, next) = leaf?;
            let (below, behind) = leaf.around(page);
            let found = below
                .filter(|e| page.wrapping_sub(e.start) < e.len)
                .or_else(behind);
            if !self.is_current(version) {
                continue;
            }
            if found.is_some() {
                return found;
            }
            // The next leaf has it, if there is one; it starts where this leaf ends.
            let found = if next < self.high {
                let Ok(leaf) = self.leaf_for::<false>(next, version) else {
                    continue;
                };
                let first = leaf.and_then(|(leaf, _)| leaf.around(next).0);
                let Some(first) = first.filter(|e| e.start == next) else {
                    continue;
                };
                Some(first)
            } else {
                None
            };
            // Two leaves of one moment: at most one change, which is whole by itself, lies between.
            if self.is_current(version) && self.changes.load(Ordering::Relaxed) == changes {
                return found;
            }
        }
    }
}

/// Reading several ranges at a time, and backwards.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Finds the last range that starts at or before `page`, without a lock.
    pub(crate) fn prev_from(&self, page: u64) -> Option<Entry> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let Ok(leaf) = self.leaf_for::<false>(page, version) else {
                continue;
            };
            // The first range of a leaf is not dead, and only the first leaf begins behind the
            // page.
            let found = leaf.and_then(|(leaf, _)| leaf.last_from(page));
            if self.is_current(version) {
                return found;
            }
        }
    }

    /// Reads ranges that end behind the first page and start at or before the last one, in order,
    /// as many as fit, or as lie in one inner node; returns how many. All are of one moment. No
    /// lock is taken.
    pub(super) fn read_from(
        &self,
        (page, last): Pages,
        buffer: &mut [MaybeUninit<Entry>],
    ) -> usize {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let changes = self.changes.load(Ordering::Acquire);
            let Ok(way) = self.leaf_and_parent(page, version) else {
                continue;
            };
            let Some((leaf, parent)) = way else {
                return 0;
            };
            let (mut count, is_all) = leaf.read_from((page, last), buffer);
            if !self.is_current(version) {
                continue;
            }
            if let Some((parent, at)) = parent.filter(|_| is_all)
                && let Some(more) = self.read_siblings(
                    (parent, at),
                    (last, version),
                    buffer.get_mut(count..).unwrap_or_default(),
                )
                && self.is_current(version)
                && self.changes.load(Ordering::Relaxed) == changes
            {
                count += more;
            }
            if count > 0 {
                return count;
            }
            // Behind dead ones, or in a leaf of another inner node, if anywhere.
            let next = self.next_from(page).filter(|entry| entry.start <= last);
            return match (next, buffer.first_mut()) {
                (Some(entry), Some(slot)) => {
                    slot.write(entry);
                    1
                }
                _ => 0,
            };
        }
    }

    /// Returns the leaf that answers for `page`, and the node above with the number of the leaf.
    #[inline]
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn leaf_and_parent(
        &self,
        page: u64,
        version: u64,
    ) -> Result<Option<(&Node<W>, Option<(&Node<W>, usize)>)>, Moved> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(None);
        }
        let (mut id, height) = unpack(root);
        let mut parent = None;
        for _ in 0..height {
            let node = self.node(id);
            let (at, child) = node.way_to(page);
            id = child;
            // As in leaf_for.
            if self.version.load(Ordering::Relaxed) != version {
                return Err(Moved);
            }
            parent = Some((node, at));
        }
        Ok(Some((self.node(id), parent)))
    }

    /// Reads the leaves behind one, of the same inner node; `None` where that has become another
    /// node.
    fn read_siblings(
        &self,
        (parent, at): (&Node<W>, usize),
        (last, version): (u64, u64),
        buffer: &mut [MaybeUninit<Entry>],
    ) -> Option<usize> {
        let mut read = 0;
        for at in at + 1..parent.count().min(Node::<W>::INNER) {
            let rest = buffer.get_mut(read..).unwrap_or_default();
            if rest.is_empty() || parent.low(at) > last {
                break;
            }
            let id = parent.child(at);
            // As in leaf_for.
            if self.version.load(Ordering::Relaxed) != version {
                return None;
            }
            let (count, is_all) = self.node(id).read_from((0, last), rest);
            read += count;
            if !is_all {
                break;
            }
        }
        Some(read)
    }
}

/// Copying what a writer left behind who will not come back, or not before this is done.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Bytes of a node.
    pub(crate) const NODE_BYTES: usize = size_of::<Node<W>>();

    /// Copies all ranges to an empty tree; returns how many nodes they took here. The writer of
    /// this tree may have stopped anywhere: what is read is what it publishes for readers. `see` is
    /// told each value, and how many pages have it.
    pub(crate) fn copy_to(
        &self,
        to: &Self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        mut see: impl FnMut(T, u64),
    ) -> Result<usize, Error> {
        let root = self.root.load(Ordering::Acquire);
        if root == EMPTY {
            return Ok(0);
        }
        self.copy_below(unpack(root), &mut |entry| {
            let value = entry.value::<T>();
            to.insert(writer, source, (entry.start, entry.end()), value)?;
            see(value, entry.len);
            Ok(())
        })
    }

    fn copy_below(
        &self,
        (id, level): (u32, usize),
        add: &mut impl FnMut(Entry) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let node = self.node(id);
        let mut nodes = 1;
        if level == 0 {
            for entry in node.entries() {
                add(entry)?;
            }
        } else {
            for n in 0..node.count() {
                nodes += self.copy_below((node.child(n), level - 1), add)?;
            }
        }
        Ok(nodes)
    }
}

/// The writer's ways.
impl<T: Value, const W: usize> Tree<T, W> {
    /// Returns the topmost node and its level.
    #[inline]
    pub(super) fn root(&self) -> Option<(u32, usize)> {
        let root = self.root.load(Ordering::Relaxed);
        (root != EMPTY).then(|| unpack(root))
    }

    /// Publishes another root.
    pub(super) fn publish_root(&self, root: Option<(u32, usize)>) {
        let root = root.map_or(EMPTY, |(id, level)| u64::from(id) | (level as u64) << 32);
        self.root.store(root, Ordering::Release);
    }

    /// Returns the way to the leaf that answers for `page`.
    #[inline]
    pub(super) fn descend(&self, root: (u32, usize), page: u64) -> Path {
        let mut path = Path::unknown();
        self.descend_by(root, page, &mut path);
        path
    }

    /// As [`Tree::descend`], by a path that was made before.
    #[inline]
    fn descend_by(&self, root: (u32, usize), page: u64, path: &mut Path) {
        let (mut id, height) = root;
        path.height = height;
        for level in (1..=height).rev() {
            let node = self.node(id);
            let (at, child) = node.way_to(page);
            path.step(level, id, at);
            id = child;
        }
        path.step(0, id, 0);
        prefetch(self.node(id));
    }

    /// Returns the range that holds `start`, if it is to be found on the way to the page before that;
    /// `way` becomes that way, which holds until the next change. The writer is held.
    #[inline]
    pub(crate) fn look(&self, start: u64, way: &mut Path) -> Option<Entry> {
        self.descend_by(self.root()?, start.checked_sub(1)?.max(self.low), way);
        let leaf = self.node(way.node[0]);
        let below = leaf.entry(leaf.rank(start).checked_sub(1)?);
        (below.end() > start).then_some(below)
    }

    /// Returns where the node behind the one at `level` begins.
    #[inline]
    pub(super) fn next_low(&self, path: &Path, level: usize) -> u64 {
        for above in level + 1..=path.height {
            let (node, at) = (self.node(path.node[above]), path.at(above));
            if at + 1 < node.count() {
                return node.low(at + 1);
            }
        }
        self.high
    }

    /// Returns the first page that the leaf of a path answers for.
    #[inline]
    pub(super) fn low_of(&self, path: &Path) -> u64 {
        self.low_in(path, self.node(path.node[0]))
    }

    /// As [`Tree::low_of`], of a leaf in the place of that of the path.
    #[inline]
    pub(super) fn low_in(&self, path: &Path, leaf: &Node<W>) -> u64 {
        if self.is_first(path) {
            self.low
        } else {
            leaf.start(0)
        }
    }

    #[inline]
    pub(super) fn is_first(&self, path: &Path) -> bool {
        path.at[1..=path.height].iter().all(|&at| at == 0)
    }

    /// Says that a change is done.
    #[inline]
    pub(super) fn moved_on(&self) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Release);
    }

    #[inline]
    pub(super) fn take(&self, writer: &mut Writer<W>) -> u32 {
        writer.take(|id| self.node(id).next_free())
    }

    /// Moves the version: a reader of the one before that sees a store behind this sees that it moved,
    /// and one of this version sees all stores in front of this.
    #[inline]
    pub(super) fn move_version(&self) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Release);
        fence(Ordering::Release);
    }

    /// Lets nodes that were replaced be used again.
    pub(super) fn recycle(&self, writer: &mut Writer<W>) {
        // Readers of the version before may be in the nodes.
        self.move_version();
        while let Some(id) = writer.waited() {
            self.release(writer, id);
        }
    }

    /// Adds a node that no reader of the current version reaches to those that can be taken.
    pub(super) fn release(&self, writer: &mut Writer<W>, id: u32) {
        self.node(id).set_next_free(writer.give(id));
    }

    /// Makes sure that `count` nodes can be taken.
    #[inline]
    pub(super) fn ensure(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        count: usize,
    ) -> Result<(), Error> {
        if count <= writer.available() {
            return Ok(());
        }
        self.make_nodes(writer, source, count)
    }

    #[cold]
    #[inline(never)]
    fn make_nodes(
        &self,
        writer: &mut Writer<W>,
        source: &impl Source<W>,
        count: usize,
    ) -> Result<(), Error> {
        if let Some(missing) = count.checked_sub(writer.obtainable()).filter(|&n| n > 0) {
            for id in writer.make(&self.places, source, missing)? {
                self.release(writer, id);
            }
        }
        self.recycle(writer);
        Ok(())
    }
}
