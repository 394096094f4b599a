//! W^X as the process map shows it.

use super::{
    POLICIES, child,
    coded::Coded,
    jit::{allocator, hooked_fork, place, returned},
    no_dual_code, no_lost_views, skip_for,
};
use hostmem_conformance::Outcome;
use hostmem_core::{
    jit::JitConfig,
    provider::{DualSteps, MapFlags, ProcessMap, Provider},
};

/// Counts the mappings of the whole process that are writable and executable; `None` where the host
/// shows no map.
fn writable_and_executable(map: &impl ProcessMap) -> Option<usize> {
    let both = MapFlags::WRITE | MapFlags::EXEC;
    let mut count = 0;
    let walked = map.walk(&mut |entry| {
        count += usize::from(entry.flags.contains(both));
        true
    });
    walked.ok().map(|()| count)
}

pub(super) fn nothing_becomes_writable_and_executable<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    // A program may have brought such mappings along.
    let Some(before) = writable_and_executable(&p) else {
        return Outcome::Skipped("the host shows no process map");
    };
    let check = |what: &dyn core::fmt::Debug| {
        let now = writable_and_executable(&p).expect("the map was readable before");
        assert!(
            now <= before,
            "{what:?}: {now} such mappings, {before} at first"
        );
    };
    for fork in POLICIES {
        let coded = Coded::map(p, fork, 5);
        check(&fork);
        child::check(|| check(&(fork, "in a bare child")));
        coded.unmap();
    }
    for fork in POLICIES {
        let jit = allocator(p, JitConfig::new().fork(fork));
        let span = place(&jit, 6);
        assert_eq!(returned(&span), 6);
        check(&(fork, "with an allocator"));
        if no_lost_views().is_none() {
            let child = hooked_fork(&jit, || {
                let own = place(&jit, 7);
                assert_eq!(returned(&own), 7);
                check(&(fork, "with an allocator, in its child"));
            });
            child.expect_success();
        }
        jit.release(span).expect("released once");
    }
    check(&"afterwards");
    Outcome::Passed
}
