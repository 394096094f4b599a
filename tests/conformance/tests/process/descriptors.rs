//! P9: descriptors opened for mappings are close-on-exec, and closed once mapped.

use super::{coded::Coded, no_dual_code, remark, skip_for, strategies};
use hostmem_conformance::Outcome;
use hostmem_core::{
    page::PageRange,
    provider::{DualRequest, DualStep, DualSteps, Place, Placement, Provider, Request, Target},
};
use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Descriptors, one bit for each number from zero. A new one gets the lowest number that is free,
/// so that those of a mapping are here as long as the process has few.
type Numbers = u64;

/// The most of them that may be open before: as many are left for what leaks.
const MOST: u32 = Numbers::BITS / 2;

fn open_numbers() -> Numbers {
    let is_open = |n: &i32| {
        // SAFETY: asks for a flag.
        let flags = unsafe { libc::fcntl(*n, libc::F_GETFD) };
        flags != -1
    };
    (0..)
        .take(Numbers::BITS as usize)
        .filter(is_open)
        .map(|n| 1 << n)
        .sum()
}

/// Says why descriptors cannot be told apart, if so.
fn too_many() -> Option<&'static str> {
    let many = open_numbers().count_ones() > MOST;
    many.then_some("this process has many descriptors of its own")
}

/// Mappings held at a time.
const HELD: usize = 20;

/// Yields requests that fail when their first view, or the second, is to be mapped.
fn refused<'a>(request: DualRequest<'a>, used: PageRange) -> [DualRequest<'a>; 2] {
    let place = Place::Exact(used.addr());
    let used = Target::Find(Placement {
        place,
        ..Placement::ANYWHERE
    });
    let (rw, rx) = (request.rw, request.rx);
    [
        DualRequest {
            rw: used,
            rx,
            ..request
        },
        DualRequest {
            rw,
            rx: used,
            ..request
        },
    ]
}

pub(super) fn no_strategy_leaves_a_descriptor<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    skip_for!(no_dual_code(p));
    skip_for!(too_many());
    let before = open_numbers();
    let mut works = false;
    for (step, request) in strategies(p) {
        let map = || Coded::map_by(p, step, &request, 7);
        match map() {
            Err(error) => remark(format_args!("no {step}: {error}")),
            Ok(_) => {
                let held: Vec<_> = (0..HELD).map(|_| map()).collect();
                assert!(held.iter().all(Result::is_ok), "{step}: this many mappings");
                assert_eq!(open_numbers(), before, "{step}: descriptors while mapped");
                drop(held);
                remark(format_args!("{step}"));
                works = true;
            }
        }
        assert_eq!(
            open_numbers(),
            before,
            "{step}: descriptors after unmapping, or a failure"
        );
        let used = p.reserve(&Request::bytes(request.len));
        let used = used.expect("a small reservation anywhere succeeds");
        for request in refused(request, used) {
            let result = Coded::map_by(p, step, &request, 7);
            assert!(result.is_err(), "{step}: a used place was not refused");
            assert_eq!(
                open_numbers(),
                before,
                "{step}: descriptors after a refusal"
            );
        }
        // SAFETY: reserved above, and not used.
        unsafe { p.release(used) }.expect("a whole reservation can be released");
    }
    assert!(works, "the capability promises a strategy that works");
    Outcome::Passed
}

/// Descriptors of the process when a watch began.
static OWN: AtomicU64 = AtomicU64::new(0);
/// Descriptors beside those, each time that one was seen, and those of them that an exec would
/// keep.
static SEEN: AtomicU32 = AtomicU32::new(0);
static KEPT: AtomicU32 = AtomicU32::new(0);
/// Whether the timer has gone off since it was set.
static LOOKED: AtomicBool = AtomicBool::new(false);

