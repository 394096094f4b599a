//! Random operations, beside a plain ordered map.

use super::ops::{Setup, check, random_ops};
use crate::Outcome;
use hostmem_core::provider::Provider;

/// Operations of each run.
const STEPS: usize = 1500;

pub(super) fn random_changes_match_a_plain_map<P: Provider + Copy>(p: P) -> Outcome {
    if usize::BITS < 64 {
        return Outcome::Skipped("the ranges have addresses of 64 bits");
    }
    for (seed, joins) in [(0x3a91, true), (0x3a92, false)] {
        let setup = Setup {
            joins,
            ..Setup::AMPLE
        };
        let tally = check(p, &setup, random_ops(seed, false).take(STEPS), "ample");
        assert_eq!((tally.failures, tally.used_up), (0, 0), "nothing fails");
    }
    Outcome::Passed
}

pub(super) fn without_metadata_nothing_changes<P: Provider + Copy>(p: P) -> Outcome {
    if usize::BITS < 64 {
        return Outcome::Skipped("the ranges have addresses of 64 bits");
    }
    let little = Setup {
        metadata: 40 << 10,
        ..Setup::AMPLE
    };
    let tally = check(p, &little, random_ops(0x3a93, true).take(STEPS), "little");
    assert!(tally.used_up > 0 || p.page_size().bytes() > little.metadata);
    Outcome::Passed
}
