//! The AArch64 cache-maintenance sequence, recorded: every line size, with and without the
//! operations that a CPU may not need.

use hostmem::arch::ctr::{CacheOps, CacheType, maintain};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Clean(usize),
    Invalidate(usize),
    DataBarrier,
    InstructionBarrier,
}

#[derive(Default)]
struct Recorder(Vec<Op>);

impl CacheOps for Recorder {
    fn clean_data(&mut self, addr: usize) {
        self.0.push(Op::Clean(addr));
    }
    fn invalidate_instructions(&mut self, addr: usize) {
        self.0.push(Op::Invalidate(addr));
    }
    fn data_barrier(&mut self) {
        self.0.push(Op::DataBarrier);
    }
    fn instruction_barrier(&mut self) {
        self.0.push(Op::InstructionBarrier);
    }
}

fn record(cache: CacheType, addr: usize, len: usize) -> Vec<Op> {
    let mut recorder = Recorder::default();
    maintain(cache, &[(addr, len)], &mut recorder);
    recorder.0
}

/// The lines that hold a byte of the range, found byte by byte.
fn naive_lines(addr: usize, len: usize, line: usize) -> Vec<usize> {
    let mut lines: Vec<usize> = (addr..addr + len).map(|byte| byte / line * line).collect();
    lines.dedup();
    lines
}

#[test]
fn every_line_once_and_barriers_in_order_for_every_cache_type() {
    let ranges = [
        (0x1000, 1),
        (0x1000, 64),
        (0x103f, 2),
        (0x1004, 4),
        (0x1fff, 0x801),
        (0x1, 300),
    ];
    for (data, instructions) in (0..8).flat_map(|d| (0..8).map(move |i| (d, i))) {
        for flags in 0..4u64 {
            let raw = flags << 28 | data << 16 | instructions | 0x8000_0000;
            let cache = CacheType::from_raw(raw);
            assert_eq!(cache.data_line, 4 << data);
            assert_eq!(cache.instruction_line, 4 << instructions);
            assert_eq!(cache.clean_not_needed, flags & 1 == 1, "IDC is bit 28");
            assert_eq!(cache.invalidate_not_needed, flags & 2 == 2, "DIC is bit 29");
            for (addr, len) in ranges {
                let mut expected = Vec::new();
                if !cache.clean_not_needed {
                    expected.extend(naive_lines(addr, len, 4 << data).into_iter().map(Op::Clean));
                }
                expected.push(Op::DataBarrier);
                if !cache.invalidate_not_needed {
                    let lines = naive_lines(addr, len, 4 << instructions);
                    expected.extend(lines.into_iter().map(Op::Invalidate));
                    expected.push(Op::DataBarrier);
                }
                expected.push(Op::InstructionBarrier);
                assert_eq!(
                    record(cache, addr, len),
                    expected,
                    "{cache:?} {addr:#x}+{len:#x}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_touched_for_no_bytes() {
    let ops = record(CacheType::from_raw(0x4_0004), 0x1010, 0);
    assert_eq!(
        ops,
        [Op::DataBarrier, Op::DataBarrier, Op::InstructionBarrier]
    );
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[test]
fn live_threads_have_thread_pointers_of_their_own() {
    use hostmem::arch::thread_pointer;
    use std::{collections::BTreeSet, sync::Barrier, thread};
    const THREADS: usize = 8;
    // SAFETY: this program has a C library, which sets it up.
    let own = || unsafe { thread_pointer() };
    let all_live = &Barrier::new(THREADS);
    let pointers: BTreeSet<usize> = thread::scope(|scope| {
        let ask = || {
            let pointer = own();
            all_live.wait();
            assert_eq!(own(), pointer, "it stays");
            pointer
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        let joined = threads.into_iter().map(|t| t.join().expect("it ends"));
        joined.collect()
    });
    assert!(pointers.len() == THREADS && !pointers.contains(&0));
    assert!(!pointers.contains(&own()));
}
