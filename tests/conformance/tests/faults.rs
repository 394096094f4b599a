//! The suite finds faults: for each, the case that is there for it fails, and passes without.

#![cfg(target_os = "linux")]

mod process;
mod support;

use hostmem_conformance::{Case, Outcome};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use support::{Fault, Faulted};

/// Faults, and cases that must find them.
const FOUND_BY: &[(Fault, &str)] = &[
    (
        Fault::DecommitKeepsContents,
        "pages::pages_are_reserved_committed_written_and_released_again",
    ),
    (
        Fault::DecommitKeepsContents,
        "pages::parts_change_state_by_themselves",
    ),
    (
        Fault::DecommitKeepsContents,
        "pages::memory_that_comes_back_reads_zero",
    ),
    (Fault::ReleaseDoesNothing, "pages::release_unmaps"),
    (Fault::ReleaseDoesNothing, "pages::exact_takes_a_free_place"),
    (Fault::ProtectDoesNothing, "pages::access_shows_in_the_map"),
    (Fault::GuardsAreAccessible, "pages::guards_are_inaccessible"),
    (Fault::ZeroLengthIsAPage, "pages::bad_requests_are_refused"),
    (Fault::ExactReplaces, "pages::exact_never_replaces"),
    (Fault::ExactReplaces, "pages::failed_exact_changes_nothing"),
    (
        Fault::FailedExactUnmaps,
        "pages::failed_exact_changes_nothing",
    ),
    (Fault::HintIsIgnored, "pages::hint_is_taken_when_free"),
    (Fault::NearIsIgnored, "pages::near_takes_the_nearest_hole"),
    (
        Fault::WithinIsIgnored,
        "pages::windows_are_kept_and_can_be_full",
    ),
    (
        Fault::WithinIsIgnored,
        "decorators::impossible_places_are_refused",
    ),
    (Fault::AlignmentIsIgnored, "pages::bodies_are_aligned"),
    (Fault::AlignmentIsIgnored, "pages::bad_requests_are_refused"),
    (
        Fault::ViewsShowDifferentPages,
        "dual::both_views_show_the_same_pages",
    ),
    (
        Fault::ViewsShowDifferentPages,
        "dual::bad_requests_are_refused",
    ),
    (
        Fault::ViewsShowDifferentPages,
        "jit::random_operations (default)",
    ),
    (
        Fault::ExecutableViewIsWritable,
        "dual::no_view_is_writable_and_executable",
    ),
    (
        Fault::PurgeDoesNothing,
        "dual::purged_pages_read_zero_in_both_views",
    ),
    (Fault::PurgeDoesNothing, "dual::bad_purges_are_refused"),
    (
        Fault::PurgeTakesTooMuch,
        "dual::purged_pages_read_zero_in_both_views",
    ),
    (
        Fault::ReservedViewsAreHoles,
        "dual::unmapping_leaves_reservations",
    ),
    (
        Fault::FailedDualReleasesTargets,
        "dual::failure_leaves_reservations_reserved",
    ),
    (
        Fault::FailedDualLeaksAView,
        "dual::failure_leaves_nothing_mapped",
    ),
    (
        Fault::ProtectDoesNothing,
        "process::memory_refuses_what_its_access_forbids",
    ),
    (
        Fault::ReleaseDoesNothing,
        "process::memory_refuses_what_its_access_forbids",
    ),
    (
        Fault::ExecutableViewIsWritable,
        "process::each_view_refuses_what_the_other_is_for",
    ),
    (
        Fault::WritableViewIsExecutable,
        "process::each_view_refuses_what_the_other_is_for",
    ),
    (
        Fault::ViewsShowDifferentPages,
        "process::each_view_refuses_what_the_other_is_for",
    ),
    (
        Fault::ExecutableViewIsWritable,
        "process::views_of_every_strategy_refuse_what_the_other_is_for",
    ),
    (
        Fault::ExecutableViewCanBecomeWritable,
        "process::executable_views_cannot_be_made_writable",
    ),
    (
        Fault::ExecutableViewIsWritable,
        "process::nothing_becomes_writable_and_executable",
    ),
    (
        Fault::WritableViewIsExecutable,
        "process::nothing_becomes_writable_and_executable",
    ),
    (
        Fault::ChildrenShare,
        "process::a_bare_child_has_no_writable_view",
    ),
    (
        Fault::ChildrenLoseBoth,
        "process::a_bare_child_has_no_writable_view",
    ),
    (
        Fault::ChildrenShare,
        "process::a_bare_child_can_lose_both_views",
    ),
    (
        Fault::ChildrenLoseBoth,
        "process::a_bare_child_can_share_both_views",
    ),
    (
        Fault::ChildrenShare,
        "process::views_of_every_strategy_fork_as_asked",
    ),
    (
        Fault::ChildrenLoseBoth,
        "process::views_of_every_strategy_fork_as_asked",
    ),
    (
        Fault::ChildrenLoseBoth,
        "process::bare_children_run_and_query_code",
    ),
    (
        Fault::ChildrenShare,
        "process::lost_views_are_reserved_again",
    ),
    (
        Fault::ForkChildDoesNothing,
        "process::lost_views_are_reserved_again",
    ),
    (
        Fault::ForkChildDoesNothing,
        "process::lost_addresses_that_were_taken_are_reported",
    ),
    (
        Fault::ChildrenShare,
        "process::other_policies_say_what_the_child_lost",
    ),
    (
        Fault::ChildrenLoseBoth,
        "process::sharing_children_write_the_parents_code",
    ),
    (
        Fault::ChildrenShare,
        "process::parent_and_child_do_not_see_each_others_writes",
    ),
    (
        Fault::DetachingKeepsThePages,
        "process::parent_and_child_do_not_see_each_others_writes",
    ),
    (
        Fault::DetachingKeepsThePages,
        "process::a_child_of_a_child_detaches_again",
    ),
    (
        Fault::DetachingKeepsThePages,
        "process::detached_children_of_allocating_threads_own_a_private_copy",
    ),
    (
        Fault::DescriptorsSurviveExec,
        "process::descriptors_are_closed_on_exec",
    ),
    // The last, since what leaks stays.
    (
        Fault::DescriptorsLeak,
        "process::no_strategy_leaves_a_descriptor",
    ),
];

fn case(name: &str) -> Case<Faulted> {
    let mut all = hostmem_conformance::cases()
        .chain(process::cases())
        .chain(process::host_cases());
    all.find(|c| c.name() == name)
        .unwrap_or_else(|| panic!("there is no case {name}"))
}

/// One test, since the cases look at the map of the process.
#[test]
fn every_fault_is_found() {
    for (_, name) in FOUND_BY {
        assert_eq!(
            case(name).run(Faulted::new(Fault::None)),
            Outcome::Passed,
            "{name}"
        );
    }
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let missed = FOUND_BY.iter().filter(|(fault, name)| {
        catch_unwind(AssertUnwindSafe(|| case(name).run(Faulted::new(*fault)))).is_ok()
    });
    let missed: Vec<_> = missed.collect();
    set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
