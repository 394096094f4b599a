//! The memory itself, without a compiler: what is given out, what is kept, and what may fail.

use super::{
    MAPPINGS, OS,
    common::{CODE_LEN, call, code_returning},
    simulated, small,
};
use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use hostmem::{
    jit::Mapping,
    page::RwxOptIn,
    provider::{DualMapProvider, ErrorKind, PageProvider},
    sim::{Faulty, Policy},
};
use hostmem_cranelift::{CraneliftConfig, CraneliftMemory as Memory};

#[test]
fn sizes_and_mappings_that_cannot_be_are_refused() {
    // SAFETY: refused, so no such memory comes about.
    let writable_code = Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() });
    let gib = 1 << 30;
    for (config, kind) in [
        (small(writable_code), ErrorKind::InvalidArgument),
        (
            CraneliftConfig::new().sizes(0, 1, 1),
            ErrorKind::InvalidArgument,
        ),
        (
            CraneliftConfig::new().sizes(gib, gib / 2, gib / 2),
            ErrorKind::InvalidArgument,
        ),
        (
            CraneliftConfig::new().sizes(usize::MAX, 1, 1),
            ErrorKind::InvalidArgument,
        ),
    ] {
        let refused = Memory::on(OS, config).expect_err("refused");
        assert_eq!(refused.kind(), kind, "{config:?}");
    }
}

fn allocate<P: PageProvider + DualMapProvider>(
    memory: &mut Memory<P>,
    size: usize,
    align: u64,
    kind: JITMemoryKind,
) -> Result<*mut u8, std::io::ErrorKind> {
    memory.allocate(size, align, kind).map_err(|e| e.kind())
}

#[test]
fn allocations_are_aligned_apart_and_bounded() {
    let kinds = || {
        [
            JITMemoryKind::Executable,
            JITMemoryKind::ReadOnly,
            JITMemoryKind::Writable,
        ]
    };
    let mut memory = Memory::on(OS, small(Mapping::Auto)).expect("addresses");
    let region = memory.region().expect("reserved");
    let mut given: Vec<(usize, usize)> = Vec::new();
    for (pattern, size) in [(1, 1), (2, 0), (3, 63), (4, 4096), (5, 70_000)] {
        for align in [1, 8, 16, 4096, 1 << 16] {
            for kind in kinds() {
                let start = allocate(&mut memory, size, align, kind).expect("room");
                assert!((start.addr() as u64).is_multiple_of(align));
                // SAFETY: just allocated, and ours to write.
                unsafe { start.write_bytes(pattern, size) };
                given.push((start.addr(), size));
            }
        }
        if pattern == 3 {
            memory
                .finalize(BranchProtection::None)
                .expect("sealed once in between");
        }
    }
    given.sort_unstable();
    for pair in given.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    let (last, len) = given[given.len() - 1];
    assert!(region.contains(given[0].0) && last + len <= region.end());
    for kind in kinds() {
        let refused = allocate(&mut memory, 1 << 20, 1, kind);
        assert_eq!(refused, Err(std::io::ErrorKind::OutOfMemory));
    }
    for (size, align) in [(1, 0), (1, 3)] {
        let refused = allocate(&mut memory, size, align, JITMemoryKind::Writable);
        assert_eq!(refused, Err(std::io::ErrorKind::InvalidInput));
    }
    let refused = allocate(&mut memory, usize::MAX, 1, JITMemoryKind::Writable);
    assert_eq!(refused, Err(std::io::ErrorKind::OutOfMemory));
    // SAFETY: nothing of it is used any more.
    unsafe { memory.free_memory() };
    let refused = allocate(&mut memory, 1, 1, JITMemoryKind::Writable);
    assert_eq!(refused, Err(std::io::ErrorKind::Other));
    assert!(memory.finalize(BranchProtection::None).is_err());
}

