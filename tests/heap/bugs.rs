//! Twenty classic faults of programs, at each level of hardening: what is found is what the table
//! in `docs/HEAP.md` says.

use hostmem::{
    OsLock, OsProvider,
    heap::{Hardening, Heap, HeapConfig, HeapError},
};
use hostmem_test_support::fault::faults;
use std::{
    alloc::Layout,
    collections::BTreeSet,
    ptr::{NonNull, with_exposed_provenance_mut},
    sync::Barrier,
    thread,
};

const OS: OsProvider = OsProvider::new();

type OsHeap = Heap<OsProvider, OsProvider, OsLock>;

/// What becomes of a fault, as the table calls it.
const FOUND: &str = "found";
/// The access ends the program.
const FAULTS: &str = "faults";
/// There is nothing to be read or to be reached.
const HARMLESS: &str = "harmless";
const MISSED: &str = "–";

const LEVELS: [Hardening; 3] = [Hardening::Checked, Hardening::Canaries, Hardening::Full];

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

fn alloc(heap: &OsHeap, size: usize) -> NonNull<u8> {
    heap.alloc(bytes(size)).expect("memory")
}

/// Frees what may be a block or not, as a faulty program does.
fn free(heap: &OsHeap, block: NonNull<u8>) -> Result<(), HeapError> {
    // SAFETY: none where it is no live block: this is the fault, which the heap is to find.
    unsafe { heap.free(block) }
}

/// Writes where a faulty program does, inside the heap's accessible memory.
fn write(block: NonNull<u8>, offset: isize, count: usize) {
    let place = block.as_ptr().wrapping_offset(offset);
    for n in 0..count {
        // SAFETY: none: this is the fault. What lies there is the heap's.
        unsafe { place.wrapping_add(n).write_volatile(0xa5) };
    }
}

fn read(block: NonNull<u8>, offset: usize) -> u8 {
    // SAFETY: none: as above.
    unsafe { block.as_ptr().wrapping_add(offset).read_volatile() }
}

/// Says whether an access to heap memory ends the program.
fn ends(block: NonNull<u8>, offset: usize) -> bool {
    let addr = block.expose_provenance().get() + offset;
    let place: *mut u8 = with_exposed_provenance_mut(addr);
    // SAFETY: none: as above.
    faults(|| unsafe { place.write_volatile(0xa5) }).is_some()
}

fn refused<T>(result: Result<T, HeapError>) -> &'static str {
    if result.is_err() { FOUND } else { MISSED }
}

/// Says whether a corrupt block is found when it is handed out again.
fn at_reuse(heap: &OsHeap, size: usize) -> &'static str {
    // Ends the quarantine.
    heap.trim();
    for _ in 0..8192 {
        match heap.alloc(bytes(size)) {
            Ok(_) => {}
            Err(HeapError::WriteAfterFree(_)) => return FOUND,
            Err(error) => panic!("{error}"),
        }
    }
    MISSED
}

fn double_free(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    refused(free(heap, block))
}

fn double_free_after_reuse(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    let other = alloc(heap, 100);
    let told = refused(free(heap, block));
    assert_eq!(told == FOUND, other != block, "it serves again");
    told
}

fn free_inside(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    refused(free(
        heap,
        NonNull::new(block.as_ptr().wrapping_add(16)).expect("inside"),
    ))
}

fn free_of_a_variable(heap: &OsHeap) -> &'static str {
    let mut variable = [0_u64; 4];
    refused(free(heap, NonNull::from(&mut variable).cast()))
}

fn free_of_another_heaps(heap: &OsHeap) -> &'static str {
    let other = OsHeap::on(OS, OS, HeapConfig::new()).expect("metadata");
    refused(free(heap, alloc(&other, 100)))
}

fn free_by_two_threads(heap: &OsHeap) -> &'static str {
    let barrier = Barrier::new(2);
    let twice = (0..200).any(|_| {
        let addr = alloc(heap, 100).expose_provenance().get();
        let by_one = || {
            let local = heap.local().expect("metadata");
            let block = NonNull::new(with_exposed_provenance_mut(addr)).expect("a block");
            barrier.wait();
            // SAFETY: none: this is the fault.
            unsafe { local.free(block) }.is_ok()
        };
        thread::scope(|scope| {
            let other = scope.spawn(by_one);
            let own = by_one();
            own == other.join().expect("no panic")
        })
    });
    if twice { MISSED } else { FOUND }
}

fn overflow_by_one(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    write(block, 100, 1);
    refused(free(heap, block))
}

