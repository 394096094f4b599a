//! Dual mappings: what [`DualMapProvider`] promises.

mod map;
mod refusals;
mod targets;
mod views;

use crate::{Case, report};
use hostmem_core::provider::{DualMapProvider, PageProvider, ProcessMap};

/// Yields the cases that need nothing but pages and dual mappings.
pub fn cases<P: PageProvider + DualMapProvider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("dual", P:
        views::both_views_show_the_same_pages,
        views::code_written_through_one_view_runs_in_the_other,
        views::mappings_are_independent,
        views::purged_pages_read_zero_in_both_views,
        views::bad_purges_are_refused,
        views::fork_policies_are_accepted,
        views::large_pages_are_given_or_refused,
        targets::placement_of_both_views_is_kept,
        targets::exact_views_are_exact,
        targets::views_land_in_reservations,
        targets::unmapping_leaves_holes,
        targets::unmapping_leaves_reservations,
        refusals::bad_requests_are_refused,
        refusals::used_places_are_refused,
        refusals::failure_leaves_reservations_reserved,
        refusals::no_mappings_without_the_capability,
    )
}

/// Yields the cases that look at the process map.
pub fn map_cases<P>() -> impl Iterator<Item = Case<P>>
where
    P: PageProvider + DualMapProvider + ProcessMap + Copy,
{
    report::cases!("dual", P:
        map::no_view_is_writable_and_executable,
        map::unmapping_leaves_nothing_mapped,
        map::failure_leaves_nothing_mapped,
    )
}

/// Skips where the provider does not claim dual mappings.
macro_rules! need_dual {
    ($provider:expr) => {
        if !$provider
            .capabilities()
            .contains(hostmem_core::provider::Capabilities::DUAL)
        {
            return $crate::Outcome::Skipped("no dual mappings");
        }
    };
}

pub(crate) use need_dual;
