//! Twenty classic faults of programs, at each level of hardening: what is found is what the table
//! in `docs/HEAP.md` says.

mod kinds;

use crate::system::{OsHeap, bytes, heap};
use hostmem::heap::{Hardening, HeapConfig, HeapError};
use hostmem_test_support::fault::faults;
use kinds::{
    double_free, double_free_after_reuse, forged_links, free_by_a_wrong_size, free_by_two_threads,
    free_inside, free_of_a_variable, free_of_another_heaps, overflow_by_eight, overflow_by_one,
    overflow_into_the_neighbour, overflow_of_a_large_block, overwritten_metadata, read_after_free,
    read_before_write, resize_after_free, resize_by_a_wrong_layout, underflow,
    use_of_a_freed_large_block, write_after_free, write_deep_into_a_freed_block,
};
use std::ptr::{NonNull, with_exposed_provenance_mut};

/// What becomes of a fault, as the table calls it.
const FOUND: &str = "found";

/// The access ends the program.
const FAULTS: &str = "faults";

/// There is nothing to be read or to be reached.
const HARMLESS: &str = "harmless";
const MISSED: &str = "–";
const LEVELS: [Hardening; 3] = [Hardening::Checked, Hardening::Canaries, Hardening::Full];

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
            let heap = heap(config);
            assert_eq!(bug(&heap), expected, "{name}, at {level:?}");
        }
    }
    let found = BUGS.iter().filter(|(_, _, [.., full])| *full != MISSED);
    assert!(found.count() >= 18);
}

#[test]
fn of_two_threads_that_free_one_block_the_highest_level_refuses_one() {
    let config = HeapConfig::new().hardening(Hardening::Full);
    let heap = heap(config);
    assert_eq!(free_by_two_threads(&heap), FOUND);
}

#[test]
fn the_table_has_these_rows() {
    let page = include_str!("../../../docs/HEAP.md");
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
