//! Counting and simulated providers in forked children: of threads that are in the middle of their
//! calls, and forked between any two instructions of one. The parent takes no lock for a fork.

#[cfg(target_arch = "x86_64")]
mod steps;

use crate::common::{
    at_length, emulated, repaired_fork,
    threads::{Stop, await_more},
    wait,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use hostmem::{
    OsLock, OsProvider,
    counted::{Counted, Counters, Limits},
    fork::ForkChild,
    page::{Access, PageRange},
    provider::{Commit, Error, MapFlags, PageProvider, ProcessMap, Purged, Request},
    sim::{Policy, Sim, SimState},
};
use hostmem_test_support::isolate::isolated;

const OS: OsProvider = OsProvider::new();
const RW: Commit = Commit::READ_WRITE;

/// Threads that call a provider.
const THREADS: usize = 4;

/// Pages that a call changes at most.
const PART: usize = 4;

/// Pages of each thread in the space that all share.
const SLOT: usize = 3 * PART;

/// Pages before these, of which the first are committed and marked.
const KEPT: usize = 8;
const PAGES: usize = KEPT + THREADS * SLOT;
type Sums<P> = Counted<P, OsLock>;

fn page() -> usize {
    OS.page_size().bytes()
}

/// A provider with state, and addresses in which its calls are made.
struct Bed<'a, P: PageProvider> {
    provider: P,
    counters: &'a (dyn Fn() -> Option<Counters> + Sync),
    /// The state of a page, where it is simulated.
    state: &'a (dyn Fn(usize) -> Option<SimState> + Sync),
    space: PageRange,
}

impl<'a, P: PageProvider> Bed<'a, P> {
    fn new(
        provider: P,
        counters: &'a (dyn Fn() -> Option<Counters> + Sync),
        state: &'a (dyn Fn(usize) -> Option<SimState> + Sync),
    ) -> Self {
        let space = provider.reserve(&Request::bytes(PAGES * page()));
        let bed = Self {
            provider,
            counters,
            state,
            space: space.expect("addresses"),
        };
        let kept = bed.part(0, KEPT);
        // SAFETY: reserved just now.
        unsafe { bed.provider.commit(kept, RW) }.expect("memory");
        // SAFETY: committed just now.
        unsafe { kept.start().write(0x11) };
        bed
    }

    fn part(&self, first: usize, pages: usize) -> PageRange {
        let part = self
            .space
            .part(first * page(), pages * page(), OS.page_size());
        part.expect("a part")
    }

    /// Returns how many pages of the space can be written, as the kernel has them. Does not
    /// allocate.
    fn writable(&self) -> Option<usize> {
        let mut pages = 0;
        let walked = OS.walk(&mut |entry| {
            let part = entry.range.intersect(self.space.addresses());
            if let Some(part) = part.filter(|_| entry.flags.contains(MapFlags::WRITE)) {
                pages += (part.last() - part.start() + 1) / page();
            }
            true
        });
        walked.ok().map(|()| pages)
    }

    /// Returns how many pages of the space are committed, as the provider has them.
    fn committed(&self) -> usize {
        match (self.counters)() {
            Some(counters) => counters.committed.now / page(),
            None => self.simulated(),
        }
    }

    /// Returns how many pages of the space are committed on a simulated host.
    fn simulated(&self) -> usize {
        let addresses = (self.space.addr()..self.space.end()).step_by(page());
        let is_committed = |addr: &usize| (self.state)(*addr) == Some(SimState::Committed);
        addresses.filter(is_committed).count()
    }

    /// Says whether as many pages are committed as can be written, give or take `pages`.
    fn is_consistent(&self, pages: usize) -> bool {
        let near = |count: usize| {
            let writable = self.writable();
            writable.is_some_and(|writable| writable.abs_diff(count) <= pages)
        };
        // An emulator keeps accounts of its own.
        let simulated = (self.state)(self.space.addr()).is_none() || near(self.simulated());
        emulated() || (near(self.committed()) && simulated)
    }

    fn reserved(&self) -> Option<usize> {
        (self.counters)().map(|counters| counters.reserved.now / page())
    }

    /// Makes all kinds of calls in a child that was repaired, and looks what each of them counts
    /// for; zero if all is well.
    fn work(&self) -> i32 {
        let before = (self.committed(), self.reserved());
        let Ok(mine) = self.provider.reserve(&Request::bytes(3 * page())) else {
            return 20;
        };
        if self.reserved() != before.1.map(|pages| pages + 3) {
            return 21;
        }
        let count = |pages: usize| (self.counters)().is_none() || self.committed() == pages;
        // SAFETY: reserved just now.
        let done = unsafe { self.provider.commit(mine, RW) };
        // SAFETY: committed, if that was done.
        if done.is_err() || unsafe { mine.start().read() } != 0 || !count(before.0 + 3) {
            return 22;
        }
        // SAFETY: committed.
        unsafe { mine.start().write(0x77) };
        // SAFETY: committed, and this child's.
        let done = unsafe { self.provider.protect(mine, Access::Read) };
        // SAFETY: readable.
        if done.is_err() || unsafe { mine.start().read() } != 0x77 {
            return 23;
        }
        // SAFETY: committed, and this thread's alone.
        let done = unsafe { self.provider.protect(mine, Access::ReadWrite) };
        // SAFETY: committed, and the contents are not needed.
        let shown = unsafe { self.provider.purge(mine) };
        // SAFETY: committed.
        let byte = unsafe { mine.start().read() };
        if done.is_err() || shown != Ok(Purged::Zero) || byte != 0 {
            return 24;
        }
        // SAFETY: committed, and not used any more.
        let done = unsafe { self.provider.decommit(mine) };
        if done.is_err() || !count(before.0) {
            return 25;
        }
        // SAFETY: reserved by this thread, and not used any more.
        let done = unsafe { self.provider.release(mine) };
        if done.is_err() || (self.committed(), self.reserved()) != before {
            return 26;
        }
        0
    }

