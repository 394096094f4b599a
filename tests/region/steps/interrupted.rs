//! What the interrupted changes of a region had is freed in a child.

use super::{Bed, RW, forks, page};
use crate::common::steps::{Then, at_every_step};
use hostmem::{
    fork::ForkChild,
    provider::Request,
    region::{PageState, RegionConfig, SignalHook},
};
use hostmem_test_support::isolate::isolated;

/// With a hook that keeps handlers out, which this test's handler comes through all the same, a
/// child frees what other threads were changing.
#[test]
fn children_of_threads_within_changes_free_what_those_had() {
    let name = "children_of_threads_within_changes_free_what_those_had";
    isolated!(name, || {
        let hook = SignalHook {
            enter: || 0,
            leave: |_| {},
        };
        let bed = &Bed::new(RegionConfig::new().signals(hook));
        let range = bed.part(10, 4);
        at_every_step(
            forks(),
            Then::Ends,
            &|| bed.prepare(),
            // SAFETY: no other code uses it.
            &|| unsafe { bed.region.unmap(range) },
            &|| {
                let code = bed.child();
                let ranges = bed.region.ranges(bed.space.addresses());
                let mut left = ranges.filter(|r| r.state == PageState::Interrupted);
                if code != 0 {
                    code
                } else {
                    i32::from(left.next().is_some()) << 4
                }
            },
            &|result| i32::from(result.is_err()),
        );
    });
}

#[test]
fn what_was_interrupted_is_freed_on_demand() {
    let name = "what_was_interrupted_is_freed_on_demand";
    isolated!(name, || {
        let bed = &Bed::new(RegionConfig::new());
        let seen = |bed: &Bed| {
            let ranges = bed.region.ranges(bed.space.addresses());
            ranges.filter(|r| r.state == PageState::Interrupted).count()
        };
        at_every_step(
            forks(),
            Then::Ends,
            &|| bed.prepare(),
            &|| bed.region.map(&Request::bytes(page()), RW, 0x55),
            &|| {
                // SAFETY: the only thread of a child; the provider below has no state.
                let repaired = unsafe { bed.region.fork_child() };
                // SAFETY: the interrupted call does not resume in this child.
                let freed = unsafe { bed.region.free_interrupted() };
                i32::from(repaired.is_err())
                    | i32::from(freed.is_err()) << 1
                    | i32::from(seen(bed) != 0) << 2
                    | i32::from(!bed.is_as_mapped() || !bed.counts()) << 3
            },
            &|result| i32::from(result.is_err()),
        );
    });
}
