//! A provider that fails on demand: every call of a script fails once, and nothing comes of it.

use super::counted::count;
use crate::{
    Outcome,
    harness::{Kind, Region, Snapshot, Views, expect_refused, undisturbed},
};
use alloc::vec::Vec;
use hostmem_core::{
    counted::{Counted, Limits},
    page::{Access, AddressRange},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Provider, Request},
    sim::{Calls, Faulty},
};

type Tested<'a, P> = &'a Counted<&'a Faulty<P>>;

/// What must not change when a call fails.
struct Watch<'a, P: Provider + Copy> {
    tested: Tested<'a, P>,
    /// The addresses that the script uses.
    window: AddressRange,
    kind: ErrorKind,
}

impl<P: Provider + Copy> Watch<'_, P> {
    /// Makes a call, and once more if it was made to fail. `None` where the process map changed
    /// though counters did not: that may have been another thread.
    #[track_caller]
    fn call<T, E: Kind>(&self, mut call: impl FnMut() -> Result<T, E>) -> Option<T> {
        let map = Snapshot::of(self.tested, self.window);
        let counters = self.tested.counters();
        let error = match call() {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        assert_eq!(error.kind(), self.kind, "the kind of error is passed on");
        assert_eq!(
            self.tested.counters(),
            counters,
            "a failed call changed a counter"
        );
        if Snapshot::of(self.tested, self.window) != map {
            return None;
        }
        Some(call().expect("the same call succeeds afterwards"))
    }

    /// As [`Watch::call`], for calls that must also carry the system's errno.
    #[track_caller]
    fn call_os<T>(&self, mut call: impl FnMut() -> Result<T, Error>) -> Option<T> {
        self.call(|| call().inspect_err(|e| assert_eq!(e.errno(), Some(12), "the errno is lost")))
    }
}

/// The script. Only its first call is not watched.
fn script<P: Provider + Copy>(tested: Tested<'_, P>, kind: ErrorKind) -> Option<()> {
    let page = tested.page_size().bytes();
    let request = Request::bytes(16 * page);
    let before = tested.counters();
    let mut region = match Region::reserve(tested, &request) {
        Ok(region) => region,
        Err(e) => {
            assert_eq!(
                (e.kind(), e.errno()),
                (kind, Some(12)),
                "the error is passed on"
            );
            assert_eq!(tested.counters(), before, "a failed call changed a counter");
            Region::reserve(tested, &request).expect("the same call succeeds afterwards")
        }
    };
    let watch = Watch {
        tested,
        window: region.range().addresses(),
        kind,
    };
    watch.call_os(|| region.commit(0..8, Commit::READ_WRITE))?;
    region.expect_zero(0..8);
    region.fill(0..2, 1);
    region.fill(2..6, 2);
    region.fill(6..8, 3);
    watch.call_os(|| region.protect(0..2, Access::Read))?;
    region.expect_pattern(0..2, 1);
    watch.call_os(|| region.protect(0..2, Access::ReadWrite))?;
    watch.call_os(|| region.decommit(2..6))?;
    region.expect_pattern(6..8, 3);
    watch.call_os(|| region.commit(3..5, Commit::READ_WRITE))?;
    region.expect_zero(3..5);
    if tested.capabilities().contains(Capabilities::DUAL) {
        dual_script(&watch, &mut region)?;
    }
    region.expect_pattern(0..2, 1);
    region.expect_pattern(6..8, 3);
    for part in [6..10, 10..14, 14..16, 0..6] {
        // The dual mapping took some, and gave them back to another region.
        if region.is_owned(part.clone()) {
            watch.call_os(|| region.release(part.clone()))?;
        }
    }
    Some(())
}