fn overflow_by_eight(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    write(block, 100, 8);
    refused(free(heap, block))
}

fn overflow_into_the_neighbour(heap: &OsHeap) -> &'static str {
    // The first of two that lie side by side.
    let blocks: BTreeSet<_> = (0..2000).map(|_| alloc(heap, 100)).collect();
    let next = |block: &&NonNull<u8>| {
        let next = block.as_ptr().wrapping_add(112);
        blocks.contains(&NonNull::new(next).expect("not null"))
    };
    let block = *blocks.iter().find(next).expect("neighbours");
    write(block, 0, 150);
    refused(free(heap, block))
}

fn underflow(heap: &OsHeap) -> &'static str {
    let blocks: BTreeSet<_> = (0..2000).map(|_| alloc(heap, 100)).collect();
    let before = |block: &NonNull<u8>| {
        let before = NonNull::new(block.as_ptr().wrapping_sub(112)).expect("not null");
        blocks.get(&before).copied()
    };
    let (block, before) = blocks
        .iter()
        .find_map(|block| Some((*block, before(block)?)))
        .expect("neighbours");
    write(block, -8, 8);
    refused(free(heap, before))
}

fn overflow_of_a_large_block(heap: &OsHeap) -> &'static str {
    let _neighbours = [(); 4].map(|()| alloc(heap, 300_000));
    let block = alloc(heap, 300_000);
    // What lies behind may be nothing at any level; in the rest of the last granule nothing faults.
    if ends(block, 300_000_usize.next_multiple_of(65_536))
        && heap.config().level() == Hardening::Full
    {
        return FAULTS;
    }
    MISSED
}

fn write_after_free(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    free(heap, block).expect("a live block");
    write(block, 8, 8);
    at_reuse(heap, 100)
}

fn write_deep_into_a_freed_block(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    free(heap, block).expect("a live block");
    write(block, 64, 8);
    at_reuse(heap, 100)
}

fn read_after_free(heap: &OsHeap) -> &'static str {
    let (_kept, block) = (alloc(heap, 100), alloc(heap, 100));
    write(block, 0, 100);
    free(heap, block).expect("a live block");
    if (0..100).any(|offset| read(block, offset) == 0xa5) {
        MISSED
    } else {
        HARMLESS
    }
}

fn use_of_a_freed_large_block(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 300_000);
    write(block, 0, 8);
    free(heap, block).expect("a live block");
    if ends(block, 0) { FAULTS } else { MISSED }
}

fn read_before_write(heap: &OsHeap) -> &'static str {
    let secrets: Vec<_> = (0..100).map(|_| alloc(heap, 100)).collect();
    for block in &secrets {
        write(*block, 0, 100);
    }
    // Every second one, so that the memory stays.
    for block in secrets.into_iter().step_by(2) {
        free(heap, block).expect("a live block");
    }
    heap.trim();
    let mut blocks = (0..600).map(|_| alloc(heap, 100));
    if blocks.any(|block| read(block, 50) == 0xa5) {
        MISSED
    } else {
        HARMLESS
    }
}

fn free_by_a_wrong_size(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    // SAFETY: none, as the size is another one: this is the fault.
    refused(unsafe { heap.free_sized(block, bytes(16)) })
}

fn resize_after_free(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    free(heap, block).expect("a live block");
    // SAFETY: none: this is the fault.
    refused(unsafe { heap.realloc(block, bytes(100), 200) })
}

fn resize_by_a_wrong_layout(heap: &OsHeap) -> &'static str {
    let block = alloc(heap, 100);
    // SAFETY: none, as the size is another one: this is the fault.
    refused(unsafe { heap.realloc(block, bytes(16), 200) })
}

fn forged_links(heap: &OsHeap) -> &'static str {
    let blocks: Vec<_> = (0..100).map(|_| alloc(heap, 100)).collect();
    let target = alloc(heap, 100);
    for block in &blocks {
        free(heap, *block).expect("a live block");
        // As a list through free blocks would have them.
        // SAFETY: none: this is the fault.
        unsafe { block.cast::<[NonNull<u8>; 2]>().write_volatile([target; 2]) };
    }
    if at_reuse(heap, 100) == FOUND {
        return FOUND;
    }
    let reached = (0..1000).any(|_| alloc(heap, 100) == target);
    if reached { MISSED } else { HARMLESS }
}

