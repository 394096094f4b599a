//! The general heap.
//!
//! [`check`] takes the calls, so that fuzzers and long runs make the same ones as the cases here.

mod calls;
mod faults;
mod hard;
mod holds;
mod limits;
mod op;
mod ops;
mod oracle;
mod returns;

pub use limits::{many_handles, short_handles};
pub use op::{CALLERS, Op, Tally, random_ops};
pub use ops::check;

use crate::{Case, report};
use core::alloc::Layout;
use hostmem_core::{
    counted::{Counted, Limits},
    heap::{Heap, HeapConfig},
    provider::{Commit, PageProvider, Provider, Purged, Request},
};

/// Yields the cases.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("heap", P:
        calls::blocks_are_aligned_and_apart,
        calls::fresh_and_used_memory_reads_zero_when_asked_to,
        calls::bad_frees_are_refused_and_change_nothing,
        calls::addresses_are_told_apart,
        calls::impossible_sizes_are_refused,
        returns::all_freed_goes_back_when_trimmed,
        returns::all_freed_goes_back_after_two_ticks,
        returns::ticks_of_a_handle_release_what_it_cached,
        returns::pages_between_survivors_go_back_and_serve_again,
        returns::what_was_purged_reads_zero_when_asked_to,
        returns::eager_heaps_keep_no_free_granules,
        calls::large_blocks_grow_where_they_lie,
        calls::a_dropped_handle_leaves_its_blocks_to_others,
        calls::a_full_host_is_exhausted_and_serves_again,
        calls::two_heaps_know_their_own,
        holds::ranges_are_all_that_is_reserved,
        holds::ranges_may_change_while_they_are_yielded,
        holds::a_walk_visits_live_blocks_which_it_may_free,
        holds::trimming_stops_as_soon_as_little_enough_is_resident,
        holds::what_was_never_handed_out_is_not_resident,
        limits::any_size_and_alignment_is_served_or_refused,
        limits::a_heap_in_few_addresses_keeps_to_them,
        limits::addresses_outside_a_heap_are_not_owned,
        limits::many_handles_take_little,
        limits::short_handles_leave_memory_flat,
        ops::random_calls_keep_every_block_intact,
        faults::any_call_of_the_provider_may_fail,
        faults::random_calls_keep_every_block_intact_while_others_fail,
        hard::what_is_written_behind_a_block_is_found,
        hard::what_is_written_after_a_free_is_found,
        hard::what_is_written_where_no_block_ever_was_is_found,
        hard::large_and_huge_blocks_lie_between_guards,
        hard::blocks_come_in_an_order_that_a_seed_repeats,
        hard::blocks_are_aligned_apart_and_zeroed,
        hard::frees_by_calls_that_do_not_wait_are_checked,
        hard::random_calls_keep_every_hardened_block_intact,
        hard::any_call_of_the_provider_may_fail_a_hardened_heap,
    )
}

/// Counts what a heap holds, so that it can be seen that it gives all of it back.
fn counted<P: PageProvider + Copy>(p: P) -> Counted<P> {
    Counted::new(p, "heap", Limits::NONE).expect("a small arena can be reserved")
}

/// Metadata that is enough for every case, and little enough for every host.
fn config() -> HeapConfig {
    HeapConfig::new().metadata(32 << 20).segment(1 << 20)
}

fn heap<P: PageProvider + Copy>(p: P, config: HeapConfig) -> Heap<P> {
    Heap::on(p, p, config).expect("metadata can be had")
}

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

/// Says whether a host keeps the memory of pages that are purged.
fn keeps_memory<P: PageProvider>(p: P) -> bool {
    let page = p.page_size().bytes();
    let range = p
        .reserve(&Request::bytes(page))
        .expect("a page of addresses");
    // SAFETY: reserved just now.
    unsafe { p.commit(range, Commit::READ_WRITE) }.expect("a page of memory");
    // SAFETY: committed just now, and not used.
    let shown = unsafe { p.purge(range) }.expect("pages can be purged");
    // SAFETY: reserved above, and not used.
    unsafe { p.release(range) }.expect("what was reserved can be released");
    shown == Purged::Kept
}
