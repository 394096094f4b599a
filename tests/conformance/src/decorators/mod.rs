//! Providers around the provider: `Within`, `Counted`, `Faulty`, and stacks of them.

mod counted;
mod faulty;
mod ledger;
mod limits;
mod stacks;
mod within;

use crate::{Case, report};
use hostmem_core::provider::Provider;

/// Yields the cases.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("decorators", P:
        within::nothing_outside_is_returned,
        within::requests_are_narrowed,
        within::impossible_places_are_refused,
        within::dual_views_keep_inside,
        counted::counters_follow_a_script,
        counted::counters_follow_random_calls,
        counted::bad_calls_count_as_failures_only,
        counted::lost_views_are_no_longer_counted,
        limits::reserved_limit_is_exact,
        limits::memory_limit_is_exact,
        limits::errors_of_bad_requests_come_before_limits,
        faulty::every_call_of_a_script_fails_once,
        faulty::only_chosen_calls_fail,
        faulty::random_failures_repeat_by_seed,
        stacks::through_a_reference,
        stacks::through_dyn_provider,
        stacks::through_within,
        stacks::through_counted,
        stacks::through_faulty,
        stacks::through_a_stack,
    )
}
