//! Blocks that grow step by step: how often they move, and that their contents stay, on hosts with
//! and without pages that move, where addresses and mappings are few, and while calls of the host
//! fail.

mod kept;
mod limits;

use crate::system::{OS, bytes};
use core::ptr::NonNull;
use hostmem::{
    OsLock, OsProvider,
    heap::{Hardening, Heap, HeapConfig, HeapError},
    page::{AddressRange, PageSize},
    provider::{Capabilities, PageProvider, Request, Within},
    region::{RegionAllocator, RegionConfig},
    sim::{Policy, Sim},
};

const MIB: usize = 1 << 20;

/// Moves that a block may take to grow from nothing.
const MOVES: usize = 60;

fn heap<P: PageProvider + Copy>(p: P, config: HeapConfig) -> Heap<P, P, OsLock> {
    Heap::on(p, p, config).expect("metadata")
}

/// What lies at a place of a block, so that no other place has the same for long.
#[expect(clippy::cast_possible_truncation, reason = "bytes of it")]
const fn pattern(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16 ^ 0x5a) as u8
}

/// A block that grows, written all over.
struct Growing<'a, P: PageProvider + Copy> {
    heap: &'a Heap<P, P, OsLock>,
    block: NonNull<u8>,
    len: usize,
    moves: usize,
}

impl<'a, P: PageProvider + Copy> Growing<'a, P> {
    fn new(heap: &'a Heap<P, P, OsLock>, len: usize) -> Self {
        let block = heap.alloc(bytes(len)).expect("memory");
        let new = Self {
            heap,
            block,
            len,
            moves: 0,
        };
        new.write(0, len);
        new
    }

    /// Yields the places that are written and looked at: all of the first bytes, and some of each
    /// page.
    fn places(from: usize, to: usize) -> impl Iterator<Item = usize> {
        const DENSE: usize = 64 << 10;
        const STEP: usize = 509;
        let far = from.max(DENSE).next_multiple_of(STEP);
        (from..to.min(DENSE)).chain((far..to).step_by(STEP))
    }

    fn write(&self, from: usize, to: usize) {
        for at in Self::places(from, to) {
            // SAFETY: a byte of the live block.
            let byte = unsafe { self.block.add(at) };
            // SAFETY: a byte of the live block, which is this value's alone.
            unsafe { byte.write(pattern(at)) };
        }
    }

    fn check(&self) {
        for at in Self::places(0, self.len) {
            // SAFETY: a byte of the live block.
            let byte = unsafe { self.block.add(at) };
            // SAFETY: a byte of the live block, written before.
            let byte = unsafe { byte.read() };
            assert_eq!(byte, pattern(at), "byte {at} of {}", self.len);
        }
        let usable = self.heap.usable_size(self.block).expect("a live block");
        assert!(usable >= self.len, "{usable} of {}", self.len);
        for at in [0, self.len / 2, self.len - 1] {
            let found = self.heap.block_of(self.block.addr().get() + at);
            let found = found.expect("a live block");
            assert_eq!((found.addr, found.len), (self.block.addr().get(), usable));
        }
    }

    fn resize(&mut self, len: usize) -> Result<(), HeapError> {
        // SAFETY: live, of this layout, and this value's alone.
        let new = unsafe { self.heap.realloc(self.block, bytes(self.len), len) }?;
        self.moves += usize::from(new != self.block);
        self.block = new;
        let old = core::mem::replace(&mut self.len, len);
        self.write(old.min(len), len);
        Ok(())
    }

    fn grow_to(&mut self, len: usize, by: usize) {
        while self.len < len {
            let moves = self.moves;
            self.resize(self.len + by)
                .unwrap_or_else(|error| panic!("{} and {by} bytes: {error}", self.len));
            if moves != self.moves && self.len > 1 << 18 {
                self.check();
            }
        }
        self.check();
    }
}

impl<P: PageProvider + Copy> Drop for Growing<'_, P> {
    fn drop(&mut self) {
        // SAFETY: live, and used no more.
        unsafe { self.heap.free(self.block) }.expect("a live block");
    }
}

/// Grows blocks from next to nothing to `most` bytes in steps of several sizes.
fn grows<P: PageProvider + Copy>(p: P, most: usize, what: &str) {
    let heap = heap(p, HeapConfig::new());
    for (to, by) in [(8 * MIB, 100), (most, 64 << 10), (most / 2, 1_000_003)] {
        let to = to.min(most);
        let mut block = Growing::new(&heap, by);
        block.grow_to(to, by);
        println!("{what}: to {to} by {by}: {} moves", block.moves);
        assert!(block.moves <= MOVES, "{what}: {} moves", block.moves);
    }
    // By turns with others, that lie in each other's way.
    let mut blocks: Vec<_> = (0..8).map(|_| Growing::new(&heap, 30_000)).collect();
    while blocks[0].len < most / 16 {
        for block in &mut blocks {
            block.resize(block.len + 30_000).expect("memory");
        }
    }
    for block in &blocks {
        block.check();
        assert!(block.moves <= MOVES, "{what}: {} moves", block.moves);
    }
    drop(blocks);
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.used, held.huge_blocks, held.large_blocks), (0, 0, 0));
    assert_eq!((held.reserved, held.committed), (0, 0), "{held:?}");
}

#[test]
fn blocks_grow_on_the_system() {
    grows(OS, 64 * MIB, "the system");
    // Their pages move, where there is something that moves pages.
    let heap = heap(OS, HeapConfig::new());
    let mut block = Growing::new(&heap, 2 * MIB);
    block.grow_to(40 * MIB, MIB);
    let moved = heap.statistics().calls.moves;
    assert_eq!(moved != 0, block.moves != 0, "{moved} of {}", block.moves);
}

