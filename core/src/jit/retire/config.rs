//! What can be asked for, and what is told.

use crate::{
    config::{ConfigError, Step, check},
    page::PageSize,
};
use core::ops::{AddAssign, RangeInclusive};

/// The configuration of a [`RetireQueue`](super::RetireQueue).
///
/// ```
/// use hostmem_core::jit::RetireConfig;
/// let small = RetireConfig::new().waiting(100).executors(4);
/// assert_eq!((small.max_waiting(), small.max_executors()), (100, 4));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RetireConfig {
    waiting: usize,
    executors: usize,
}

impl RetireConfig {
    /// Bounds of what may wait that may be asked for, in spans. The largest takes 48 MiB, committed
    /// at once, of which pages are written that spans wait in.
    pub const WAITING: RangeInclusive<usize> = 1..=1 << 20;
    /// Bounds of the executors that may be asked for: up to more than there are threads at work on
    /// any host. All of their slots are read by every reclaiming call.
    pub const EXECUTORS: RangeInclusive<usize> = 1..=1024;

    /// The defaults: 4096 spans may wait, for 64 executors.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiting: 4096,
            executors: 64,
        }
    }

    /// Sets how many spans may wait, within [`RetireConfig::WAITING`]. Each takes 48 bytes.
    #[must_use]
    pub const fn waiting(mut self, spans: usize) -> Self {
        self.waiting = spans;
        self
    }

    /// Sets how many executors can be registered at a time, within [`RetireConfig::EXECUTORS`].
    /// Each takes 128 bytes.
    #[must_use]
    pub const fn executors(mut self, count: usize) -> Self {
        self.executors = count;
        self
    }

    /// Returns how many spans may wait.
    #[must_use]
    pub const fn max_waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how many executors can be registered at a time.
    #[must_use]
    pub const fn max_executors(&self) -> usize {
        self.executors
    }

    /// Says whether every value is one that may be asked for, as
    /// [`RetireQueue::on`](super::RetireQueue::on) asks.
    ///
    /// # Errors
    ///
    /// The first setting that has another value.
    pub fn check(&self) -> Result<(), ConfigError> {
        check("waiting", self.waiting, Self::WAITING, Step::One)?;
        check("executors", self.executors, Self::EXECUTORS, Step::One)
    }
}

impl Default for RetireConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns what an arena for two slices may take beside them: two pieces, the first one longer than
/// what lies in it, in whole pages and with a header each.
pub(super) const fn slack(page: PageSize) -> usize {
    2 * page.bytes() + (128 << 10)
}

/// A number of spans, and their bytes in whole granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Spans.
    pub spans: u64,
    /// Bytes.
    pub bytes: u64,
}

impl AddAssign for Reclaimed {
    fn add_assign(&mut self, other: Self) {
        self.spans += other.spans;
        self.bytes += other.bytes;
    }
}

/// What a [`RetireQueue`](super::RetireQueue) holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetireStatistics {
    /// What waits.
    pub waiting: Reclaimed,
    /// What was released so far.
    pub reclaimed: Reclaimed,
    /// Spans that the allocator did not take back, because a reset or a fork had taken them.
    pub refused: u64,
    /// Executors that are registered.
    pub executors: usize,
    /// Executors that are online: those that spans can wait for.
    pub online: usize,
    /// Bytes of metadata committed.
    pub metadata: usize,
}