fn dual_script<'a, P: Provider + Copy>(
    watch: &Watch<'a, P>,
    region: &mut Region<Tested<'a, P>>,
) -> Option<()> {
    let page = region.page();
    let mut found = watch.call(|| Views::pages(watch.tested, 2))?;
    found.fill(found.all(), 4);
    let mut placed = watch
        .call(|| Views::map_into(watch.tested, 4 * page, Some((&mut *region, 10..14)), None))?;
    placed.fill(placed.all(), 5);
    if watch
        .tested
        .capabilities()
        .contains(Capabilities::PURGE_DUAL)
    {
        watch.call_os(|| placed.purge(0..1))?;
        watch.call_os(|| placed.refill(0..1))?;
        placed.expect_zero(0..1);
        placed.fill(placed.all(), 5);
    }
    let mut token = Some(placed);
    let (mut rw, rx) = watch.call_os(|| {
        let placed = token.take().expect("a failed call gives the token back");
        placed.expect_pattern(placed.all(), 5);
        placed.unmap_reserved().map_err(|(back, error)| {
            token = Some(back);
            error
        })
    })?;
    found.expect_pattern(found.all(), 4);
    watch.call_os(|| rw.commit(0..4, Commit::READ_WRITE))?;
    rw.expect_zero(0..4);
    let mut token = Some(found);
    watch.call_os(|| {
        token
            .take()
            .expect("a failed call gives the token back")
            .unmap()
            .map_err(|(back, error)| {
                token = Some(back);
                error
            })
    })?;
    let mut left = [rw, rx];
    left.iter_mut()
        .try_for_each(|region| watch.call_os(|| region.release(0..4)))
}

/// Runs the script with its nth call failing; says whether the script has that many calls.
fn fails_at<P: Provider + Copy>(p: P, n: u64, kind: ErrorKind) -> Option<bool> {
    let faulty = Faulty::new(p).with_error(Error::os(kind, 12));
    let counted = count(&faulty, Limits::NONE);
    faulty.fail_nth(n);
    let done = script(&counted, kind);
    faulty.fail_none();
    done?;
    // The arena of the counters calls the provider too; those calls fail like any other.
    assert!(faulty.failures() <= 1, "one call was made to fail");
    let now = counted.counters();
    assert_eq!(
        [now.reserved.now, now.committed.now, now.dual.now],
        [0; 3],
        "a page leaked"
    );
    Some(faulty.failures() == 1)
}

pub(super) fn every_call_of_a_script_fails_once<P: Provider + Copy>(p: P) -> Outcome {
    for kind in [ErrorKind::Exhausted, ErrorKind::Denied, ErrorKind::Other] {
        let mut n = 0;
        while undisturbed("a failed call changes nothing", || fails_at(p, n, kind)) {
            n += 1;
            assert!(n < 1000, "the script has some tens of calls");
        }
        assert!(
            n >= 10,
            "the script has at least ten calls, but only {n} could fail"
        );
    }
    Outcome::Passed
}

pub(super) fn only_chosen_calls_fail<P: Provider + Copy>(p: P) -> Outcome {
    let faulty = Faulty::new(p);
    faulty.only(Calls::DECOMMIT);
    faulty.fail_nth(1);
    let mut region = Region::committed(&faulty, 2);
    region.decommit(0..1).expect("the zeroth decommit passes");
    assert_eq!(faulty.calls(), 1, "only chosen calls are counted");
    expect_refused(
        region.decommit(1..2),
        &[ErrorKind::Exhausted],
        "the first decommit",
    );
    region.expect_zero(1..2);
    region.decommit(1..2).expect("the second decommit passes");
    assert_eq!(
        (faulty.calls(), faulty.failures()),
        (3, 1),
        "failed calls are counted too"
    );
    Outcome::Passed
}

pub(super) fn random_failures_repeat_by_seed<P: Provider + Copy>(p: P) -> Outcome {
    let run = |seed| {
        let faulty = Faulty::new(p);
        faulty.only(Calls::RESERVE);
        faulty.fail_randomly(seed, 4);
        let request = Request::bytes(1);
        let failed = (0..64).map(|_| Region::reserve(&faulty, &request).map(drop).is_err());
        let failed: Vec<bool> = failed.collect();
        failed
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again, "the same seed fails the same calls");
    assert_ne!(first, other, "another seed fails others");
    assert!(
        first.contains(&true) && first.contains(&false),
        "some calls fail, and some do not"
    );
    Outcome::Passed
}
