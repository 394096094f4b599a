//! Cases that take a process: which accesses fault, what a forked child has, which descriptors are
//! open, what threads do.
//!
//! They fork, so they run while nothing else does. A child ends in `_exit`, however it fares; where
//! a case starts threads, its children keep from locks, and from every heap but the one tested.
//! Beside the suite itself they need the C library, and no file.
//!
//! | file | what it has |
//! |---|---|
//! | `access` | committed, protected and released pages: what faults |
//! | `views` | P4: each view of a dual mapping refuses what the other is for |
//! | `fork` | P8: what bare children have of dual mappings, under each policy |
//! | `jit` | P8: what children have of the JIT allocator, with and without its hooks |
//! | `heap` | H1: threads free each other's blocks |
//! | `global` | H9: threads and children in the heap of the process |
//! | `descriptors` | P9: close-on-exec, and closed once mapped |
//! | `map` | writable or executable, for the whole process |
//! | `child`, `fault`, `coded` | children, faults, and mappings with code in them |

mod access;
mod child;
mod coded;
mod descriptors;
mod fault;
mod fork;
mod global;
pub(crate) mod heap;
mod jit;
mod map;
mod views;

use hostmem_conformance::{Case, code};
use hostmem_core::{
    arch,
    provider::{
        Capabilities, DualRequest, DualStep, DualSteps, Fork, PageProvider, PageWish, Provider,
    },
};

/// Every fork policy.
const POLICIES: [Fork; 4] = [
    Fork::Detach,
    Fork::ChildLosesRw,
    Fork::ChildLosesBoth,
    Fork::Share,
];

/// Makes an array of cases named after their functions, which are generic over one provider.
macro_rules! cases {
    ($P:ty: $($module:ident :: $name:ident),+ $(,)?) => {
        [$(Case::new(concat!("process::", stringify!($name)), $module::$name::<$P>),)+]
    };
}

/// Ends a case as skipped where something gives a reason to.
macro_rules! skip_for {
    ($reason:expr) => {
        if let Some(reason) = $reason {
            return hostmem_conformance::Outcome::Skipped(reason);
        }
    };
}

pub(crate) use skip_for;

/// Yields the cases for any provider.
pub(crate) fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    cases!(P:
        access::memory_refuses_what_its_access_forbids,
        views::each_view_refuses_what_the_other_is_for,
        fork::a_bare_child_has_no_writable_view,
        fork::a_bare_child_can_lose_both_views,
        fork::a_bare_child_can_share_both_views,
        fork::lost_views_are_reserved_again,
        fork::lost_addresses_that_were_taken_are_reported,
        heap::threads_free_each_others_blocks,
        jit::parent_and_child_do_not_see_each_others_writes,
        jit::bare_children_run_and_query_code,
        jit::a_child_of_a_child_detaches_again,
        jit::other_policies_say_what_the_child_lost,
        jit::sharing_children_write_the_parents_code,
    )
    .into_iter()
}

/// Yields the cases that need a whole process: what its map and its descriptors show, and threads;
/// and those that try every strategy for dual mappings.
pub(crate) fn host_cases<P: Provider + DualSteps + Copy>() -> impl Iterator<Item = Case<P>> {
    cases!(P:
        views::views_of_every_strategy_refuse_what_the_other_is_for,
        views::executable_views_cannot_be_made_writable,
        fork::views_of_every_strategy_fork_as_asked,
        global::threads_that_end_leave_the_process_heap_to_others,
        global::children_of_a_threaded_process_use_its_heap,
        map::nothing_becomes_writable_and_executable,
        descriptors::no_strategy_leaves_a_descriptor,
        descriptors::descriptors_are_closed_on_exec,
        jit::detached_children_of_allocating_threads_own_a_private_copy,
    )
    .into_iter()
}

/// Says why no code can be made, if so.
fn no_code() -> Option<&'static str> {
    let known = arch::SUPPORTED && code::returning(0).is_some();
    (!known).then_some("no code is known for this CPU")
}

/// Says why no code can be run from dual mappings, if so.
fn no_dual_code(p: impl PageProvider) -> Option<&'static str> {
    let dual = p.capabilities().contains(Capabilities::DUAL);
    if dual {
        no_code()
    } else {
        Some("no dual mappings")
    }
}

/// Says why forked children keep views that they should lose, if so. `ci/cross.sh` tells by the
/// environment that an emulator stands in for the kernel.
fn no_lost_views() -> Option<&'static str> {
    let emulated = std::env::var_os("HOSTMEM_EMULATED").is_some();
    emulated.then_some("the emulator does not pass MADV_DONTFORK on")
}

/// Prints a remark between a case's name and its outcome.
fn remark(text: std::fmt::Arguments<'_>) {
    print!("({text}) ");
}

/// Yields every strategy of a host with a request for it.
fn strategies<P: PageProvider + DualSteps>(p: P) -> Vec<(DualStep, DualRequest<'static>)> {
    const LARGE: usize = 2 << 20;
    let base = DualRequest::bytes(2 * p.page_size().bytes());
    let large = DualRequest {
        pages: PageWish::Large {
            bytes: LARGE,
            or_base: true,
        },
        ..DualRequest::bytes(LARGE)
    };
    let mut all: Vec<(DualStep, DualRequest<'static>)> = Vec::new();
    for request in [base, large] {
        for &step in p.dual_order(&request) {
            if all.iter().all(|(known, _)| *known != step) {
                all.push((step, request));
            }
        }
    }
    all
}
