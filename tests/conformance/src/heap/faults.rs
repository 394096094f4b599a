//! Calls of the providers that fail: an error, and a heap as it was.

use super::{config, counted, op, ops};
use crate::Outcome;
use alloc::vec::Vec;
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    heap::{Heap, HeapConfig, HeapError, Level},
    provider::{PageProvider, Provider},
    sim::{Calls, Faulty},
};

/// What can fail without a leak that cannot be helped: all but giving addresses back.
const FAILING: Calls = Calls::RESERVE
    .union(Calls::COMMIT)
    .union(Calls::PROTECT)
    .union(Calls::PURGE)
    .union(Calls::DECOMMIT);

/// Calls that meet every call of the provider; returns how many of them failed.
fn script<P: PageProvider + Copy>(p: P, config: HeapConfig) -> Result<usize, HeapError> {
    let heap = Heap::<P>::on(p, p, config)?;
    let mut live: Vec<(NonNull<u8>, Layout)> = Vec::new();
    let mut failed = 0;
    let local = match heap.local() {
        Ok(local) => local,
        Err(_) => {
            failed += 1;
            heap.local()?
        }
    };
    for round in 0..3 {
        for size in [
            16, 24, 500, 500, 6000, 40_000, 150_000, 400_000, 900_000, 1_500_000,
        ] {
            let layout = Layout::from_size_align(size, 8).map_err(|_| HeapError::InvalidSize)?;
            let mut got = local.alloc(layout);
            if got.is_err() {
                failed += 1;
                // The fault has passed.
                got = local.alloc(layout);
            }
            let block = got?;
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(0x77, size) };
            live.push((block, layout));
        }
        for (block, layout) in live.drain(..) {
            // SAFETY: a live block of this many bytes, all written.
            let bytes = unsafe { NonNull::slice_from_raw_parts(block, layout.size()).as_ref() };
            assert!(bytes.iter().all(|byte| *byte == 0x77), "{layout:?}");
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }?;
        }
        match round {
            0 => heap.trim(),
            1 => heap.collect(Level::Deep),
            _ => heap.tick(round * 5000),
        }
    }
    Ok(failed)
}

pub(super) fn any_call_of_the_provider_may_fail<P: Provider + Copy>(p: P) -> Outcome {
    any_call_may_fail(p, config());
    Outcome::Passed
}

pub(super) fn any_call_may_fail<P: Provider + Copy>(p: P, config: HeapConfig) {
    let (mut met, mut told) = (0, 0);
    for n in 0.. {
        let counted = counted(p);
        let faulty = Faulty::new(&counted);
        faulty.only(FAILING);
        faulty.fail_nth(n);
        let result = script(&faulty, config);
        let happened = faulty.failures();
        assert_eq!(
            counted.counters().reserved.now,
            0,
            "call {n}: addresses leaked"
        );
        if happened == 0 {
            assert_eq!(result, Ok(0), "nothing failed");
            break;
        }
        met += 1;
        // Only what the heap needs to begin with ends the script. Of much else nothing is told,
        // since the heap tries again.
        told += result.unwrap_or(1);
    }
    assert!(
        met > 10 && told != 0,
        "{met} calls failed, {told} times it was told"
    );
}

pub(super) fn random_calls_keep_every_block_intact_while_others_fail<P: Provider + Copy>(
    p: P,
) -> Outcome {
    random_calls_may_fail(p, config(), 3000);
    Outcome::Passed
}

pub(super) fn random_calls_may_fail<P: Provider + Copy>(p: P, config: HeapConfig, steps: usize) {
    let mut exhausted = 0;
    for seed in 0x5ef1..0x5ef4 {
        let (pages, metadata) = (counted(p), counted(p));
        let (failing, short) = (Faulty::new(&pages), Faulty::new(&metadata));
        failing.only(FAILING);
        short.only(FAILING);
        failing.fail_randomly(seed, 4);
        short.fail_randomly(seed + 99, 9);
        let tally = ops::check(&failing, &short, config, op::random_ops(seed).take(steps));
        exhausted += tally.exhausted;
        assert_eq!(pages.counters().reserved.now, 0, "addresses leaked");
        assert_eq!(metadata.counters().reserved.now, 0, "metadata leaked");
    }
    assert!(exhausted > 10, "{exhausted} calls failed");
}