#[test]
fn blocks_grow_on_a_simulated_host() {
    for without in [Capabilities::empty(), Capabilities::MOVE_PAGES] {
        for page in [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64] {
            let policy = Policy::new(page).without(without);
            let sim = Sim::new(OS, policy).expect("addresses");
            grows(&sim, 16 * MIB, &format!("{page:?} without {without:?}"));
            assert_eq!(sim.take_misuse(), None);
            assert_eq!(sim.pages_in_use(), 0);
        }
    }
}

#[test]
fn blocks_grow_in_a_region() {
    let space = OS.reserve(&Request::bytes(512 * MIB)).expect("addresses");
    let region: RegionAllocator<OsProvider, OsProvider, OsLock> =
        RegionAllocator::on(OS, OS, RegionConfig::new()).expect("metadata");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    grows(&region, 32 * MIB, "a region");
    assert_eq!(region.statistics().used, 0, "all went back");
}

#[test]
fn blocks_grow_in_a_window() {
    const FREE: usize = 0x20_0000_0000;
    for mib in [256, 1 << 12] {
        let window = AddressRange::from_len(FREE, mib * MIB).expect("a range");
        grows(Within::new(OS, window), 16 * MIB, &format!("{mib} MiB"));
    }
    // A block that takes nearly all of it, and so has no room ahead.
    let window = AddressRange::from_len(FREE, 64 * MIB).expect("a range");
    let heap = heap(Within::new(OS, window), HeapConfig::new());
    let mut block = Growing::new(&heap, MIB);
    while block.resize(block.len + 300_000).is_ok() {}
    block.check();
    assert!(block.len >= 22 * MIB, "{} bytes", block.len);
    // What was ahead of it serves others where it is all that is left.
    let mut others = Vec::new();
    while let Ok(other) = heap.alloc(bytes(3 * MIB)) {
        others.push(other);
    }
    let all = block.len + others.len() * 3 * MIB;
    assert!(all >= 50 * MIB, "{} and {}", block.len, others.len());
    block.check();
    for other in others {
        // SAFETY: live, and used no more.
        unsafe { heap.free(other) }.expect("a live block");
    }
}

#[test]
fn blocks_shrink_where_they_lie() {
    let heap = heap(OS, HeapConfig::new());
    let mut block = Growing::new(&heap, 60 * MIB);
    for len in [59 * MIB, 40 * MIB + 5, 10 * MIB, 7 * MIB + 77, 2 * MIB] {
        block.resize(len).expect("less");
        block.check();
        assert_eq!(block.moves, 0, "{len}");
        let held = heap.statistics();
        assert!(held.reserved <= len / 3 * 4 + MIB, "{len}: {held:?}");
        assert!(held.committed <= len / 3 * 4 + MIB, "{len}: {held:?}");
    }
    // It is no huge one any more.
    block.resize(MIB / 2).expect("memory");
    block.check();
    block.grow_to(30 * MIB, 400_000);
    assert!(block.moves <= 10, "{} moves", block.moves);
}

/// A block tells how many bytes it has, without those that it has memory for ahead, so that whoever
/// knows no layout copies little more than what was asked for.
#[test]
fn what_was_asked_for_is_known() {
    let heap = heap(OS, HeapConfig::new());
    let page = OS.page_size();
    // Granules below, pages above.
    let whole = |size: usize| {
        let pages = page.round_up(size).expect("a length");
        if size <= MIB {
            size.next_multiple_of(64 << 10)
        } else {
            pages
        }
    };
    for size in [300_001, MIB, MIB + 1, 3 * MIB + 17, 70_000_000] {
        let block = heap.alloc(bytes(size)).expect("memory");
        assert_eq!(heap.usable_size(block), Some(whole(size)));
        for new in [size + 1, size + size / 3, size * 9 / 10, size + 5_000_000] {
            let usable = heap.usable_size(block).expect("a live block");
            // SAFETY: live, and used by this test only.
            let moved = unsafe { heap.realloc(block, bytes(usable), new) };
            let moved = moved.expect("memory");
            let usable = heap.usable_size(moved).expect("a live block");
            assert!(usable >= new && usable <= whole(new), "{usable} for {new}");
            if moved != block {
                assert_eq!(heap.usable_size(block), None, "it is gone");
                // SAFETY: live, and used no more.
                unsafe { heap.free(moved) }.expect("a live block");
                break;
            }
            if new == size + 5_000_000 {
                // SAFETY: live, and used no more.
                unsafe { heap.free(block) }.expect("a live block");
            }
        }
    }
    assert_eq!(heap.statistics().used, 0);
}

#[test]
fn hardened_blocks_grow() {
    let heap = heap(OS, HeapConfig::new().hardening(Hardening::Full));
    let mut block = Growing::new(&heap, 1000);
    block.grow_to(4 * MIB, 50_000);
    assert_eq!(heap.usable_size(block.block), Some(block.len));
    // One byte behind what was asked for.
    // SAFETY: inside the memory of the block, whose user does what it must not.
    let behind = unsafe { block.block.add(block.len) };
    // SAFETY: inside the memory of the block, whose user does what it must not.
    let before = unsafe { behind.read() };
    // SAFETY: inside the memory of the block, whose user does what it must not.
    unsafe { behind.write(!before) };
    let result = block.resize(block.len + MIB);
    assert!(matches!(result, Err(HeapError::Overflow(_))), "{result:?}");
    // SAFETY: inside the memory of the block, whose user does what it must not.
    unsafe { behind.write(before) };
    block.check();
}
