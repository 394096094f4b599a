//! Dual mappings as the process map shows them.

use super::{need_dual, refusals::find};
use crate::{
    Outcome,
    harness::{Region, Snapshot, Views, undisturbed},
};
use hostmem_core::provider::{
    DualMapProvider, DualRequest, MapFlags, PageProvider, Place, Placement, ProcessMap, Target,
};

const NO_MAP: Outcome = Outcome::Skipped("the host shows no process map");

pub(super) fn no_view_is_writable_and_executable<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + ProcessMap + Copy,
{
    need_dual!(p);
    let views = Views::pages(p, 5).expect("the capability is a promise");
    for (view, must, never) in [
        (views.rw(), MapFlags::READ | MapFlags::WRITE, MapFlags::EXEC),
        (views.rx(), MapFlags::READ | MapFlags::EXEC, MapFlags::WRITE),
    ] {
        let Some(shown) = Snapshot::of(&p, view.addresses()) else {
            return NO_MAP;
        };
        let flags = shown
            .uniform(view.addresses())
            .expect("a view is one mapping");
        if flags.is_empty() || flags == MapFlags::SHARED {
            return Outcome::Skipped("the map does not show the access of dual views");
        }
        assert!(
            flags.contains(must),
            "{view:?} has {flags:?}, but needs {must:?}"
        );
        assert!(
            !flags.intersects(never),
            "{view:?} has {flags:?}, but must not have {never:?}"
        );
    }
    Outcome::Passed
}

pub(super) fn unmapping_leaves_nothing_mapped<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + ProcessMap + Copy,
{
    need_dual!(p);
    undisturbed("unmapped views leave nothing mapped", || {
        let views = Views::pages(p, 5).expect("the capability is a promise");
        let windows = [views.rw().addresses(), views.rx().addresses()];
        assert!(views.unmap().is_ok(), "unmapping succeeds");
        for window in windows {
            let Some(shown) = Snapshot::of(&p, window) else {
                return Some(NO_MAP);
            };
            if !shown.is_empty() {
                return None;
            }
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn failure_leaves_nothing_mapped<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + ProcessMap + Copy,
{
    need_dual!(p);
    undisturbed("a failed dual mapping leaves nothing mapped", || {
        let mut region = Region::pages(p, 16);
        region.release(4..12).expect("a part can be released");
        let window = region.range().addresses();
        let Some(before) = Snapshot::of(&p, window) else {
            return Some(NO_MAP);
        };
        let free = Target::Find(Placement::within(window));
        let used = find(Place::Exact(region.at(0)));
        let request = DualRequest::bytes(4 * region.page());
        for request in [
            DualRequest {
                rw: free,
                rx: used,
                ..request
            },
            DualRequest {
                rw: used,
                rx: free,
                ..request
            },
        ] {
            assert!(
                Views::refused(p, &request).is_err(),
                "a used place was not refused"
            );
            if Snapshot::of(&p, window)? != before {
                return None;
            }
        }
        Some(Outcome::Passed)
    })
}
