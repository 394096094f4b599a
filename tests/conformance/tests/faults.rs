//! The suite finds faults: for each, the case that is there for it fails, and passes without.

#![cfg(target_os = "linux")]

mod support;

use hostmem_conformance::{Case, Outcome, cases};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use support::{Fault, Faulted};

/// Faults, and cases that must find them.
const FOUND_BY: &[(Fault, &str)] = &[
    (
        Fault::DecommitKeepsContents,
        "pages::reserve_commit_write_decommit_commit_release",
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
        "jit::random_operations_in_every_configuration",
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
];

fn case(name: &str) -> Case<Faulted> {
    cases()
        .find(|c| c.name() == name)
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
