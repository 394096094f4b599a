//! Nodes that are not in use, and what the writer counts.

use super::node::{Node, WORDS};
use crate::{
    arena::Arena,
    atomic::{AtomicPtr, Ordering},
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    array, mem,
    ptr::{NonNull, null_mut},
};

/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// Replaced nodes that wait for one move of the version; readers start over that much less often.
const WAITING: usize = 32;

/// Nodes that are taken from a source at a time: an eighth of what there is, within these bounds.
const AT_A_TIME: core::ops::RangeInclusive<usize> = 16..=1024;

/// Where nodes come from.
///
/// # Safety
///
/// `nodes` promises that the nodes which it returns are initialised, lie one behind the other in
/// one allocation, have addresses that no other code has yet, and stay as long as the source's
/// user.
pub(crate) unsafe trait Source<const W: usize> {
    /// Makes `least` to `most` nodes, all of whose words are zero; returns the first and how many.
    ///
    /// # Errors
    ///
    /// Where there is no memory; nothing changes then.
    fn nodes(&self, least: usize, most: usize) -> Result<(NonNull<Node<W>>, usize), Error>;
}

// SAFETY: a run belongs to whom it was allocated for, and stays until the arena is dropped, which
// users of the tree outlive by their contract. It has the alignment of nodes and reads zero, and a
// node is words that may be anything.
unsafe impl<P: PageProvider + Copy, R: RawMutex, const W: usize> Source<W> for Arena<P, R> {
    fn nodes(&self, least: usize, most: usize) -> Result<(NonNull<Node<W>>, usize), Error> {
        let (first, count) = self.alloc_run(Layout::new::<Node<W>>(), least, most)?;
        Ok((first.cast(), count))
    }
}

/// The bits of a node's number that say how far behind the start of its piece it lies.
const OFFSET_BITS: u32 = 25;

/// The unit of the offset: nodes are aligned to it.
const UNIT: usize = 64;

/// Pieces that a [`Places`] can tell apart. A source that doubles what it has needs a few dozen,
/// and one that takes a 64th of what is left to it at a time has then taken seven eighths.
const PIECES: usize = if cfg!(all(test, loom)) {
    4
} else {
    1 << (u32::BITS - OFFSET_BITS)
};

/// Where nodes lie, by number.
///
/// ```text
///   number   piece (7 bits) │ offset (25 bits), in units of 64 bytes
///   bases    piece 0 │ piece 1 │ …    each so far below its piece that adding the whole number,
///                                     the bits of the piece among it, leads to the node
/// ```
///
/// The writer sets a base before it publishes the first number of its piece; it never changes then,
/// so that whoever has seen a number finds its base.
pub(super) struct Places<const W: usize> {
    bases: [AtomicPtr<Node<W>>; PIECES],
}

impl<const W: usize> Places<W> {
    pub(super) fn new() -> Self {
        const {
            assert!(
                W >= 12 && W <= WORDS,
                "buffers are made for the widest nodes"
            );
            assert!(
                align_of::<Node<W>>() == UNIT && size_of::<Node<W>>().is_multiple_of(UNIT),
                "nodes begin at whole units"
            )
        };
        Self {
            bases: array::from_fn(|_| AtomicPtr::new(null_mut())),
        }
    }

    /// Returns where the node with a number lies, which one of these places has.
    #[inline]
    pub(super) fn node(&self, id: u32) -> *mut Node<W> {
        let base = self.bases[(id >> OFFSET_BITS) as usize].load(Ordering::Relaxed);
        base.wrapping_byte_add((id as usize).wrapping_mul(UNIT))
    }
}

/// Nodes that have never been used, one behind the other.
pub(super) struct Fresh<const W: usize> {
    /// The number of the first.
    id: u32,
    count: usize,
}

impl<const W: usize> Fresh<W> {
    /// The difference of the numbers of nodes that lie side by side.
    const STRIDE: usize = size_of::<Node<W>>() / UNIT;

    /// Returns the number that a node behind the last one would have.
    const fn behind(&self) -> usize {
        self.id as usize + self.count * Self::STRIDE
    }
}

impl<const W: usize> Iterator for Fresh<W> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        let stride = u32::try_from(Self::STRIDE).expect("nodes are short");
        let next = self.id + stride;
        Some(mem::replace(&mut self.id, next))
    }
}

/// How far numbers of the newest piece reach, for the writer.
struct Newest {
    /// How many pieces there are.
    pieces: usize,
    /// The address of the newest one, and where what came from it ends.
    start: usize,
    end: usize,
}

