//! An oracle of `Counted`: regions and views that it gave, counted anew after every call.

use crate::harness::{Region, Views};
use alloc::vec::Vec;
use core::ops::Range;
use hostmem_core::{
    counted::{Counted, Counters, Gauge},
    page::Access,
    provider::{Commit, Provider, Request},
};

pub(super) struct Ledger<'a, P: Provider + Copy> {
    counted: &'a Counted<P>,
    pub(super) regions: Vec<Region<&'a Counted<P>>>,
    pub(super) views: Vec<Views<&'a Counted<P>>>,
    expected: Counters,
    calls: u64,
    failures: u64,
}

impl<'a, P: Provider + Copy> Ledger<'a, P> {
    /// Begins with what `counted` says, while nothing of it is held.
    pub(super) fn new(counted: &'a Counted<P>) -> Self {
        Self {
            counted,
            regions: Vec::new(),
            views: Vec::new(),
            expected: counted.counters(),
            calls: counted.calls(),
            failures: counted.failures(),
        }
    }

    fn page(&self) -> usize {
        use hostmem_core::provider::PageProvider;
        self.counted.page_size().bytes()
    }

    /// Compares everything after one call. `what` names it.
    #[track_caller]
    pub(super) fn check(&mut self, what: &str, succeeded: bool) {
        self.calls += 1;
        self.failures += u64::from(!succeeded);
        let page = self.page();
        let count = |of: fn((usize, usize)) -> usize| {
            self.regions.iter().map(|r| of(r.count())).sum::<usize>() * page
        };
        let dual = self.views.iter().map(|v| v.mapping().len_bytes()).sum();
        let gauge = |old: Gauge, now| Gauge {
            now,
            high: old.high.max(now),
        };
        self.expected = Counters {
            reserved: gauge(self.expected.reserved, count(|c| c.0)),
            committed: gauge(self.expected.committed, count(|c| c.1)),
            dual: gauge(self.expected.dual, dual),
        };
        assert_eq!(
            self.counted.counters(),
            self.expected,
            "counters after {what}"
        );
        assert_eq!(self.counted.calls(), self.calls, "calls after {what}");
        assert_eq!(
            self.counted.failures(),
            self.failures,
            "failures after {what}"
        );
    }

    pub(super) fn reserve(&mut self, request: &Request<'_>) -> bool {
        let result = Region::reserve(self.counted, request);
        let succeeded = result.is_ok();
        self.regions.extend(result);
        self.check("reserve", succeeded);
        succeeded
    }

    pub(super) fn reserve_pages(&mut self, pages: usize) -> bool {
        self.reserve(&Request::bytes(pages * self.page()))
    }

    pub(super) fn commit(&mut self, region: usize, pages: Range<usize>) -> bool {
        let succeeded = self.regions[region]
            .commit(pages, Commit::READ_WRITE)
            .is_ok();
        self.check("commit", succeeded);
        succeeded
    }

    pub(super) fn protect(&mut self, region: usize, pages: Range<usize>, access: Access) -> bool {
        let succeeded = self.regions[region].protect(pages, access).is_ok();
        self.check("protect", succeeded);
        succeeded
    }

    pub(super) fn decommit(&mut self, region: usize, pages: Range<usize>) -> bool {
        let succeeded = self.regions[region].decommit(pages).is_ok();
        self.check("decommit", succeeded);
        succeeded
    }

    /// Releases pages, and forgets a region that has none left.
    pub(super) fn release(&mut self, region: usize, pages: Range<usize>) -> bool {
        let succeeded = self.regions[region].release(pages).is_ok();
        self.check("release", succeeded);
        if self.regions[region].count().0 == 0 {
            self.regions.swap_remove(region);
        }
        succeeded
    }

    pub(super) fn map(&mut self, pages: usize) -> bool {
        let result = Views::pages(self.counted, pages);
        let succeeded = result.is_ok();
        self.views.extend(result);
        self.check("map_dual", succeeded);
        succeeded
    }

    /// Maps the writable view onto reserved pages.
    pub(super) fn map_into(&mut self, region: usize, pages: Range<usize>) -> bool {
        let len = pages.len() * self.page();
        let target = Some((&mut self.regions[region], pages));
        let result = Views::map_into(self.counted, len, target, None);
        let succeeded = result.is_ok();
        self.views.extend(result);
        self.check("map_dual into a reservation", succeeded);
        if self.regions[region].count().0 == 0 {
            self.regions.swap_remove(region);
        }
        succeeded
    }

    pub(super) fn unmap(&mut self, views: usize) {
        let unmapped = self.views.swap_remove(views).unmap().is_ok();
        assert!(unmapped, "unmapping succeeds");
        self.check("unmap_dual", true);
    }

    pub(super) fn unmap_reserved(&mut self, views: usize) {
        let left = self.views.swap_remove(views).unmap_reserved();
        let (rw, rx) = left.map_err(|(_, e)| e).expect("unmapping succeeds");
        self.regions.extend([rw, rx]);
        self.check("unmap_dual that leaves reservations", true);
    }

    pub(super) fn purge(&mut self, views: usize) -> bool {
        let all = self.views[views].all();
        let succeeded = self.views[views].purge(all).is_ok();
        self.check("purge_dual", succeeded);
        succeeded
    }

    /// Gives everything back, one call at a time.
    pub(super) fn close(mut self) {
        while !self.views.is_empty() {
            self.unmap(0);
        }
        while let Some(region) = self.regions.first() {
            let owned = |page: &usize| region.is_owned(*page..*page + 1);
            let first = (0..region.len())
                .find(owned)
                .expect("regions without pages are forgotten");
            let count = (first..region.len()).take_while(owned).count();
            assert!(self.release(0, first..first + count), "release succeeds");
        }
        let Counters {
            reserved,
            committed,
            dual,
        } = self.counted.counters();
        assert_eq!(
            [reserved.now, committed.now, dual.now],
            [0; 3],
            "everything was given back"
        );
    }
}
