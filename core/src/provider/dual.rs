//! Dual mappings: the same pages seen through a writable and through an executable view.

use super::{Error, ErrorKind, PageProvider, PageWish, Placement, Request, place::place_views};
use crate::page::{PageRange, PageSize};
use core::{ffi::CStr, fmt};

/// Where one view goes.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Onto a hole that the provider finds.
    Find(Placement),
    /// Onto this range, which the caller has reserved. Align and length are the caller's care.
    Into(PageRange),
}

impl Target {
    /// Anywhere at all.
    pub const ANYWHERE: Self = Self::Find(Placement::ANYWHERE);
}

/// What a forked child sees of a dual mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fork {
    /// A bare child has no writable view, and its executable view follows the parent. A child that
    /// runs the owner's `fork_child` gets a private copy of both views at the same addresses.
    #[default]
    Detach,
    /// The child has no writable view. Its executable view still shows the parent's later writes.
    ChildLosesRw,
    /// The child has neither view.
    ChildLosesBoth,
    /// Parent and child share both views; each can change the other's code.
    Share,
}

impl Fork {
    /// Returns which views a forked child loses at once: the writable and the executable one.
    #[must_use]
    pub const fn lost_views(self) -> (bool, bool) {
        match self {
            Self::Detach | Self::ChildLosesRw => (true, false),
            Self::ChildLosesBoth => (true, true),
            Self::Share => (false, false),
        }
    }
}

/// A request for a dual mapping.
#[derive(Clone, Copy, Debug)]
pub struct DualRequest<'a> {
    /// Bytes of each view, a multiple of the page size (of the large page where one is asked for).
    pub len: usize,
    /// The fewest bytes that will do where a view's place is searched for, a multiple of the same
    /// page size; `None` for no fewer than `len`. Both views are as long as the shorter of the two
    /// holes. A target range, and a place that the host chooses, is `len` bytes long or none.
    pub min_len: Option<usize>,
    /// Where the writable view goes.
    pub rw: Target,
    /// Where the executable view goes.
    pub rx: Target,
    /// The pages wanted.
    pub pages: PageWish,
    /// Whether indirect branches into the executable view must land on a landing pad. Not without
    /// [`Capabilities::LANDING_PADS`](super::Capabilities::LANDING_PADS).
    pub landing_pads: bool,
    /// What a forked child sees.
    pub fork: Fork,
    /// A name for the process map, where the host keeps names.
    pub name: Option<&'a CStr>,
}

impl<'a> DualRequest<'a> {
    /// Asks for two views of `len` bytes, each anywhere, with the default fork policy.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            min_len: None,
            rw: Target::ANYWHERE,
            rx: Target::ANYWHERE,
            pages: PageWish::Base,
            landing_pads: false,
            fork: Fork::Detach,
            name: None,
        }
    }

    /// Validates length and targets for a host with pages of `page`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length that is zero or no multiple of the page size, a
    /// least length that is that too or above the length, a target range of another length, or two
    /// target ranges that overlap; and what [`Request::plan`](super::Request::plan) says of a
    /// placement. [`DualError::unplaced`] tells which view cannot lie where it was asked for.
    pub fn validate(&self, page: PageSize) -> Result<(), DualError> {
        let invalid = Err(DualError::of(ErrorKind::InvalidArgument));
        let whole = |len: usize| len != 0 && page.is_aligned(len);
        if !whole(self.len) || self.min_len.is_some_and(|n| !whole(n) || n > self.len) {
            return invalid;
        }
        for (view, target) in [(DualView::Rw, &self.rw), (DualView::Rx, &self.rx)] {
            match target {
                Target::Find(placement) => {
                    let request = Request {
                        min_len: self.min_len,
                        ..Request::bytes(self.len).placement(*placement)
                    };
                    let plan = request.plan(page);
                    plan.map_err(|error| match error.kind() {
                        ErrorKind::OutsideRange => DualError::unplaceable(view, error),
                        _ => error.into(),
                    })?;
                }
                Target::Into(range) if range.len_bytes() != self.len => return invalid,
                Target::Into(_) => {}
            }
        }
        match (self.rw, self.rx) {
            (Target::Into(rw), Target::Into(rx)) if rw.overlaps(rx) => invalid,
            _ => Ok(()),
        }
    }
}