impl Newest {
    /// Gives nodes that a source made a number, by which `places` has them from now on; returns
    /// that of the first.
    fn number<const W: usize>(
        &mut self,
        places: &Places<W>,
        first: NonNull<Node<W>>,
        count: usize,
    ) -> Result<u32, Error> {
        const REACH: usize = (1 << OFFSET_BITS) - 1;
        let addr = first.addr().get();
        let end = addr + count * size_of::<Node<W>>();
        // A slice that begins where the newest piece ends is one allocation with it: pieces have
        // headers.
        if self.pieces == 0 || addr != self.end || (end - self.start) / UNIT > REACH {
            if self.pieces == PIECES || (end - addr) / UNIT > REACH {
                return Err(ErrorKind::Exhausted.into());
            }
            let bias = (self.pieces << OFFSET_BITS).wrapping_mul(UNIT);
            let base = first.as_ptr().wrapping_byte_sub(bias);
            places.bases[self.pieces].store(base, Ordering::Relaxed);
            (self.pieces, self.start) = (self.pieces + 1, addr);
        }
        self.end = end;
        let id = ((self.pieces - 1) << OFFSET_BITS) | ((addr - self.start) / UNIT);
        u32::try_from(id).map_err(|_| ErrorKind::Exhausted.into())
    }
}

/// The state of a tree's writer: the code that holds it exclusively may change the tree.
pub(crate) struct Writer<const W: usize = WORDS> {
    free: u32,
    /// Nodes that can be taken: those in the list that `free` begins, and the fresh ones.
    free_count: usize,
    fresh: Fresh<W>,
    newest: Newest,
    waiting: [u32; WAITING],
    waiting_count: usize,
    /// Nodes that came from the source.
    pub(super) nodes: usize,
    /// Ranges in the tree.
    pub(super) ranges: usize,
    /// Pages in the ranges.
    pub(super) pages: u64,
}

impl<const W: usize> Writer<W> {
    pub(crate) const fn new() -> Self {
        Self {
            free: NONE,
            free_count: 0,
            fresh: Fresh { id: NONE, count: 0 },
            newest: Newest {
                pieces: 0,
                start: 0,
                end: 0,
            },
            waiting: [NONE; WAITING],
            waiting_count: 0,
            nodes: 0,
            ranges: 0,
            pages: 0,
        }
    }

    /// Returns how many ranges there are.
    pub(crate) const fn ranges(&self) -> usize {
        self.ranges
    }

    /// Returns how many nodes the tree uses.
    pub(super) const fn used(&self) -> usize {
        self.nodes - self.free_count - self.waiting_count
    }

    /// Returns how many nodes can be taken.
    #[inline]
    pub(super) const fn available(&self) -> usize {
        self.free_count
    }

    /// Returns how many could be taken if none had to wait.
    pub(super) const fn obtainable(&self) -> usize {
        self.free_count + self.waiting_count
    }

    /// Takes nodes from a source: up to an eighth as many as there are, and no fewer than
    /// `missing`. Returns those fresh ones from before that do not lie in front of them, which are
    /// to be given to the list.
    pub(super) fn make(
        &mut self,
        places: &Places<W>,
        source: &impl Source<W>,
        missing: usize,
    ) -> Result<Fresh<W>, Error> {
        let most = (self.nodes / 8).clamp(*AT_A_TIME.start(), *AT_A_TIME.end());
        let (first, count) = source.nodes(missing, most.max(missing))?;
        let id = self.newest.number(places, first, count)?;
        self.nodes += count;
        self.free_count += count;
        let mut before = mem::replace(&mut self.fresh, Fresh { id, count });
        if before.count > 0 && before.behind() == id as usize {
            self.fresh = Fresh {
                id: before.id,
                count: before.count + count,
            };
            before.count = 0;
        }
        // They are counted once more when they are given.
        self.free_count -= before.count;
        Ok(before)
    }

    /// Returns the node to take and forgets it; `next` is what one that was used says of the next.
    #[inline]
    pub(super) fn take(&mut self, next: impl FnOnce(u32) -> u32) -> u32 {
        let id = self.free;
        self.free_count -= 1;
        if id == NONE {
            return self.take_fresh();
        }
        self.free = next(id);
        id
    }

    #[cold]
    #[inline(never)]
    fn take_fresh(&mut self) -> u32 {
        self.fresh
            .next()
            .expect("nodes are made before a change begins")
    }

    /// Adds a node that no reader reaches; returns what it has to say of the next one.
    #[inline]
    pub(super) const fn give(&mut self, id: u32) -> u32 {
        self.free_count += 1;
        mem::replace(&mut self.free, id)
    }

    /// Keeps a node that readers may still be in; says whether no other one can wait now.
    #[inline]
    pub(super) const fn wait(&mut self, id: u32) -> bool {
        self.waiting[self.waiting_count] = id;
        self.waiting_count += 1;
        self.waiting_count == WAITING
    }

    /// Returns a node that waited, and forgets it.
    pub(super) fn waited(&mut self) -> Option<u32> {
        self.waiting_count = self.waiting_count.checked_sub(1)?;
        Some(self.waiting[self.waiting_count])
    }
}
