//! A host whose pages are numbers, and what it was asked.

use super::*;
use crate::{
    page::{Access, AddressRange},
    provider::{Capabilities, Commit, MapEntry, MapFlags, ProcessMap, order, run_dual, search},
};
use std::{collections::BTreeMap, sync::Mutex, vec, vec::Vec};

/// Where the host's addresses start.
pub(super) const BASE: usize = 0x100_0000;

/// What a strategy is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Map,
    Fail(ErrorKind),
    /// Somebody else maps at the target of the executable view.
    Lose,
    /// Fails, since somebody took the hole that the executable view was to have.
    Taken,
}

/// What was asked of the host, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Reserve(usize),
    Release(usize),
    Step(DualStep, usize),
    Walk,
}

/// A host of pages that are numbers.
pub(super) struct Host {
    /// Mapped pages, and how many there are.
    pub(super) used: Mutex<(BTreeMap<usize, ()>, usize)>,
    pub(super) acts: Mutex<Vec<Act>>,
    pub(super) asked: Mutex<Vec<Asked>>,
    pub(super) holes: bool,
}

impl Host {
    pub(super) fn new(pages: usize, used: &[core::ops::Range<usize>], acts: &[Act]) -> Self {
        let used = used.iter().cloned().flatten().map(|page| (page, ()));
        Self {
            used: Mutex::new((used.collect(), pages)),
            acts: Mutex::new(acts.iter().rev().copied().collect()),
            asked: Mutex::default(),
            holes: false,
        }
    }

    pub(super) fn ask(&self, asked: Asked) {
        self.asked.lock().expect("no panics").push(asked);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        core::mem::take(&mut self.asked.lock().expect("no panics"))
    }

    pub(super) fn used(&self) -> Vec<usize> {
        self.used
            .lock()
            .expect("no panics")
            .0
            .keys()
            .copied()
            .collect()
    }

    pub(super) fn take(&self, addr: usize, len: usize) -> Result<PageRange, Error> {
        let mut used = self.used.lock().expect("no panics");
        let taken = Error::of(ErrorKind::Taken);
        let first = addr.checked_sub(BASE).ok_or(taken)? / BYTES;
        let wanted = range(first, len / BYTES);
        let end = pages_of(wanted).end;
        if end > used.1 || pages_of(wanted).any(|page| used.0.contains_key(&page)) {
            return Err(taken);
        }
        used.0.extend(pages_of(wanted).map(|page| (page, ())));
        Ok(wanted)
    }

    pub(super) fn give(&self, range: PageRange) {
        let mut used = self.used.lock().expect("no panics");
        for page in pages_of(range) {
            assert!(used.0.remove(&page).is_some(), "page {page} is mapped");
        }
    }

    pub(super) fn map(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: the tests own what they pass, and nothing is accessed.
        unsafe { run_dual(self, request, PAGE) }
    }
}

impl ProcessMap for Host {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.ask(Asked::Walk);
        let (used, pages) = self.used.lock().expect("no panics").clone();
        let outside = [(0, BASE), (BASE + pages * BYTES, usize::MAX)];
        let entry = |start: usize, end: usize| MapEntry {
            range: AddressRange::new(start, end - 1).expect("not empty"),
            flags: MapFlags::READ,
        };
        let inside = used.keys().map(|page| BASE + page * BYTES);
        let entries = core::iter::once(entry(outside[0].0, outside[0].1))
            .chain(inside.map(|start| entry(start, start + BYTES)))
            .chain([entry(outside[1].0, outside[1].1)]);
        for entry in entries {
            if !visit(entry) {
                break;
            }
        }
        Ok(())
    }
}

// SAFETY: no memory is behind any of it, and none is accessed.
unsafe impl PageProvider for Host {
    fn page_size(&self) -> PageSize {
        PAGE
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }
    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(PAGE)?;
        let range = search(&plan, self, &mut |addr, len| self.take(addr, len))?;
        self.ask(Asked::Reserve(range.len_bytes() / BYTES));
        Ok(range)
    }
    unsafe fn commit(&self, _: PageRange, _: Commit) -> Result<PageSize, Error> {
        Err(ErrorKind::Unsupported.into())
    }
    unsafe fn protect(&self, _: PageRange, _: Access) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
    unsafe fn decommit(&self, _: PageRange) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.ask(Asked::Release(range.len_bytes() / BYTES));
        self.give(range);
        Ok(())
    }
}

// SAFETY: pages of this host are numbers, which are never accessed.
unsafe impl DualSteps for Host {
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep] {
        match request.pages {
            PageWish::Large { or_base: false, .. } => order::LINUX_ONLY_LARGE,
            PageWish::Large { .. } => &order::LINUX_LARGE[..3],
            _ if self.holes => &order::NETBSD[..2],
            _ => &order::LINUX[..3],
        }
    }

    fn wants_hole(&self, step: DualStep) -> bool {
        self.holes && step == DualStep::RemapDup
    }

    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        self.ask(Asked::Step(step, request.len / BYTES));
        assert_eq!(request.min_len, None, "the length is settled");
        let act = self.acts.lock().expect("no panics").pop();
        let mut views = vec![];
        for target in [request.rw, request.rx] {
            views.push(match target {
                Target::Into(range) => {
                    assert_eq!(range.len_bytes(), request.len, "it fits");
                    assert!(
                        pages_of(range).all(|page| self.used().contains(&page)),
                        "a target is reserved"
                    );
                    range
                }
                Target::Find(placement) => {
                    let request = Request::bytes(request.len).placement(placement);
                    let plan = request.plan(PAGE)?;
                    if !plan.unconstrained() {
                        assert!(self.wants_hole(step), "{placement:?} was not reserved");
                        assert!(matches!(plan.place(), Place::Exact(_)));
                    }
                    if let Some(Act::Taken) = act {
                        // Somebody else, who keeps it.
                        let Place::Exact(at) = plan.place() else {
                            panic!("a hole has a place")
                        };
                        self.take(at, plan.total()).expect("it was released");
                        return Err(Error::of(ErrorKind::Taken).into());
                    }
                    search(&plan, self, &mut |addr, len| self.take(addr, len))?
                }
            });
        }
        let undo = || {
            for (target, view) in [(request.rw, views[0]), (request.rx, views[1])] {
                if let Target::Find(_) = target {
                    self.give(view);
                }
            }
        };
        match act.unwrap_or(Act::Map) {
            Act::Map => {
                let (rw, rx) = (views[0], views[1]);
                // SAFETY: both are numbers, and no code accesses them.
                Ok(unsafe { DualMapping::from_parts(rw, rx, step, PAGE, Fork::Share) })
            }
            Act::Fail(kind) => {
                undo();
                Err(Error::of(kind).into())
            }
            Act::Lose => {
                undo();
                Err(DualStepError {
                    error: ErrorKind::Other.into(),
                    lost: Some(views[1]),
                })
            }
            Act::Taken => panic!("only for holes"),
        }
    }
}