/// One of the two views of a dual mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DualView {
    /// The writable view.
    Rw,
    /// The executable view.
    Rx,
}

impl fmt::Display for DualView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rw => "writable view",
            Self::Rx => "executable view",
        })
    }
}

/// A way to make a dual mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DualStep {
    /// `memfd_create`.
    Memfd,
    /// `memfd_create` with large pages.
    MemfdLarge,
    /// An anonymous shared-memory object: `shm_open(SHM_ANON)`, `shm_mkstemp`.
    AnonShm,
    /// An anonymous shared-memory object of large pages: `shm_create_largepage(SHM_ANON)`.
    AnonShmLarge,
    /// A duplicate of an existing mapping: `mremap(MAP_REMAPDUP)`.
    RemapDup,
    /// A named shared-memory object, unlinked at once.
    PosixShm,
    /// An unlinked file in `/dev/shm`.
    DevShm,
    /// An unlinked file in the provider's nth directory.
    Directory(u8),
    /// Two views of memory that a simulated or user-supplied provider makes in its own way.
    Provider,
}

impl DualStep {
    /// Says whether the strategy makes large pages, or nothing.
    #[must_use]
    pub const fn has_large_pages(self) -> bool {
        matches!(self, Self::MemfdLarge | Self::AnonShmLarge)
    }
}

impl fmt::Display for DualStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memfd => f.write_str("memfd_create"),
            Self::MemfdLarge => f.write_str("memfd_create with large pages"),
            Self::AnonShm => f.write_str("anonymous shared memory"),
            Self::AnonShmLarge => f.write_str("anonymous shared memory of large pages"),
            Self::RemapDup => f.write_str("mremap duplicate"),
            Self::PosixShm => f.write_str("shm_open"),
            Self::DevShm => f.write_str("file in /dev/shm"),
            Self::Directory(n) => write!(f, "file in directory {n}"),
            Self::Provider => f.write_str("provider's own"),
        }
    }
}

/// The orders in which strategies are tried: data, so that they can be read, tested and changed in
/// one place. Best first: what needs no file system, then what needs the least of one.
pub mod order {
    use super::DualStep::{
        self, AnonShm, AnonShmLarge, DevShm, Directory, Memfd, MemfdLarge, PosixShm, RemapDup,
    };

    /// Directories that a provider can be given.
    pub const MAX_DIRECTORIES: usize = 4;

