//! Reserving, committing and placing pages: what [`PageProvider`] promises.

mod access;
mod arguments;
mod holes;
mod large;
mod map;
mod moves;
mod placement;
mod purge;
mod states;

use crate::{Case, report};
use hostmem_core::provider::{PageProvider, ProcessMap};

/// Yields the cases that need nothing but pages.
pub fn cases<P: PageProvider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("pages", P:
        states::pages_are_reserved_committed_written_and_released_again,
        states::parts_change_state_by_themselves,
        states::parts_are_released_by_themselves,
        states::reserved_pages_can_be_decommitted,
        states::memory_that_comes_back_reads_zero,
        states::reservations_do_not_overlap,
        states::names_and_dumps_are_accepted,
        access::protection_preserves_contents,
        access::commit_gives_the_access_asked_for,
        access::ceilings_are_kept,
        access::access_above_its_ceiling_is_refused,
        access::rwx_is_refused_without_the_capability,
        access::code_runs_after_protection_changed,
        arguments::bad_requests_are_refused,
        arguments::impossible_sizes_are_refused,
        placement::bodies_are_aligned,
        placement::guards_surround_the_body,
        placement::exact_takes_a_free_place,
        placement::exact_never_replaces,
        placement::exact_never_replaces_what_others_mapped,
        placement::hint_is_taken_when_free,
        placement::hint_gives_way,
        holes::windows_are_kept_and_can_be_full,
        holes::near_takes_the_nearest_hole,
        holes::near_keeps_its_reach,
        moves::parts_are_purged_by_themselves,
        moves::moved_pages_take_contents_and_access_along,
        moves::impossible_moves_change_nothing,
        large::large_or_base_pages_work,
        large::large_pages_work_or_are_refused,
        large::odd_page_sizes_are_refused,
        large::transparent_pages_are_pages,
        large::the_size_of_transparent_pages_is_told,
    )
}

/// Yields the cases that look at the process map.
pub fn map_cases<P: PageProvider + ProcessMap + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("pages", P:
        map::map_is_ascending_and_shows_reservations,
        map::release_unmaps,
        map::guards_are_inaccessible,
        map::access_shows_in_the_map,
        map::failed_exact_changes_nothing,
        map::the_null_page_is_never_given,
        purge::purged_pages_show_what_it_says,
        purge::purged_pages_can_be_used,
        purge::purging_keeps_the_access,
        purge::moved_pages_keep_their_contents,
        purge::pages_of_several_accesses_are_moved_whole_or_not,
        purge::what_is_left_can_be_asked,
    )
}
