//! The JIT allocator on a provider.
//!
//! [`check`], [`stress()`] and [`check_retire`] take the configuration, the operations or their
//! number, and the seed, so that property tests, fuzzers and long runs call the same code as the
//! cases here.

mod batches;
mod blocks;
mod calls;
mod configs;
mod defects;
mod expect;
mod faults;
mod fills;
mod limits;
mod live;
mod model;
mod modes;
mod ops;
mod placed;
mod places;
mod refusals;
mod resets;
mod retention;
mod retire;
mod retire_ends;
mod retire_model;
mod shadow;
mod stress;
mod upkeep;
mod windows;
mod writes;

pub use configs::{Setup, configurations};
pub use ops::{Op, check, random_ops};
pub use retention::last_in_first_out;
pub use retire_model::check_retire;
pub use stress::stress;

use crate::{Case, report};
use hostmem_core::{
    arch,
    jit::{JitAllocator, JitConfig, JitError, LargePages, Mapping, SyncCores},
    provider::{Capabilities, CoreSync, DualMapProvider, PageProvider, Provider},
};

/// What the JIT allocator asks of a provider.
pub trait JitProvider: PageProvider + DualMapProvider + CoreSync + Copy {}

impl<P: PageProvider + DualMapProvider + CoreSync + Copy> JitProvider for P {}

/// Spans in the stress cases: enough for several blocks, few enough for every test run.
const STRESS: usize = 1000;

/// Operations in the random cases.
const OPS: usize = 1500;

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
        batches::a_batch_makes_everything_run,
        batches::a_batch_takes_one_barrier,
        batches::bad_writes_in_a_batch_are_refused,
        batches::writing_in_place_shrinks_at_the_end,
        placed::spans_are_aligned_as_asked,
        placed::granules_longer_than_a_page_are_aligned,
        placed::bad_placements_are_refused,
        placed::holes_of_a_window_are_used_to_the_last,
        placed::a_fragmented_window_is_filled,
        placed::a_page_is_enough_for_what_fits_in_it,
        placed::a_placed_span_leaves_no_empty_block,
        windows::a_full_window_is_asked_for_once,
        windows::the_longest_hole_is_used_at_once,
        windows::longer_spans_than_blocks_have_longer_granules,
        limits::the_limit_is_a_typed_error,
        limits::a_limit_below_a_block_makes_small_blocks,
        limits::every_hole_serves_at_the_limit,
        limits::released_neighbours_serve_before_a_new_block,
        modes::toggled_code_is_written_and_runs,
        modes::writable_and_executable_code_runs,
        modes::a_mapping_that_the_host_lacks_is_refused,
        modes::refused_dual_mappings_are_replaced,
        modes::failed_toggles_are_told,
        fills::unused_memory_reads_as_the_pattern,
        fills::padding_reads_as_the_pattern_too,
        fills::without_a_pattern_nothing_is_written,
        retention::immediate_release_keeps_nothing,
        retention::one_empty_block_a_pool_is_kept,
        retention::a_kept_block_saves_mapping,
        resets::a_reset_allocator_behaves_as_a_new_one,
        resets::a_hard_reset_unmaps_and_a_soft_one_keeps_a_block,
        resets::a_reset_does_not_end_the_keeping_of_blocks,
        upkeep::blocks_add_up_to_the_statistics,
        upkeep::unused_pages_go_back_and_serve_again,
        upkeep::pages_without_memory_stay_free,
        modes::a_strict_allocator_is_never_open,
        defects::a_double_release_frees_no_neighbour,
        defects::releasing_inside_a_span_frees_nothing,
        defects::a_query_inside_a_span_finds_all_of_it,
        defects::padding_belongs_to_no_span,
        defects::lifo_release_with_immediate_release_unmaps_every_block,
        defects::a_tail_freed_last_then_first_serves_again,
        defects::a_reset_leaves_no_stale_counters,
        defects::a_soft_reset_leaves_no_code_where_there_is_a_pattern,
        defects::a_batch_takes_effect,
        defects::replaced_code_is_told_to_all_cores,
        defects::live_spans_never_overlap_under_churn,
        defects::shrinking_overwrites_no_live_code,
        defects::empty_blocks_are_unmapped,
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
    )
    .chain(configs::cases())
    .chain(retire::cases())
}

/// Says why no JIT allocator can work on `p`, if so.
fn obstacle<P: JitProvider>(p: P) -> Option<&'static str> {
    unable(p, &JitConfig::new())
}

/// Says why `p` cannot have a configuration, if so.
#[must_use]
pub fn unable<P: JitProvider>(p: P, config: &JitConfig) -> Option<&'static str> {
    let able = p.capabilities();
    let (dual, toggle) = (
        able.contains(Capabilities::DUAL),
        able.contains(Capabilities::TOGGLE_EXEC),
    );
    let (possible, lack) = match config.mapping_wanted() {
        Mapping::Dual => (dual, "no dual mappings"),
        Mapping::Toggle => (toggle, "no memory that is made executable"),
        Mapping::Auto => (dual || toggle, "no mappings for code at all"),
        Mapping::ReadWriteExec(_) => (
            able.contains(Capabilities::RWX),
            "no memory that is writable and executable",
        ),
        _ => (false, "a mapping that is not known here"),
    };
    if !possible {
        return Some(lack);
    }
    let large = config.large_pages_wanted() != LargePages::Never;
    if large && !able.contains(Capabilities::LARGE_PAGES) {
        return Some("no large pages");
    }
    (!arch::SUPPORTED).then_some("no cache maintenance is known for this CPU")
}

/// Makes an allocator of code and metadata from `p`, that asks no more of `p` than it can do.
fn make<P: JitProvider>(p: P, config: JitConfig) -> Result<JitAllocator<P>, JitError> {
    JitAllocator::on(p, p, adapted(p, config))
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