    /// Linux.
    pub const LINUX: &[DualStep] = &[
        Memfd,
        DevShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// Linux, where large pages are asked for and the host's pages will do.
    pub const LINUX_LARGE: &[DualStep] = &[
        MemfdLarge,
        Memfd,
        DevShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// Linux, where only large pages will do.
    pub const LINUX_ONLY_LARGE: &[DualStep] = &[MemfdLarge];

    /// FreeBSD.
    pub const FREEBSD: &[DualStep] = &[
        AnonShm,
        Memfd,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// FreeBSD, where large pages are asked for and the host's pages will do.
    pub const FREEBSD_LARGE: &[DualStep] = &[
        AnonShmLarge,
        AnonShm,
        Memfd,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// FreeBSD, where only large pages will do.
    pub const FREEBSD_ONLY_LARGE: &[DualStep] = &[AnonShmLarge];

    /// DragonFly.
    pub const DRAGONFLY: &[DualStep] = &[
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];

    /// OpenBSD.
    pub const OPENBSD: &[DualStep] = &[
        AnonShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];

    /// NetBSD, where the system finds a hole for the executable view.
    pub const NETBSD: &[DualStep] = &[
        RemapDup,
        Memfd,
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
    ];
    /// NetBSD, where the executable view replaces a reservation. A descriptor's mapping does that
    /// in one step. A duplicate cannot: the reservation goes first, and another thread's mapping
    /// may get in between, so the last resort is the only step that can lose the range.
    pub const NETBSD_INTO: &[DualStep] = &[
        Memfd,
        PosixShm,
        Directory(0),
        Directory(1),
        Directory(2),
        Directory(3),
        RemapDup,
    ];
}

/// The most strategies that one call tries: the longest of [`order`], and one to spare.
pub const MAX_DUAL_STEPS: usize = 8;

/// Why no dual mapping could be made: a view that has no place, or each strategy tried, with its
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualError {
    cause: Error,
    reason: Reason,
    steps: [Option<(DualStep, Error)>; MAX_DUAL_STEPS],
}

/// What else there is to say; one field, so that errors stay short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// A target range was lost.
    Lost(PageRange),
    /// A view has no place, if there is one.
    Unplaced(Option<DualView>),
}

impl DualError {
    /// Makes an error that came before any strategy was tried.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        Self::before_any_step(Error::of(kind))
    }

    /// Makes the error of a view that has no place where it was asked for.
    #[must_use]
    pub const fn unplaceable(view: DualView, cause: Error) -> Self {
        Self {
            reason: Reason::Unplaced(Some(view)),
            ..Self::before_any_step(cause)
        }
    }

    const fn before_any_step(cause: Error) -> Self {
        Self {
            cause,
            reason: Reason::Unplaced(None),
            steps: [None; MAX_DUAL_STEPS],
        }
    }

    /// Returns why a view has no place, if one has none; else the first strategy's error, the one
    /// that a better-equipped host would not have had; the error of the last where that lost a
    /// target range; what was wrong where none was tried.
    #[must_use]
    pub const fn cause(&self) -> Error {
        self.cause
    }

    /// Returns the kind of [`DualError::cause`].
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// Returns the system's error number in [`DualError::cause`].
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        self.cause.errno()
    }

    /// Returns the view that has no place where it was asked for, if that is the reason: the place
    /// is in use ([`ErrorKind::Taken`]), lies outside the range asked for
    /// ([`ErrorKind::OutsideRange`]), or the range has no hole of the least length that will do
    /// ([`ErrorKind::Exhausted`]). No strategy could change that, and a shorter mapping of at least
    /// [`DualRequest::min_len`] bytes neither.
    #[must_use]
    pub const fn unplaced(&self) -> Option<DualView> {
        match self.reason {
            Reason::Unplaced(view) => view,
            Reason::Lost(_) => None,
        }
    }

    /// Says whether memory, descriptors or room in a file system was short, for the call as a whole
    /// or for any strategy, so that fewer bytes may be had. Not where a view has no place.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        let short = |error: Error| error.kind() == ErrorKind::Exhausted;
        self.unplaced().is_none()
            && (short(self.cause) || self.steps().any(|(_, error)| short(error)))
    }

    /// Returns the target range that now belongs to somebody else, if one was lost.
    #[must_use]
    pub const fn lost(&self) -> Option<PageRange> {
        match self.reason {
            Reason::Lost(range) => Some(range),
            Reason::Unplaced(_) => None,
        }
    }

    /// Returns each strategy that was tried, in order, and why it failed.
    pub fn steps(&self) -> impl Iterator<Item = (DualStep, Error)> + '_ {
        self.steps.iter().flatten().copied()
    }
}

impl From<Error> for DualError {
    fn from(error: Error) -> Self {
        Self::before_any_step(error)
    }
}

