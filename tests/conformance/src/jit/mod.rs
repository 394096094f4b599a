//! The JIT allocator on a provider.
//!
//! [`check`] and [`stress()`] take the configuration, the operations or their number, and the seed,
//! so that property tests, fuzzers and long runs call the same code as the cases here.

mod blocks;
mod calls;
mod configs;
mod faults;
mod model;
mod ops;
mod places;
mod refusals;
mod shadow;
mod stress;

pub use configs::configurations;
pub use ops::{Op, check, random_ops};
pub use stress::stress;

use crate::{Case, Outcome, report};
use hostmem_core::{
    arch,
    jit::{JitAllocator, JitConfig, JitError, SyncCores},
    provider::{Capabilities, CoreSync, DualMapProvider, PageProvider, Provider},
};

/// What the JIT allocator asks of a provider.
pub trait JitProvider: PageProvider + DualMapProvider + CoreSync + Copy {}

impl<P: PageProvider + DualMapProvider + CoreSync + Copy> JitProvider for P {}

/// Spans in the stress cases: enough for several blocks, few enough for every test run.
const STRESS: usize = 1000;

/// Operations in the random cases.
const OPS: usize = 3000;

/// Yields the cases.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("jit", P:
        refusals::bad_configurations_are_refused,
        refusals::bad_sizes_are_refused,
        refusals::bad_releases_are_refused,
        refusals::bad_shrinks_are_refused,
        refusals::bad_writes_are_refused,
        refusals::spans_of_others_are_refused_and_returned,
        calls::queries_find_whole_spans_and_nothing_else,
        calls::shrinking_returns_the_tail,
        calls::written_code_runs,
        blocks::lifo_release_leaves_at_most_one_block,
        blocks::an_empty_allocator_works_as_new,
        blocks::blocks_double_up_to_their_bound,
        blocks::a_large_span_does_not_change_the_next_block,
        blocks::freed_memory_is_used_again,
        blocks::metadata_is_bounded,
        blocks::code_and_metadata_come_from_their_providers,
        blocks::fork_hooks_without_a_fork_change_nothing,
        places::views_keep_their_placement,
        places::a_window_can_be_full,
        places::code_near_an_anchor_is_in_reach,
        faults::every_call_of_a_script_fails_once,
        faults::random_failures_lose_nothing,
        faults::writes_survive_a_failed_synchronization,
        faults::a_failed_fork_prepare_unlocks,
        short::random_operations_in_every_configuration,
        short::stress_in_every_configuration,
    )
}

mod short {
    use super::{
        OPS, Outcome, Provider, STRESS, check, configurations, need_jit, random_ops, stress,
    };

    pub(super) fn random_operations_in_every_configuration<P: Provider + Copy>(p: P) -> Outcome {
        need_jit!(p);
        for (seed, (name, config)) in (0..).zip(configurations()) {
            check(p, config, &random_ops(seed, OPS), name);
        }
        Outcome::Passed
    }

    pub(super) fn stress_in_every_configuration<P: Provider + Copy>(p: P) -> Outcome {
        need_jit!(p);
        for (seed, (name, config)) in (0..).zip(configurations()) {
            stress(p, config, STRESS, seed, name);
        }
        Outcome::Passed
    }
}

/// Says why no JIT allocator can work on `p`, if so.
fn obstacle<P: JitProvider>(p: P) -> Option<&'static str> {
    if !p.capabilities().contains(Capabilities::DUAL) {
        return Some("no dual mappings");
    }
    (!arch::SUPPORTED).then_some("no cache maintenance is known for this CPU")
}

/// Makes an allocator of code and metadata from `p`, that asks no more of `p` than it can do.
fn make<P: JitProvider>(p: P, config: JitConfig) -> Result<JitAllocator<P>, JitError> {
    JitAllocator::new(p, p, adapted(p, config))
}

/// Takes the synchronization of cores out where `p` has none.
fn adapted<P: JitProvider>(p: P, config: JitConfig) -> JitConfig {
    if p.capabilities().contains(Capabilities::CORE_SYNC) {
        config
    } else {
        config.sync_cores(SyncCores::Never)
    }
}

/// Skips where no JIT allocator can work.
macro_rules! need_jit {
    ($provider:expr) => {
        if let Some(reason) = $crate::jit::obstacle($provider) {
            return $crate::Outcome::Skipped(reason);
        }
    };
}

use need_jit;
