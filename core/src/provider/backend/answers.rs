//! What is remembered of a system, and what its answers are put together to.

use crate::{
    page::AddressRange,
    provider::{Capabilities, DualRequest, DualStep, Error, MapEntry, PageWish, linux},
};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// An answer of the system that stays the same.
#[derive(Debug, Default)]
pub struct Answer(AtomicU8);

impl Answer {
    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Makes an answer that is not known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Returns the answer, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::YES => Some(true),
            Self::NO => Some(false),
            _ => None,
        }
    }

    /// Notes the answer.
    pub fn learn(&self, answer: bool) {
        let answer = if answer { Self::YES } else { Self::NO };
        self.0.store(answer, Ordering::Relaxed);
    }

    /// Returns the answer, asking where it is not known.
    pub fn or_ask(&self, ask: impl FnOnce() -> bool) -> bool {
        self.known().unwrap_or_else(|| {
            let answer = ask();
            self.learn(answer);
            answer
        })
    }

    /// Returns `wanted`, without `one` where the answer to whether the host has that is no. It is
    /// asked for where it is wanted only.
    pub fn filter(
        &self,
        wanted: Capabilities,
        one: Capabilities,
        ask: impl FnOnce() -> bool,
    ) -> Capabilities {
        if wanted.contains(one) && !self.or_ask(ask) {
            wanted - one
        } else {
            wanted
        }
    }
}

/// Returns which of three orders is for a request, without the strategies whose directory was not
/// given; directories come last in each. See [`DualSystem::ORDERS`](super::DualSystem::ORDERS).
#[must_use]
pub fn order_for(
    [base, large, only_large]: [&'static [DualStep]; 3],
    request: &DualRequest<'_>,
    directories: usize,
) -> &'static [DualStep] {
    let order = match request.pages {
        PageWish::Large { or_base: false, .. } => only_large,
        PageWish::Large { .. } => large,
        _ => base,
    };
    let given = |step: &&DualStep| match step {
        DualStep::Directory(n) => usize::from(*n) < directories,
        _ => true,
    };
    &order[..order.iter().take_while(given).count()]
}

/// Runs a barrier by `sync`, for which a process has to register first by `register`. Whether it
/// has, `registered` remembers. A fork keeps the registration; should a kernel not, the barrier
/// says so by `EPERM` and is registered again.
///
/// # Errors
///
/// What the calls say.
pub fn register_and_sync(
    registered: &AtomicBool,
    register: impl FnOnce() -> Result<(), Error>,
    sync: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    if registered.load(Ordering::Relaxed) {
        match sync() {
            Err(error) if error.errno() == Some(linux::EPERM.into()) => {}
            result => return result,
        }
    }
    register()?;
    registered.store(true, Ordering::Relaxed);
    sync()
}

/// Shows a visitor of a process map all entries but for `own`, which is a mapping made for the
/// walk; see [`ProcessMap::walk`](crate::provider::ProcessMap::walk).
pub fn visit_others(
    entries: impl Iterator<Item = MapEntry>,
    own: AddressRange,
    visit: &mut dyn FnMut(MapEntry) -> bool,
) {
    for MapEntry { range, flags } in entries {
        for range in without(range, own).into_iter().flatten() {
            if !visit(MapEntry { range, flags }) {
                return;
            }
        }
    }
}