fn overwritten_metadata(heap: &OsHeap) -> &'static str {
    // All of a granule of blocks, from the first one on.
    let blocks: BTreeSet<_> = (0..600).map(|_| alloc(heap, 100)).collect();
    let granule = |block: &NonNull<u8>| block.addr().get() >> 16;
    let of = granule(blocks.first().expect("a block"));
    let victims: Vec<_> = blocks.iter().filter(|block| granule(block) == of).collect();
    for block in &victims {
        write(**block, 0, 112);
    }
    let found = victims.iter().filter(|block| free(heap, ***block).is_err());
    let found = found.count() != 0;
    // Whatever was written, the heap knows its blocks.
    for block in blocks.iter().filter(|block| granule(block) != of) {
        free(heap, *block).expect("a live block");
    }
    let held = heap.statistics();
    assert_eq!(held.used, held.corrupt_blocks * 112, "{held:?}");
    if found { FOUND } else { HARMLESS }
}

type Bug = (&'static str, fn(&OsHeap) -> &'static str, [&'static str; 3]);

/// The faults, by the names of the table, and what each level makes of them.
const BUGS: [Bug; 20] = [
    ("double free", double_free, [FOUND, FOUND, FOUND]),
    (
        "double free after the block serves again",
        double_free_after_reuse,
        [MISSED, MISSED, FOUND],
    ),
    (
        "free of an address inside a block",
        free_inside,
        [FOUND, FOUND, FOUND],
    ),
    (
        "free of a variable",
        free_of_a_variable,
        [FOUND, FOUND, FOUND],
    ),
    (
        "free of another heap's block",
        free_of_another_heaps,
        [FOUND, FOUND, FOUND],
    ),
    (
        "overflow by one byte",
        overflow_by_one,
        [MISSED, FOUND, FOUND],
    ),
    (
        "overflow by eight bytes",
        overflow_by_eight,
        [MISSED, FOUND, FOUND],
    ),
    (
        "overflow into the neighbour",
        overflow_into_the_neighbour,
        [MISSED, FOUND, FOUND],
    ),
    (
        "underflow by eight bytes",
        underflow,
        [MISSED, FOUND, FOUND],
    ),
    (
        "overflow of a large block's last pages",
        overflow_of_a_large_block,
        [MISSED, MISSED, FAULTS],
    ),
    (
        "write to the start of a freed block",
        write_after_free,
        [MISSED, FOUND, FOUND],
    ),
    (
        "write elsewhere into a freed block",
        write_deep_into_a_freed_block,
        [MISSED, MISSED, FOUND],
    ),
    (
        "read of a freed block",
        read_after_free,
        [MISSED, MISSED, HARMLESS],
    ),
    (
        "read or write of a freed large block",
        use_of_a_freed_large_block,
        [MISSED, MISSED, FAULTS],
    ),
    (
        "read before the first write",
        read_before_write,
        [MISSED, MISSED, HARMLESS],
    ),
    (
        "free by a wrong size",
        free_by_a_wrong_size,
        [MISSED, FOUND, FOUND],
    ),
    (
        "resize of a freed block",
        resize_after_free,
        [FOUND, FOUND, FOUND],
    ),
    (
        "resize by a wrong layout",
        resize_by_a_wrong_layout,
        [MISSED, FOUND, FOUND],
    ),
    (
        "forged links in free blocks",
        forged_links,
        [HARMLESS, FOUND, FOUND],
    ),
    (
        "metadata beside blocks overwritten",
        overwritten_metadata,
        [HARMLESS, FOUND, FOUND],
    ),
];

#[test]
fn each_level_finds_what_the_table_says() {
    for (name, bug, expected) in BUGS {
        for (level, expected) in LEVELS.into_iter().zip(expected) {
            let config = HeapConfig::new().hardening(level).large_pages(false);
            let heap = OsHeap::on(OS, OS, config).expect("metadata");
            assert_eq!(bug(&heap), expected, "{name}, at {level:?}");
        }
    }
    let found = BUGS.iter().filter(|(_, _, [.., full])| *full != MISSED);
    assert!(found.count() >= 18);
}

#[test]
fn of_two_threads_that_free_one_block_the_highest_level_refuses_one() {
    let config = HeapConfig::new().hardening(Hardening::Full);
    let heap = OsHeap::on(OS, OS, config).expect("metadata");
    assert_eq!(free_by_two_threads(&heap), FOUND);
}

#[test]
fn the_table_has_these_rows() {
    let page = include_str!("../../docs/HEAP.md");
    let rows: Vec<Vec<_>> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    for (name, _, expected) in BUGS {
        let row = rows.iter().find(|row| row.get(1) == Some(&name));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(row.get(2..5), Some(expected.as_slice()), "{name}");
    }
}
