//! Pages: what their access forbids faults.

use super::{
    fault::{Touch, faults},
    no_code, skip_for,
};
use hostmem_conformance::{Outcome, code};
use hostmem_core::{
    page::{Access, PageRange},
    provider::{Commit, PageProvider, Provider, Request},
};
use std::ptr::NonNull;

/// What is done to reserved pages before they are touched.
#[derive(Clone, Copy, Debug)]
enum Step {
    Commit,
    Protect(Access),
    Decommit,
    Release,
}

fn take(p: impl PageProvider, range: PageRange, step: Step) {
    let done = match step {
        // SAFETY: the steps below begin with a reservation, and commit once.
        Step::Commit => unsafe { p.commit(range, Commit::READ_WRITE) }.map(drop),
        // SAFETY: they protect what is committed.
        Step::Protect(access) => unsafe { p.protect(range, access) },
        // SAFETY: the range is theirs.
        Step::Decommit => unsafe { p.decommit(range) },
        // SAFETY: the range is theirs, and released once, at the end.
        Step::Release => unsafe { p.release(range) },
    };
    done.unwrap_or_else(|error| panic!("{step:?}: {error}"));
    if let Step::Commit = step {
        let function = code::returning(1).expect("the case is skipped on other CPUs");
        let bytes = NonNull::from(function.bytes());
        // SAFETY: just committed, writable, and longer than code.
        unsafe {
            range
                .start()
                .copy_from_nonoverlapping(bytes.cast(), bytes.len())
        };
    }
}

pub(super) fn memory_refuses_what_its_access_forbids<P: Provider + Copy>(p: P) -> Outcome {
    use Touch::{Execute, Read, Write};
    skip_for!(no_code());
    let (read, nothing) = (Step::Protect(Access::Read), Step::Protect(Access::None));
    let cases: [(&[Step], &[Touch], &[Touch]); 6] = [
        (&[], &[], &[Read, Write]),
        (&[Step::Commit], &[Read, Write], &[Execute]),
        (&[Step::Commit, read], &[Read], &[Write, Execute]),
        (&[Step::Commit, nothing], &[], &[Read, Write]),
        (&[Step::Commit, Step::Decommit], &[], &[Read, Write]),
        (&[Step::Commit, Step::Release], &[], &[Read, Write]),
    ];
    for (steps, allowed, forbidden) in cases {
        let touches = allowed.iter().map(|touch| (touch, false));
        for (&touch, expected) in touches.chain(forbidden.iter().map(|touch| (touch, true))) {
            // In the child, which is gone with it.
            let make = || {
                let range = p.reserve(&Request::bytes(p.page_size().bytes()));
                let range = range.expect("a small reservation anywhere succeeds");
                steps.iter().for_each(|&step| take(p, range, step));
                range.start()
            };
            // SAFETY: a page of the child's own, with code in it where it is executed; or nothing
            // is there.
            let faulted = unsafe { faults(touch, make) };
            assert_eq!(faulted, expected, "{touch:?} after {steps:?}: faulted");
        }
    }
    Outcome::Passed
}
