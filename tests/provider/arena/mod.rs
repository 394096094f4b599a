//! The metadata arena against an oracle that remembers every byte.

mod little;
mod metadata;

use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsProvider,
    arena::Arena,
    page::PageSize,
    provider::ErrorKind,
    sim::{Calls, Faulty, Policy, Sim},
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        size: usize,
        align: u32,
        zeroed: bool,
    },
    Free {
        which: usize,
    },
    /// Reservations and commits fail from here on, or again do not.
    Fail(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = prop_oneof![
        8 => 1..100usize,
        8 => 1..5_000usize,
        8 => 1..200_000usize,
        1 => 1_000_000..3_000_000usize,
    ];
    let op = prop_oneof![
        6 => (size, 0..13u32, any::<bool>())
            .prop_map(|(size, align, zeroed)| Op::Alloc { size, align, zeroed }),
        4 => any::<usize>().prop_map(|which| Op::Free { which }),
        1 => any::<bool>().prop_map(Op::Fail),
    ];
    prop::collection::vec(op, 1..120)
}

struct Block {
    memory: NonNull<u8>,
    layout: Layout,
    tag: u8,
}

fn check_blocks(blocks: &[Block]) {
    for (n, block) in blocks.iter().enumerate() {
        let bytes = NonNull::slice_from_raw_parts(block.memory, block.layout.size());
        // SAFETY: a live allocation, all of it filled, and no other code writes it meanwhile.
        let bytes = unsafe { bytes.as_ref() };
        assert!(
            bytes.iter().all(|&byte| byte == block.tag),
            "block {n} lost its bytes"
        );
    }
}

fn run(ops: &[Op], page: PageSize, max: usize) {
    let sim = Sim::new(OsProvider::new(), Policy::new(page).space(64 << 20)).expect("mapped");
    let faulty = Faulty::new(&sim);
    faulty.only(Calls::COMMIT | Calls::RESERVE);
    let mut blocks: Vec<Block> = Vec::new();
    {
        let arena: Arena<_> = Arena::new(&faulty, max).expect("a valid bound");
        let mut failing = false;
        for (n, op) in ops.iter().enumerate() {
            match *op {
                Op::Alloc {
                    size,
                    align,
                    zeroed,
                } => {
                    let layout = Layout::from_size_align(size, 1 << align).expect("valid");
                    let held = || (arena.committed_bytes(), arena.reserved_bytes());
                    let before = held();
                    let found = if zeroed {
                        arena.alloc_zeroed(layout)
                    } else {
                        arena.alloc(layout)
                    };
                    match found {
                        Ok(memory) => {
                            if zeroed {
                                let bytes = NonNull::slice_from_raw_parts(memory, size);
                                // SAFETY: fresh memory of this size, which reads zero.
                                let bytes = unsafe { bytes.as_ref() };
                                assert!(bytes.iter().all(|&byte| byte == 0), "not zero");
                            }
                            assert_eq!(memory.addr().get() % layout.align(), 0);
                            let start = memory.addr().get();
                            for other in &blocks {
                                let at = other.memory.addr().get();
                                let apart = at + other.layout.size() <= start || start + size <= at;
                                assert!(apart, "blocks overlap");
                            }
                            let tag = u8::try_from(n).expect("at most 120 operations");
                            // SAFETY: fresh memory of this size.
                            unsafe { memory.write_bytes(tag, size) };
                            blocks.push(Block {
                                memory,
                                layout,
                                tag,
                            });
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Exhausted);
                            assert_eq!(
                                error.errno().is_some(),
                                failing && error.errno() == Some(12),
                                "only the provider's errors have a number"
                            );
                            assert_eq!(held(), before, "a failure changes nothing");
                        }
                    }
                }
                Op::Free { which } if !blocks.is_empty() => {
                    let block = blocks.swap_remove(which % blocks.len());
                    // SAFETY: allocated with this layout, and forgotten now.
                    unsafe { arena.free(block.memory, block.layout) };
                }
                Op::Free { .. } => {}
                Op::Fail(on) => {
                    failing = on;
                    if on {
                        faulty.fail_randomly(0, 1)
                    } else {
                        faulty.fail_none()
                    }
                }
            }
            assert!(arena.committed_bytes() <= arena.reserved_bytes());
            assert!(arena.reserved_bytes() <= arena.max_bytes());
        }
        check_blocks(&blocks);
        let live: usize = blocks.iter().map(|block| block.layout.size()).sum();
        assert!(arena.used_bytes() >= live);
        for block in blocks.drain(..) {
            // SAFETY: allocated with this layout, and forgotten now.
            unsafe { arena.free(block.memory, block.layout) };
        }
        assert_eq!(arena.used_bytes(), 0, "all of it came back");
    }
    assert_eq!(sim.take_misuse(), None);
    assert_eq!(sim.pages_in_use(), 0, "the arena gave its addresses back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn allocations_are_apart_aligned_and_keep_their_bytes(ops in ops()) {
        for page in [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64] {
            run(&ops, page, 1 << 20);
            run(&ops, page, 16 << 20);
        }
    }
}

#[test]
fn at_its_bound_the_arena_says_so_and_serves_again() {
    let arena: Arena<OsProvider> = Arena::new(OsProvider::new(), 1 << 20).expect("reserved");
    let layout = Layout::from_size_align(100_000, 8).expect("valid");
    let mut blocks = Vec::new();
    let error = loop {
        match arena.alloc(layout) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        (8..=10).contains(&blocks.len()),
        "{} blocks of 100 kB in 1 MiB",
        blocks.len()
    );
    let last = blocks.pop().expect("some");
    // SAFETY: allocated with this layout, and forgotten now.
    unsafe { arena.free(last, layout) };
    arena.alloc(layout).expect("there is room again");
    let zero = Layout::from_size_align(0, 1).expect("valid");
    assert_eq!(
        arena.alloc(zero).map(drop).map_err(|e| e.kind()),
        Err(ErrorKind::InvalidArgument)
    );
}

#[test]
fn objects_come_from_larger_ones_at_the_bound() {
    let layout = |size| Layout::from_size_align(size, 8).expect("valid");
    // Out of the pools, and out of the list.
    for (large, small) in [(20_000, 100), (40_000, 3000)] {
        let arena: Arena<_> = Arena::new(OsProvider::new(), 256 << 10).expect("a valid bound");
        let mut blocks = Vec::new();
        for size in [large, small] {
            while let Ok(block) = arena.alloc(layout(size)) {
                blocks.push(block);
            }
        }
        assert!(
            arena.used_bytes() > arena.max_bytes() * 9 / 10,
            "it is full"
        );
        // SAFETY: the first block was allocated with this layout, and is forgotten now.
        unsafe { arena.free(blocks.swap_remove(0), layout(large)) };
        let mut found: Vec<NonNull<u8>> = Vec::new();
        while let Ok(block) = arena.alloc(layout(small)) {
            // SAFETY: fresh memory of this size.
            unsafe { block.write_bytes(1, small) };
            let apart = |other: &NonNull<u8>| block.addr().get().abs_diff(other.addr().get());
            assert!(found.iter().all(|other| apart(other) >= small), "overlap");
            found.push(block);
        }
        let served = found.len() * small;
        assert!(served > large * 6 / 10, "{served} bytes of {large}");
    }
}