impl fmt::Display for DualError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no dual mapping: ")?;
        if let Some(view) = self.unplaced() {
            write!(f, "no place for the {view}: ")?;
        }
        write!(f, "{}", self.cause)?;
        for (n, (step, error)) in self.steps().enumerate() {
            write!(f, "{} {step}: {error}", if n == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl core::error::Error for DualError {}

/// What [`DualMapProvider::unmap_dual`] leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// Holes.
    Hole,
    /// Reservations that the caller owns.
    Reserved,
}

/// Two views of the same pages: the token of their ownership.
///
/// ```text
///   rw ─► ┌────────────┐      ┌────────────┐ ◄─ rx
///         │ read/write │ ═══► │ read/exec  │
///         └────────────┘ same └────────────┘
///                        pages
/// ```
#[derive(Debug)]
#[must_use = "dropping the token leaks both views"]
pub struct DualMapping {
    rw: PageRange,
    rx: PageRange,
    step: DualStep,
    page: PageSize,
    fork: Fork,
    purges: bool,
}

impl DualMapping {
    /// Makes the token of a mapping that `step` made with pages of `page`. It
    /// [purges](DualMapping::purges) unless [`DualMapping::without_purge`] says otherwise.
    ///
    /// # Safety
    ///
    /// `rw` and `rx` are equally long, do not overlap, show the same pages, and belong to nobody
    /// else; no other token for them exists.
    pub unsafe fn from_parts(
        rw: PageRange,
        rx: PageRange,
        step: DualStep,
        page: PageSize,
        fork: Fork,
    ) -> Self {
        debug_assert!(rw.len_bytes() == rx.len_bytes(), "views are equally long");
        debug_assert!(!rw.overlaps(rx), "views do not overlap");
        Self {
            rw,
            rx,
            step,
            page,
            fork,
            purges: true,
        }
    }

    /// Says that the pages of this mapping cannot be given back before it is unmapped.
    pub const fn without_purge(self) -> Self {
        Self {
            purges: false,
            ..self
        }
    }

    /// Returns the writable view.
    #[must_use]
    pub const fn rw(&self) -> PageRange {
        self.rw
    }

    /// Returns the executable view.
    #[must_use]
    pub const fn rx(&self) -> PageRange {
        self.rx
    }

    /// Returns the length of each view in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.rw.len_bytes()
    }

    /// Returns the strategy that made the mapping.
    #[must_use]
    pub const fn step(&self) -> DualStep {
        self.step
    }

    /// Returns the size of the pages got.
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        self.page
    }

    /// Returns what a forked child sees.
    #[must_use]
    pub const fn fork(&self) -> Fork {
        self.fork
    }

    /// Says whether [`DualMapProvider::purge_dual`] serves this mapping. A provider without
    /// [`Capabilities::PURGE_DUAL`](super::Capabilities) makes none that it serves; one that has
    /// the capability may make some that it does not, where the host leaves no other way to keep
    /// the executable view from becoming writable.
    #[must_use]
    pub const fn purges(&self) -> bool {
        self.purges
    }
}

/// Makes dual mappings.
///
/// # Safety
///
/// An implementation promises that
/// - both views show the same pages, which read zero at first and belong to the caller alone;
/// - those pages have memory, or the host has promised it: no access to them raises a signal;
/// - `rw` is never executable, and `rx` never writable, where reading does not imply executing
///   ([`Capabilities::EXEC_ONLY_WHERE_ASKED`](super::Capabilities));
/// - a call that fails changes nothing, except what it reports as lost.
///
/// No call of [`PageProvider`] may be made on a view, and none but
/// [`DualMapProvider::unmap_dual`] may be made on a part of one.
pub unsafe trait DualMapProvider: Send + Sync {
    /// Maps new pages twice. Places that are searched for are reserved before anything else is
    /// made: a place that is taken, or a range that is full, is not the fault of a strategy.
    ///
    /// # Errors
    ///
    /// [`DualError`] tells which view has no place, or lists every strategy tried and why it
    /// failed.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`] is reserved by the caller from this provider, and no other code
    /// uses it.
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError>;

    /// Unmaps both views.
    ///
    /// # Errors
    ///
    /// What the host says, with the token: both views are then still mapped, or the writable one
    /// is reserved, and the call may be made again. After [`ErrorKind::RangeLost`] the token is
    /// only to be forgotten.
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider, and no other code uses either view.
    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)>;

    /// Gives the pages of `len` bytes from `offset` back to the host. They have no memory until
    /// [`DualMapProvider::refill_dual`] asked for it, and read zero in both views then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a range that is misaligned or leaves the mapping,
    /// [`ErrorKind::Unsupported`] without [`Capabilities::PURGE_DUAL`](super::Capabilities), and
    /// for a mapping that does not [purge](DualMapping::purges).
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider, and no other code uses those pages until they are
    /// refilled: an access before that may raise a signal, where the host has given their memory to
    /// others.
    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error>;

    /// Makes sure that the pages of `len` bytes from `offset` have memory, after they were purged.
    /// Pages that have memory keep it and their contents.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] where the host has no memory left; the pages are as purged as
    /// before, and the call may be made again. [`ErrorKind::InvalidArgument`] for a range that is
    /// misaligned or leaves the mapping.
    ///
    /// # Safety
    ///
    /// `mapping` came from this provider.
    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error>;

    /// Reserves again, in a forked child, the addresses of the views that the fork policy took
    /// away, so that nothing else can land there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RangeLost`] where something else already lies there.
    ///
    /// # Safety
    ///
    /// The caller is the only thread of a process forked since the mapping was made, and calls
    /// once for each mapping.
    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error>;
}