/// Returns what is left of `range` below and above `hole`.
fn without(range: AddressRange, hole: AddressRange) -> [Option<AddressRange>; 2] {
    if range.intersect(hole).is_none() {
        return [Some(range), None];
    }
    let below = hole.start().checked_sub(1);
    let above = hole.last().checked_add(1);
    [
        below.and_then(|last| AddressRange::new(range.start(), last)),
        above.and_then(|start| AddressRange::new(start, range.last())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{ErrorKind, MapFlags, order};

    #[test]
    fn an_answer_is_asked_for_once() {
        let answer = Answer::new();
        assert_eq!(answer.known(), None);
        assert!(!answer.or_ask(|| false));
        assert!(!answer.or_ask(|| true), "it is known");
        answer.learn(true);
        assert_eq!(answer.known(), Some(true));
    }

    #[test]
    fn capabilities_are_asked_for_where_they_are_wanted() {
        let (sync, large) = (Answer::new(), Answer::new());
        let of = |wanted| {
            let found = sync.filter(wanted, Capabilities::CORE_SYNC, || false);
            large.filter(found, Capabilities::LARGE_PAGES, || true)
        };
        let wanted = Capabilities::DUAL | Capabilities::LARGE_PAGES;
        assert_eq!(of(wanted), wanted);
        assert_eq!((sync.known(), large.known()), (None, Some(true)));
        assert_eq!(
            of(Capabilities::DUAL | Capabilities::CORE_SYNC),
            Capabilities::DUAL
        );
        assert_eq!(sync.known(), Some(false));
    }

    #[test]
    fn an_order_has_the_directories_that_were_given() {
        let orders = [order::LINUX, order::LINUX_LARGE, order::LINUX_ONLY_LARGE];
        let large = |or_base| PageWish::Large {
            bytes: 2 << 20,
            or_base,
        };
        let order = |pages, directories| {
            let request = DualRequest {
                pages,
                ..DualRequest::bytes(2 << 20)
            };
            order_for(orders, &request, directories)
        };
        for given in 0..=order::MAX_DIRECTORIES {
            let cut = order::MAX_DIRECTORIES - given;
            for (pages, all) in [
                (PageWish::Base, order::LINUX),
                (PageWish::Transparent, order::LINUX),
                (large(true), order::LINUX_LARGE),
            ] {
                assert_eq!(order(pages, given), &all[..all.len() - cut]);
            }
            assert_eq!(order(large(false), given), order::LINUX_ONLY_LARGE);
        }
    }

    #[test]
    fn a_barrier_is_registered_where_it_has_to_be() {
        use core::cell::RefCell;
        let run = |registered: bool, results: &[Result<(), Error>]| {
            let (registered, left) = (AtomicBool::new(registered), RefCell::new(results.iter()));
            let next = || {
                *left
                    .borrow_mut()
                    .next()
                    .expect("no more calls than results")
            };
            let result = register_and_sync(&registered, next, next);
            assert!(left.borrow_mut().next().is_none(), "as many calls");
            (result, registered.into_inner())
        };
        let (not, other) = (Error::os(ErrorKind::Denied, 1), Error::of(ErrorKind::Other));
        assert_eq!(run(true, &[Ok(())]), (Ok(()), true));
        assert_eq!(run(true, &[Err(other)]), (Err(other), true));
        assert_eq!(run(true, &[Err(not), Ok(()), Ok(())]), (Ok(()), true));
        assert_eq!(run(false, &[Err(not)]), (Err(not), false));
        assert_eq!(run(false, &[Ok(()), Err(not)]), (Err(not), true));
    }

    #[test]
    fn the_own_mapping_is_left_out() {
        let range = |start, last| AddressRange::new(start, last).expect("not empty");
        let visited = |own, most: usize| {
            let all = [
                range(0, 0x1fff),
                range(0x2000, 0x2fff),
                range(0x3000, 0x6fff),
            ];
            let flags = MapFlags::READ;
            let entries = all.map(|range| MapEntry { range, flags }).into_iter();
            let (mut found, mut seen) = ([None; 4], 0);
            visit_others(entries, own, &mut |entry| {
                assert_eq!(entry.flags, flags);
                found[seen] = Some((entry.range.start(), entry.range.last()));
                seen += 1;
                seen < most
            });
            found
        };
        let (low, middle) = (Some((0, 0x1fff)), Some((0x2000, 0x2fff)));
        let high = Some((0x3000, 0x6fff));
        let own = range(0x2000, 0x2fff);
        assert_eq!(visited(own, 9), [low, high, None, None]);
        assert_eq!(visited(own, 1), [low, None, None, None]);
        let (below, above) = (Some((0x3000, 0x3fff)), Some((0x5000, 0x6fff)));
        let inside = range(0x4000, 0x4fff);
        assert_eq!(visited(inside, 9), [low, middle, below, above]);
    }
}