#[test]
fn every_way_to_the_end_keeps_or_gives_back_as_cranelift_has_it() {
    for mapping in MAPPINGS {
        for (finalized, freed) in [(false, false), (false, true), (true, true), (true, false)] {
            let sim = simulated(Policy::new(OS.page_size()));
            let before = sim.fingerprint();
            let mut memory = Memory::on(sim, small(mapping)).expect("addresses");
            let code = allocate(&mut memory, CODE_LEN, 16, JITMemoryKind::Executable);
            let code = code.expect("room");
            // SAFETY: just allocated, and ours to write.
            unsafe { code.cast::<[u8; CODE_LEN]>().write(code_returning(77)) };
            if finalized {
                memory.finalize(BranchProtection::None).expect("sealed");
            }
            if freed {
                // SAFETY: no other code uses it.
                unsafe { memory.free_memory() };
            }
            drop(memory);
            let leaked = finalized && !freed;
            assert_eq!(sim.fingerprint() != before, leaked, "{mapping:?}");
            if leaked {
                // SAFETY: such a function is there, and stays until the process ends.
                assert_eq!(unsafe { call(code) }, 77);
            }
            assert_eq!(sim.take_misuse(), None);
        }
    }
}

#[test]
fn branch_protection_is_kept_where_the_host_has_it_and_does_no_harm_elsewhere() {
    for mapping in MAPPINGS {
        let mut memory = Memory::on(OS, small(mapping)).expect("addresses");
        let mut code = Vec::new();
        if cfg!(target_arch = "aarch64") {
            code.extend(0xd503_245f_u32.to_le_bytes()); // bti c
        }
        code.extend(code_returning(99));
        let place = allocate(&mut memory, code.len(), 16, JITMemoryKind::Executable);
        let place = place.expect("room");
        // SAFETY: just allocated, as long as the code, and ours to write.
        unsafe { place.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        memory.finalize(BranchProtection::BTI).expect("sealed");
        // SAFETY: such a function is there, and begins with a landing pad.
        assert_eq!(unsafe { call(place) }, 99);
        // SAFETY: no code calls it any more.
        unsafe { memory.free_memory() };
    }
}

/// Writes a function to new memory, which may fail to be given once.
fn write_code<P: PageProvider + DualMapProvider>(
    memory: &mut Memory<P>,
    kind: fn() -> JITMemoryKind,
    value: u32,
) -> *mut u8 {
    let place = allocate(memory, CODE_LEN, 16, kind())
        .or_else(|_| allocate(memory, CODE_LEN, 16, kind()))
        .expect("it fails once");
    // SAFETY: just allocated, and ours to write.
    unsafe { place.cast::<[u8; CODE_LEN]>().write(code_returning(value)) };
    place
}

#[test]
fn what_fails_can_be_tried_again() {
    for mapping in MAPPINGS {
        let mut failed = 0;
        for n in 0.. {
            let sim = simulated(Policy::new(OS.page_size()));
            let before = sim.fingerprint();
            let faulty: &'static _ = Box::leak(Box::new(Faulty::new(sim)));
            let mut memory = Memory::on(faulty, small(mapping)).expect("addresses");
            faulty.fail_nth(n);
            let code = write_code(&mut memory, || JITMemoryKind::Executable, 1234);
            let data = write_code(&mut memory, || JITMemoryKind::ReadOnly, 5678);
            if memory.finalize(BranchProtection::None).is_err() {
                memory
                    .finalize(BranchProtection::None)
                    .expect("it fails once");
            }
            // SAFETY: such a function was written there.
            assert_eq!(unsafe { call(code) }, 1234, "call {n}");
            // SAFETY: as much was written there.
            let read = unsafe { data.cast::<[u8; CODE_LEN]>().read() };
            assert_eq!(read, code_returning(5678));
            let happened = faulty.failures();
            faulty.fail_none();
            // SAFETY: no other code uses it any more.
            unsafe { memory.free_memory() };
            assert_eq!(sim.fingerprint(), before, "call {n}");
            assert_eq!(sim.take_misuse(), None);
            if happened == 0 {
                break;
            }
            failed += 1;
        }
        assert!(failed >= 4, "{mapping:?}: only {failed} calls were made");
    }
}