/// The error of one strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualStepError {
    /// What failed.
    pub error: Error,
    /// A target range that now belongs to somebody else.
    pub lost: Option<PageRange>,
}

impl From<Error> for DualStepError {
    fn from(error: Error) -> Self {
        Self { error, lost: None }
    }
}

/// The single strategies of an operating system, without policy. Only backends implement this;
/// decorators see [`DualMapProvider`].
///
/// # Safety
///
/// The promises of [`DualMapProvider`]. A strategy counts as working only when the executable view
/// could be mapped.
pub unsafe trait DualSteps: Send + Sync {
    /// Returns the strategies to try for `request`, best first; at most [`MAX_DUAL_STEPS`].
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep];

    /// Says whether a strategy can put an executable view onto a hole, but not onto a reservation
    /// without giving that up first. Its target is then the place where the reservation was, to be
    /// taken exactly.
    fn wants_hole(&self, step: DualStep) -> bool {
        let _ = step;
        false
    }

    /// Tries one strategy.
    ///
    /// # Errors
    ///
    /// What the host says, and whether a target range was lost.
    ///
    /// # Safety
    ///
    /// The promises of [`DualMapProvider::map_dual`].
    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError>;
}

/// Finds places for the views, and then tries the strategies of `backend` in order. Any failure of
/// a strategy moves on to the next, except a lost target range, of which its owner must hear.
///
/// A view that says where it wants to be is given a reservation, which the strategies replace. The
/// host chooses for one that may lie anywhere.
///
/// # Errors
///
/// [`DualError`] with the view that has no place, in which case no strategy was tried, or with
/// every strategy's error.
///
/// # Safety
///
/// The promises of [`DualMapProvider::map_dual`].
pub unsafe fn run_dual<B: DualSteps + PageProvider>(
    backend: &B,
    request: &DualRequest<'_>,
    page: PageSize,
) -> Result<DualMapping, DualError> {
    request.validate(page)?;
    let order = backend.dual_order(request);
    debug_assert!(order.len() <= MAX_DUAL_STEPS, "every step's error has room");
    let Some(&first) = order.first() else {
        return Err(DualError::of(ErrorKind::Unsupported));
    };
    let mut failure = DualError::of(ErrorKind::Unsupported);
    let mut host = Host(backend);
    let mut places = place_views(&mut host, request, page);
    // Where there is no room for large pages there may be some for the host's.
    let base = DualRequest {
        pages: PageWish::Base,
        ..*request
    };
    let too_tight = places.as_ref().err().map(DualError::cause);
    let too_tight = too_tight.filter(|_| first.has_large_pages() && order.len() > 1);
    if too_tight.is_some() {
        places = place_views(&mut host, &base, page);
    }
    let mut places = places?;
    for (n, (slot, &step)) in failure.steps.iter_mut().zip(order).enumerate() {
        let result = match too_tight.filter(|_| step.has_large_pages()) {
            Some(error) => Err(error.into()),
            // SAFETY: ranges of the caller are passed on with the caller's promise; others were
            // reserved for this call, and no other code uses them.
            None => unsafe { places.run(&mut host, step, request) },
        };
        let error = match result {
            Ok(mapping) => return Ok(mapping),
            Err(DualStepError { error, lost: None }) => error,
            Err(DualStepError {
                error,
                lost: Some(range),
            }) => {
                *slot = Some((step, error));
                failure.cause = error.with_kind(ErrorKind::RangeLost);
                failure.reason = Reason::Lost(range);
                break;
            }
        };
        *slot = Some((step, error));
        if n == 0 {
            failure.cause = error;
        }
        // Others may have got in where a strategy had to give a reservation up.
        if let Err(unplaced) = places.again(&mut host, request) {
            (failure.cause, failure.reason) = (unplaced.cause, unplaced.reason);
            break;
        }
    }
    places.release(&mut host);
    Err(failure)
}

/// A backend as where places come from.
pub(super) struct Host<'a, B>(pub(super) &'a B);
