//! One range of code that its owner fills by itself, from the bottom or from the top.
//!
//! ```text
//!            ┌───────┬─────────────────────────────────────────┬───────┐
//!     rx ──► │ guard │ code, code, code …                      │ guard │   executed here
//!            └───────┴─────────────────────────────────────────┴───────┘
//!                    ┌─────────────────────────────────────────┐
//!     rw ──►         │ the same pages                          │           written here
//!                    └─────────────────────────────────────────┘
//!     offsets        0                                        len
//! ```
//!
//! Translators that throw all their code away at once need no spans: a pointer that is moved is
//! their allocator. What is left is to have the pages, to write to them, and to make the cores run
//! what was written. Pages get memory when they are written to first.
//!
//! | file | what |
//! |---|---|
//! | `config` | what a code range can be told |
//! | `hull` | which offsets were published, purged, or are being written |
//! | `map` | how the views come and go |
//! | `write` | pages that are made writable, and get memory |

mod config;
mod hull;
mod map;
mod write;

pub use config::CodeRangeConfig;

use super::{Barrier, CodeProvider, JitError, Mapping, mapping::Way, views::Views};
use crate::{
    arch,
    atomic::{AtomicBool, Ordering},
    fork::ForkChild,
    page::{PageRange, PageSize},
    provider::{Error, ErrorKind, Fork, Purged},
};
use core::{fmt, ops::Range, ptr::NonNull};
use hull::Hull;

/// A long range of executable memory, without an allocator.
///
/// ```
/// use hostmem_core::jit::{CodeProvider, CodeRange, CodeRangeConfig, JitError};
/// # fn example<P: CodeProvider>(provider: P) -> Result<(), JitError> {
/// let mut code = CodeRange::on(provider, CodeRangeConfig::new(1 << 20))?;
/// // From the top down, as some translators go.
/// let top = code.len_bytes() - 4;
/// code.write(top, &[0xc3, 0xcc, 0xcc, 0xcc])?;
/// let entry = code.rx().addr().get() + top;
/// assert_eq!(code.offset_of(entry), Some(top));
/// # Ok(())
/// # }
/// ```
///
/// # Threads and signal handlers
///
/// Every call that takes `&self` may be made by any thread and by a signal handler, but for these:
/// where the range is [toggled](Mapping::Toggle), the calls from one [`CodeRange::begin_write`] to
/// its [`CodeRange::end_write`] are those of one thread at a time.
pub struct CodeRange<P: CodeProvider> {
    provider: P,
    /// `None` once it is dropped.
    views: Option<Views>,
    /// The inaccessible pages before and behind the executable view.
    guards: [Option<PageRange>; 2],
    way: Way,
    page: PageSize,
    syncs_cores: bool,
    /// Whether a fork took the writable view.
    lost: AtomicBool,
    /// Whether something else lies where a fork took a view: nothing is unmapped any more.
    foreign: AtomicBool,
    /// Whole pages that are writable and not executable, where the range is toggled.
    open: Hull,
    /// Whole pages that were purged and need memory before they are written to.
    purged: Hull,
    /// Whole pages that were given memory ahead of the writes.
    ready: Hull,
    /// What was executable before, so that a core may have fetched it.
    published: Hull,
    /// Whether a barrier was left to a later call.
    owed: AtomicBool,
}

impl<P: CodeProvider> CodeRange<P> {
    /// Returns where the range is executed.
    #[must_use]
    pub fn rx(&self) -> NonNull<u8> {
        self.views
            .as_ref()
            .map_or(NonNull::dangling(), |v| v.rx().start())
    }

    /// Returns where the range is written, between [`CodeRange::begin_write`] and
    /// [`CodeRange::end_write`]. That is where it is executed if it is mapped once.
    #[must_use]
    pub fn rw(&self) -> NonNull<u8> {
        self.views
            .as_ref()
            .map_or(NonNull::dangling(), |v| v.rw().start())
    }

