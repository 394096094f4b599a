//! What to observe, and which call to refuse.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;

use super::event::{Arguments, name};

/// The system calls that are always recorded.
///
/// `personality` is among them because its `READ_IMPLIES_EXEC` makes executable what is readable.
pub const MAPPING_CALLS: [libc::c_long; 11] = [
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_pkey_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_shmat,
    libc::SYS_shmdt,
    libc::SYS_memfd_create,
    libc::SYS_madvise,
    libc::SYS_remap_file_pages,
    libc::SYS_personality,
];

/// How long a command may take by default: an order of magnitude above the slowest test.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Says what to observe, which calls to refuse, and for how long.
#[derive(Debug)]
pub struct Plan {
    pub(super) timeout: Duration,
    observed: BTreeSet<libc::c_long>,
    injections: Vec<Injection>,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// Records [`MAPPING_CALLS`] and refuses none.
    pub fn new() -> Self {
        let observed = BTreeSet::from(MAPPING_CALLS);
        Self {
            timeout: DEFAULT_TIMEOUT,
            observed,
            injections: Vec::new(),
        }
    }

    /// Kills the command and its descendants after `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Records `call` too.
    #[must_use]
    pub fn observe(mut self, call: libc::c_long) -> Self {
        self.observed.insert(call);
        self
    }

    /// Refuses what `injection` describes, and records all calls of its number.
    ///
    /// Of several injections that apply to one call the first given decides the errno.
    #[must_use]
    pub fn inject(mut self, injection: Injection) -> Self {
        self.observed.insert(injection.call);
        self.injections.push(injection);
        self
    }

    /// Iterates over the system calls to stop at.
    pub(super) fn observed(&self) -> impl Iterator<Item = libc::c_long> {
        self.observed.iter().copied()
    }

    /// Counts a call and returns the errno with which to refuse it.
    pub(super) fn refuses(&mut self, call: libc::c_long, args: &Arguments) -> Option<i32> {
        // No short circuit: each injection counts every call that it matches.
        self.injections.iter_mut().fold(None, |decided, i| {
            let errno = i.refuses(call, args);
            decided.or(errno)
        })
    }
}

/// Decides by its arguments whether a call is meant.
type Predicate = Box<dyn Fn(&Arguments) -> bool + Send>;

/// Describes a call to refuse: it is skipped, and returns an errno instead.
pub struct Injection {
    call: libc::c_long,
    nth: u64,
    errno: i32,
    when: Option<Predicate>,
    seen: u64,
}

impl Injection {
    /// Refuses the `nth` call, counted from 1, of this number with `errno`.
    ///
    /// Calls are counted over all traced threads and processes, from the exec of the command on;
    /// those of its dynamic loader are the first.
    ///
    /// # Panics
    ///
    /// If `nth` is zero, or `errno` is no errno.
    pub fn at(nth: u64, call: libc::c_long, errno: i32) -> Self {
        assert!(nth > 0, "calls are counted from 1");
        assert!((1..=4095).contains(&errno), "an errno lies within 1..=4095");
        Self {
            call,
            nth,
            errno,
            when: None,
            seen: 0,
        }
    }

    /// Counts, and refuses, only calls with such arguments.
    #[must_use]
    pub fn when(mut self, matches: impl Fn(&Arguments) -> bool + Send + 'static) -> Self {
        self.when = Some(Box::new(matches));
        self
    }

    fn refuses(&mut self, call: libc::c_long, args: &Arguments) -> Option<i32> {
        let meant = call == self.call && self.when.as_ref().is_none_or(|when| when(args));
        self.seen += u64::from(meant);
        (meant && self.seen == self.nth).then_some(self.errno)
    }
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "errno {} at {} number {}",
            self.errno,
            name(self.call),
            self.nth
        )
    }
}