/// Looks at the open descriptors, from a signal handler.
extern "C" fn look(_: libc::c_int) {
    let own = OWN.load(Ordering::SeqCst);
    let nothing = libc::pollfd {
        fd: 0,
        events: 0,
        revents: 0,
    };
    let mut all = [nothing; Numbers::BITS as usize];
    for (fd, entry) in (0..).zip(&mut all) {
        entry.fd = fd;
    }
    // Some are closed, which poll says without an error, so that the error number of the code that
    // was interrupted is left alone.
    // SAFETY: as many entries as are told.
    unsafe { libc::poll(all.as_mut_ptr(), libc::nfds_t::from(Numbers::BITS), 0) };
    for entry in all {
        if own & 1 << entry.fd == 0 && entry.revents & libc::POLLNVAL == 0 {
            // SAFETY: asks for a flag of a descriptor that is open.
            let flags = unsafe { libc::fcntl(entry.fd, libc::F_GETFD) };
            let kept = flags != -1 && flags & libc::FD_CLOEXEC == 0;
            SEEN.fetch_add(1, Ordering::SeqCst);
            KEPT.fetch_add(u32::from(kept), Ordering::SeqCst);
        }
    }
    LOOKED.store(true, Ordering::SeqCst);
}

/// Looks at the descriptors now and then, by a timer, until it is dropped.
struct Watch {
    /// What was done at the signal before.
    before: libc::sighandler_t,
    /// How often the timer was set.
    set: u16,
}

impl Watch {
    fn new() -> Self {
        OWN.store(open_numbers(), Ordering::SeqCst);
        SEEN.store(0, Ordering::SeqCst);
        KEPT.store(0, Ordering::SeqCst);
        LOOKED.store(true, Ordering::SeqCst);
        let handler: extern "C" fn(libc::c_int) = look;
        // SAFETY: the handler has that signature, and makes async-signal-safe calls only.
        let before = unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
        assert_ne!(before, libc::SIG_ERR, "the handler can be set");
        Self { before, set: 0 }
    }

    /// Sets the timer again once it went off, to different lengths. A periodic one could leave a
    /// slow machine no time between signals.
    fn go_on(&mut self) {
        if LOOKED.swap(false, Ordering::SeqCst) {
            self.set = self.set.wrapping_add(1);
            Self::set_timer(20 + libc::suseconds_t::from(self.set % 64) * 7);
        }
    }

    fn set_timer(microseconds: libc::suseconds_t) {
        let zero = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let timer = libc::itimerval {
            it_interval: zero,
            it_value: libc::timeval {
                tv_usec: microseconds,
                ..zero
            },
        };
        // SAFETY: reads the timer, and writes no old one.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
        assert_eq!(set, 0, "the timer can be set");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        Self::set_timer(0);
        // To ignore the signal forgets one that is pending, which could kill the process.
        for action in [libc::SIG_IGN, self.before] {
            // SAFETY: an action that was in force before, or none.
            unsafe { libc::signal(libc::SIGALRM, action) };
        }
    }
}

pub(super) fn descriptors_are_closed_on_exec<P>(p: P) -> Outcome
where
    P: Provider + DualSteps + Copy,
{
    /// Sightings of a strategy's descriptors, to meet each of its moments more than once.
    const ENOUGH: u32 = 50;
    /// How long to wait for them: many times what a slow emulated machine takes.
    const LONGEST: Duration = Duration::from_secs(60);
    skip_for!(no_dual_code(p));
    skip_for!(too_many());
    let mut watched = false;
    for (step, request) in strategies(p) {
        let map = || Coded::map_by(p, step, &request, 7);
        // Those that have none, or in a way that is not known.
        let none = matches!(step, DualStep::RemapDup | DualStep::Provider);
        if none || map().is_err() {
            continue;
        }
        let mut watch = Watch::new();
        let since = Instant::now();
        while SEEN.load(Ordering::SeqCst) < ENOUGH {
            assert!(
                since.elapsed() < LONGEST,
                "{step}: hardly any descriptor was seen"
            );
            watch.go_on();
            map()
                .expect("what could be mapped once can be mapped again")
                .unmap();
        }
        drop(watch);
        let (seen, kept) = (SEEN.load(Ordering::SeqCst), KEPT.load(Ordering::SeqCst));
        assert_eq!(
            kept, 0,
            "{step}: {kept} of {seen} descriptors seen survive an exec"
        );
        remark(format_args!("{step}: {seen} seen"));
        watched = true;
    }
    if watched {
        Outcome::Passed
    } else {
        Outcome::Skipped("no strategy that works here has descriptors")
    }
}