    /// Returns the length of the range in bytes, a multiple of the page size.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.views.as_ref().map_or(0, Views::len_bytes)
    }

    /// Returns how the range is mapped, which [`Mapping::Auto`] leaves open.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        match self.way {
            Way::Dual => Mapping::Dual,
            Way::Toggle => Mapping::Toggle,
            Way::ReadWriteExec(opt_in) => Mapping::ReadWriteExec(opt_in),
        }
    }

    /// Returns the size of the pages got, in bytes.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.views.as_ref().map_or(self.page, Views::page_size)
    }

    /// Says whether the host can make other cores see code that replaced other code.
    #[must_use]
    pub const fn syncs_cores(&self) -> bool {
        self.syncs_cores
    }

    /// Returns the offset of an address in the executable or the writable view, if it lies in one.
    #[must_use]
    pub fn offset_of(&self, addr: usize) -> Option<usize> {
        let views = self.views.as_ref()?;
        let inside = |view: PageRange| view.contains(addr).then(|| addr - view.addr());
        inside(views.rx()).or_else(|| inside(views.rw()))
    }

    /// Makes the bytes of `part`, which were written, visible to instruction fetches. Other cores
    /// may have fetched what was executable there before: `barrier` says what is done about that.
    /// Bytes that were never published need no barrier, but on CPUs that fetch ahead
    /// ([`arch::FETCHES_AHEAD`]), nor do hosts that have none.
    ///
    /// # Errors
    ///
    /// [`JitError::OutOfBounds`], and [`JitError::ReadOnly`] in a forked child that lost the view,
    /// with nothing done; [`JitError::SyncCores`]: other cores may still run what they had fetched,
    /// and the barrier is owed still.
    #[inline]
    pub fn publish(&self, part: Range<usize>, barrier: Barrier) -> Result<(), JitError> {
        self.check(&part)?;
        if self.lost.load(Ordering::Relaxed) {
            return Err(JitError::ReadOnly);
        }
        if part.is_empty() {
            return Ok(());
        }
        // SAFETY: check found that the start lies in the view.
        let code = unsafe { self.rx().add(part.start) };
        // SAFETY: the bytes lie in the executable view, which is mapped and readable.
        unsafe { arch::publish_code(code.as_ptr(), part.len()) };
        let reused = self.published.overlaps(&part);
        self.published.add(&part);
        if reused {
            arch::discard_translations(code.as_ptr(), part.len());
        }
        if !(reused || arch::FETCHES_AHEAD) {
            return Ok(());
        }
        match barrier {
            Barrier::Never => Ok(()),
            Barrier::Deferred => {
                self.owed.store(true, Ordering::Release);
                Ok(())
            }
            Barrier::Now => self.barrier(),
        }
    }

    /// Makes other cores see all code whose barrier was deferred. Costs nothing where none was.
    ///
    /// # Errors
    ///
    /// [`JitError::SyncCores`], as [`CodeRange::publish`].
    pub fn sync(&self) -> Result<(), JitError> {
        if self.owed.load(Ordering::Acquire) {
            return self.barrier();
        }
        Ok(())
    }

    /// Takes all offsets for ones that were never published, with one barrier: to begin anew after
    /// all code was thrown away. From this call on no thread executes code of the range that was
    /// published before, and none publishes any until it returns.
    ///
    /// # Errors
    ///
    /// [`JitError::SyncCores`]; nothing is forgotten then.
    pub fn recycle(&self) -> Result<(), JitError> {
        if !self.published.is_empty() {
            self.barrier()?;
        }
        self.published.set(0..0);
        Ok(())
    }

    /// Gives the memory of the pages of `part` back to the host; offsets and addresses stay. What
    /// they read as is zero, or, on hosts that say so, what they held. They can be written again
    /// after a `begin_write`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] where the part does not begin and end at pages of
    /// [`CodeRange::page_size`]; what the provider says, [`ErrorKind::Unsupported`] for instance
    /// where it cannot purge dual mappings.
    ///
    /// # Safety
    ///
    /// No thread reads, writes or executes the pages until they were written again.
    pub unsafe fn purge(&self, part: Range<usize>) -> Result<Purged, Error> {
        let size = self.page_size();
        let whole = size.is_aligned(part.start) && size.is_aligned(part.end);
        if !whole || self.check(&part).is_err() {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if part.is_empty() {
            return Ok(Purged::Zero);
        }
        match self.views.as_ref().ok_or(ErrorKind::InvalidArgument)? {
            Views::Dual(mapping) => {
                // SAFETY: the mapping came from this provider; the caller promises that the pages
                // are not used until they are written, and begin_write refills them before.
                unsafe { self.provider.purge_dual(mapping, part.start, part.len())? };
                self.purged.add(&part);
                Ok(Purged::Zero)
            }
            Views::Single(range, _) => {
                let pages = range.part(part.start, part.len(), self.page);
                let pages = pages.ok_or(ErrorKind::InvalidArgument)?;
                // SAFETY: committed pages of this range, which no thread uses, by the caller's
                // promise.
                unsafe { self.provider.purge(pages) }
            }
        }
    }

    #[inline]
    fn check(&self, part: &Range<usize>) -> Result<(), JitError> {
        if part.start <= part.end && part.end <= self.len_bytes() {
            Ok(())
        } else {
            Err(JitError::OutOfBounds)
        }
    }

    #[cold]
    fn barrier(&self) -> Result<(), JitError> {
        if !self.syncs_cores {
            return Ok(());
        }
        // Taken before the barrier begins: a note that comes later wants another one.
        self.owed.store(false, Ordering::SeqCst);
        self.provider.sync_cores().map_err(|error| {
            self.owed.store(true, Ordering::Release);
            JitError::SyncCores(error)
        })
    }
}

// SAFETY: a code range has no lock that a child could find held.
unsafe impl<P: CodeProvider> ForkChild for CodeRange<P> {
    /// Notes what the child lost, and keeps its addresses. A range that is mapped once is the
    /// child's own copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RangeLost`] where something else already lies where a view was: what is left of
    /// the range is then never unmapped.
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let Some(Views::Dual(mapping)) = &self.views else {
            return Ok(());
        };
        if mapping.fork() != Fork::Share {
            self.lost.store(true, Ordering::Relaxed);
        }
        // SAFETY: the caller's is the only thread of a forked child, and this is the one call.
        unsafe { self.provider.fork_child_dual(mapping) }.inspect_err(|_| {
            self.foreign.store(true, Ordering::Relaxed);
        })
    }
}

impl<P: CodeProvider> fmt::Debug for CodeRange<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeRange")
            .field("rx", &self.rx())
            .field("rw", &self.rw())
            .field("len_bytes", &self.len_bytes())
            .field("mapping", &self.mapping())
            .finish_non_exhaustive()
    }
}
