//! The metadata arena against an oracle that remembers every byte.
#![cfg(all(target_os = "linux", feature = "linux", feature = "sim"))]

#[cfg(all(target_os = "linux", feature = "linux"))]
mod common;

use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsProvider,
    arena::Arena,
    page::PageSize,
    provider::{ErrorKind, PageProvider},
    sim::{Calls, Faulty, Policy, Sim},
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        size: usize,
        align: u32,
    },
    Free {
        which: usize,
    },
    /// Commits fail from here on, or again do not.
    Fail(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = prop_oneof![1..100usize, 1..5_000usize, 1..200_000usize];
    let op = prop_oneof![
        6 => (size, 0..13u32).prop_map(|(size, align)| Op::Alloc { size, align }),
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
        // SAFETY: a live allocation, all of it filled, and nobody writes it meanwhile.
        let bytes = unsafe { bytes.as_ref() };
        assert!(
            bytes.iter().all(|&byte| byte == block.tag),
            "block {n} lost its bytes"
        );
    }
}

fn run(ops: &[Op], page: PageSize) {
    let sim = Sim::new(OsProvider::new(), Policy::new(page).space(64 << 20)).expect("mapped");
    let faulty = Faulty::new(&sim);
    faulty.only(Calls::COMMIT);
    let mut blocks: Vec<Block> = Vec::new();
    {
        let arena: Arena<_> = Arena::new(&faulty, 1 << 20).expect("reserved");
        let mut failing = false;
        for (n, op) in ops.iter().enumerate() {
            match *op {
                Op::Alloc { size, align } => {
                    let layout = Layout::from_size_align(size, 1 << align).expect("valid");
                    let before = arena.committed_bytes();
                    match arena.alloc(layout) {
                        Ok(memory) => {
                            assert_eq!(memory.addr().get() % layout.align(), 0);
                            let start = memory.addr().get();
                            let inside = arena.range().addresses();
                            assert!(inside.contains(start) && inside.contains(start + size - 1));
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
                                failing && error.errno() == Some(12)
                            );
                            assert_eq!(
                                arena.committed_bytes(),
                                before,
                                "a failure changes nothing"
                            );
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
            assert!(arena.committed_bytes() <= arena.max_bytes());
        }
        check_blocks(&blocks);
        let live: usize = blocks.iter().map(|block| block.layout.size()).sum();
        assert!(arena.used_bytes() >= live);
        for block in blocks.drain(..) {
            // SAFETY: as above.
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
        run(&ops, PageSize::KIB_4);
        run(&ops, PageSize::KIB_64);
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
fn a_short_address_space_halves_the_reservation() {
    let policy = Policy::new(PageSize::KIB_4).space(8 << 20);
    let sim = Sim::new(OsProvider::new(), policy).expect("mapped");
    let arena: Arena<_> = Arena::new(&sim, 1 << 30).expect("a smaller one fits");
    assert_eq!(arena.max_bytes(), 8 << 20);
    assert!(sim.reserve(&hostmem::provider::Request::bytes(1)).is_err());
}