    /// What a child checks that comes from the middle of a call; zero if all is well.
    fn child(&self, reserved: core::ops::RangeInclusive<usize>) -> i32 {
        // SAFETY: committed before the fork, and read only by everybody.
        if unsafe { self.space.start().read() } != 0x11 {
            return 10;
        }
        if !self.is_consistent(PART) {
            return 11;
        }
        if self.reserved().is_some_and(|now| !reserved.contains(&now)) {
            return 12;
        }
        self.work()
    }

    /// What a child does in the end: all goes.
    fn takes_all_back(&self) -> i32 {
        // SAFETY: the threads that used it are not here.
        let done = unsafe { self.provider.release(self.space) };
        let rest = (self.counters)().map_or(0, |counters| counters.committed.now);
        i32::from(done.is_err() || rest != 0) * 30
    }
}

/// Changes the slot of a thread, and reserves and releases, until it is told to stop.
fn churn<P: PageProvider>(bed: &Bed<'_, P>, n: usize, stop: &AtomicBool, rounds: &AtomicU64) {
    let provider = &bed.provider;
    let mut round = 0;
    while !stop.load(Relaxed) {
        let at = KEPT + n * SLOT + round % (SLOT - PART);
        let part = bed.part(at, 1 + round % PART);
        let call = |result: Result<(), Error>| result.expect("the thread's own");
        // SAFETY: reserved, and this thread's.
        call(unsafe { provider.commit(part, RW) }.map(drop));
        // SAFETY: committed just now.
        unsafe { part.start().write_bytes(1, part.len_bytes()) };
        std::thread::yield_now();
        // SAFETY: committed.
        call(unsafe { provider.protect(part, Access::ReadWrite) });
        let other = provider.reserve(&Request::bytes(PART * page()));
        let other = other.expect("addresses");
        // SAFETY: committed; the contents are not needed.
        call(unsafe { provider.purge(part) }.map(drop));
        // SAFETY: reserved just now.
        call(unsafe { provider.release(other) });
        // SAFETY: committed, and not used any more.
        call(unsafe { provider.decommit(part) });
        round += 1;
        rounds.fetch_add(1, Relaxed);
    }
}

/// Forks while threads are in calls of a provider. The outermost of `objects` comes first.
fn fork_among_threads<P: PageProvider>(bed: &Bed<'_, P>, objects: &[&dyn ForkChild]) {
    let forks = match (emulated(), at_length()) {
        (true, _) => 20,
        (false, true) => 3000,
        (false, false) => 150,
    };
    let (stop, rounds) = (&AtomicBool::new(false), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(stop);
        for n in 0..THREADS {
            scope.spawn(move || churn(bed, n, stop, rounds));
        }
        let mut seen = 0;
        for n in 0..forks {
            seen = await_more(rounds, seen);
            let child = repaired_fork(objects, n % 2 == 0, || {
                // Each thread may have been about to count, or to take back, what it reserved.
                match bed.child(PAGES..=PAGES + THREADS * PART) {
                    0 => bed.takes_all_back(),
                    code => code,
                }
            });
            assert_eq!(wait(child), 0, "fork {n}");
        }
    });
    assert!(bed.is_consistent(0), "in the parent");
    assert_eq!(bed.committed(), KEPT);
    assert!(bed.reserved().is_none_or(|now| now == PAGES));
    assert_eq!(bed.work(), 0);
}

fn counted<P: PageProvider + Copy>(provider: P) -> Sums<P> {
    Counted::new(provider, "forked", Limits::NONE).expect("a counter")
}

fn simulated() -> Sim<OsProvider> {
    let policy = Policy::new(OS.page_size()).space(2 << 20);
    Sim::new(OS, policy).expect("the base has room")
}

#[test]
fn children_of_threads_that_call_a_counter_count_on() {
    isolated!("children_of_threads_that_call_a_counter_count_on", || {
        let counted = &counted(OS);
        let (counters, state) = (|| Some(counted.counters()), |_| None);
        fork_among_threads(&Bed::new(counted, &counters, &state), &[counted]);
    });
}

#[test]
fn children_of_threads_that_call_a_simulated_host_have_one_of_their_own() {
    let name = "children_of_threads_that_call_a_simulated_host_have_one_of_their_own";
    isolated!(name, || {
        let sim = &simulated();
        let state = |addr| Some(sim.page_state(addr));
        fork_among_threads(&Bed::new(sim, &|| None, &state), &[sim]);
        assert_eq!(sim.take_misuse(), None);
    });
}

#[test]
fn children_of_threads_that_call_a_counter_on_a_simulated_host_have_both() {
    let name = "children_of_threads_that_call_a_counter_on_a_simulated_host_have_both";
    isolated!(name, || {
        let sim = &simulated();
        let counted = &counted(sim);
        let state = |addr| Some(sim.page_state(addr));
        let counters = || Some(counted.counters());
        fork_among_threads(&Bed::new(counted, &counters, &state), &[counted, sim]);
        assert_eq!(sim.take_misuse(), None);
    });
}
