//! The seam between what thinks and what maps: small traits in memory *states*, not system calls.
//!
//! ```text
//!            reserve                commit
//!   hole ──────────────► reserved ──────────► committed ─┐ protect, purge
//!     ▲                   │  ▲  ▲                │  ▲─────┘
//!     └───── release ─────┘  │  └─── decommit ───┘
//!                            │ unmap_dual(.., Reserved)
//!   hole ─ map_dual(Find) ─► dual ◄─ map_dual(Into) ─ reserved
//! ```
//!
//! A *hole* is not mapped. *Reserved* addresses are the caller's and inaccessible. *Committed*
//! pages have memory and an access; fresh ones read zero. *Dual* pages are seen through two views,
//! and only the calls of [`DualMapProvider`] may be made on them.
//!
//! Consumers take `P: PageProvider + Copy`. Operating-system providers are `Copy`; providers with
//! state are used by reference: `&P` is a provider wherever `P` is. A provider around a provider
//! ([`Within`], [`crate::counted::Counted`]) narrows or watches it.
//!
//! | file | what it has, in the order in which a request comes by |
//! |---|---|
//! | `request` | requests, `plan`s in whole pages, and how pages are `commit`ted |
//! | `capabilities`, `resource` | what a provider can do; what is left of limits |
//! | `forward`, `within` | a reference as a provider; one that narrows where memory may lie |
//! | `dual` | dual mappings: `request`, `step`s, `run`, `mapping` (the token), `error` |
//! | `place` | places for the views of a dual mapping |
//! | `search`, `gaps`, `map`, `end` | a hole for it; the gaps of a process map; the last address |
//! | `backend` | what systems with `mmap` have in common |
//! | `error` | what went wrong |

pub mod backend;
mod capabilities;
mod dual;
mod end;
mod error;
mod forward;
mod gaps;
mod map;
mod place;
mod request;
mod resource;
mod search;
mod within;

pub use capabilities::Capabilities;
pub use dual::{
    DualError, DualMapProvider, DualMapping, DualRequest, DualStep, DualStepError, DualSteps,
    DualView, Fork, Leave, MAX_DUAL_STEPS, Target, order, run_dual,
};
pub use end::last_address;
pub(crate) use error::linux;
pub use error::{Error, ErrorKind};
pub(crate) use gaps::FLOOR;
pub use gaps::walk_gaps;
pub use map::{AddressSpace, MapEntry, MapFlags, ProcessMap};
pub(crate) use place::{Places, place_views};
pub use request::{
    Commit, Dump, Guards, PageWish, Place, Placement, Plan, Purged, Request, is_mapping_name,
};
pub(crate) use resource::AHEAD;
pub use resource::{Resource, reserve_ahead};
pub use search::{consists_of, search};
pub use within::Within;

use crate::page::{Access, AddressRange, PageRange, PageSize};
use core::ffi::CStr;

/// Gives and takes pages of the host's address space.
///
/// # Safety
///
/// An implementation promises that
/// - a range returned by `reserve` was a hole, and belongs to the caller alone until `release`;
/// - a committed range has the access asked for, and reads zero at first;
/// - after `purge` pages show what [`Purged`] says, and nothing else;
/// - `decommit` and `release` leave no way to reach the old contents;
/// - a call that fails changes nothing, except that [`ErrorKind::RangeLost`] says that the range
///   is no longer the caller's, and that `protect` says what it may have changed;
/// - no call allocates by the global allocator.
///
/// Every `unsafe` call asks the same of the caller: `range` lies within what `reserve` of the same
/// provider returned and `release` did not take back, it is in the state the call starts from, no
/// dual view lies in it, and no other code uses memory that the call takes away.
pub unsafe trait PageProvider: Send + Sync {
    /// Returns the page size, the unit of every range.
    fn page_size(&self) -> PageSize;

    /// Returns what this provider can do now.
    fn capabilities(&self) -> Capabilities;

    /// Returns which of `wanted` this provider can do now, as [`PageProvider::capabilities`] does.
    /// A host where some answers cost system calls is asked for no others.
    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.capabilities() & wanted
    }

    /// Reserves addresses: hole → reserved.
    ///
    /// The range is [`Plan::total`] bytes long, its guards included; less, but no less than
    /// [`Plan::min_total`], where the request [settles for less](Request::min_len) and no hole is
    /// longer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a request that cannot be met by any host,
    /// [`ErrorKind::Taken`] where an exact place is in use, [`ErrorKind::OutsideRange`] where the
    /// place lies outside `within`, [`ErrorKind::Exhausted`] where no hole is large enough, even
    /// for the least length that will do.
    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error>;

    /// Reserves addresses and gives all of them memory: hole → committed, where that is one step
    /// for the host. For requests without guards.
    ///
    /// # Errors
    ///
    /// Those of [`PageProvider::reserve`] and [`PageProvider::commit`]; nothing is reserved then.
    fn reserve_committed(&self, request: &Request<'_>, how: Commit) -> Result<PageRange, Error> {
        reserve_and_commit(self, request, how)
    }

    /// Gives pages memory: reserved → committed, reading zero. Returns the page size got.
    ///
    /// Pages larger than [`PageProvider::page_size`] change state only as a whole afterwards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] without memory, [`ErrorKind::Denied`] where the host refuses the
    /// access, [`ErrorKind::Unsupported`] where it has no such pages.
    ///
    /// # Safety
    ///
    /// The promises of the trait; the whole range is reserved, and not committed.
    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error>;

    /// Changes the access of committed pages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] where the host refuses, as some do above the ceiling of the commit.
    ///
    /// Hosts change one mapping after the other. Where the range is part of several (its pages were
    /// committed by different calls, or have had different accesses) and the call fails in the
    /// middle, for instance at the limit of mappings, pages in front may have the new access. No
    /// host tells how many. Giving a page the access that it has never fails, so that the old
    /// access can be restored page by page, by those who know it, wherever it was changed.
    ///
    /// # Safety
    ///
    /// The promises of the trait; the whole range is committed.
    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error>;

    /// Takes memory back: committed or reserved → reserved. The contents are gone.
    ///
    /// # Errors
    ///
    /// What the host says; [`ErrorKind::RangeLost`] where the addresses were lost with it.
    ///
    /// # Safety
    ///
    /// The promises of the trait.
    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error>;

    /// Gives the memory of committed pages back to the host and keeps the pages: committed →
    /// committed, with the same access. No mapping is split. Returns what the pages show then;
    /// writing to one takes memory again.
    ///
    /// A provider that cannot keeps the contents, as this method does by itself.
    ///
    /// Large pages go as a whole only: where they were [wished](PageWish::Transparent) for, the
    /// host fills holes in them again; give back whole ones.
    ///
    /// # Errors
    ///
    /// What the host says. The contents are unknown then: old, zero, or some of each.
    ///
    /// # Safety
    ///
    /// The trait's conditions; the whole range is committed, and its contents are not needed.
    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let _ = range;
        Ok(Purged::Kept)
    }

    /// Moves the memory of committed pages to other addresses without copying it: `from` becomes
    /// reserved, and `to` committed with the access, the ceiling and the contents that `from` had.
    ///
    /// Meant for ranges that are a reservation of their own: what was moved may be a mapping of its
    /// own from then on, which does not join its neighbours. It also serves for what the caller
    /// mapped itself over pages reserved here, private or shared, where the host moves that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] without [`Capabilities::MOVE_PAGES`], and where this range cannot
    /// be moved, for instance since the host keeps it in several mappings: copy it.
    /// [`ErrorKind::InvalidArgument`] for ranges of different lengths or that overlap;
    /// [`ErrorKind::RangeLost`] where `to` was lost. `from` is as before.
    ///
    /// # Safety
    ///
    /// The trait's conditions; all of `from` is committed, all of `to` reserved and not committed.
    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        let _ = (from, to);
        Err(ErrorKind::Unsupported.into())
    }

    /// Gives addresses a name in the process map, and says whether they belong in a core file, as a
    /// [`Request`] does for what it reserves. It is advice: hosts without names or core files, and
    /// this method by itself, pass it by. It holds until the pages are decommitted or moved.
    ///
    /// # Safety
    ///
    /// The trait's conditions.
    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        let _ = (range, name, dump);
    }

    /// Advises that large pages are not welcome in committed memory, for instance since it was
    /// committed with [`PageWish::Transparent`]: parts of it are to be
    /// [purged](PageProvider::purge), and the host should not fill them again. It is advice: hosts
    /// without such pages, and this method by itself, pass it by.
    ///
    /// # Safety
    ///
    /// The trait's conditions.
    unsafe fn avoid_large_pages(&self, range: PageRange) {
        let _ = range;
    }

    /// Advises that large pages are welcome in committed memory, as [`PageWish::Transparent`] does
    /// when it is committed. It is advice: hosts without such pages, and this method by itself,
    /// pass it by.
    ///
    /// # Safety
    ///
    /// The trait's conditions.
    unsafe fn wish_large_pages(&self, range: PageRange) {
        let _ = range;
    }

    /// Gives addresses back: reserved or committed → hole. Any part of a reservation may go.
    ///
    /// # Errors
    ///
    /// What the host says, for instance that it cannot split a mapping once more.
    ///
    /// # Safety
    ///
    /// The promises of the trait.
    unsafe fn release(&self, range: PageRange) -> Result<(), Error>;

    /// Returns how much of a limited resource is left to this process now, or to the users of this
    /// provider if that is less; `None` where there is no limit or it is not known.
    fn left(&self, of: Resource) -> Option<usize> {
        let _ = of;
        None
    }

    /// Returns the size of the pages that [`PageWish::Transparent`] asks for. By default what one
    /// table of 8-byte entries maps, as on the CPUs of most hosts: 2 MiB where pages have 4 KiB, 32
    /// MiB where they have 16, 512 MiB where they have 64.
    fn large_page(&self) -> PageSize {
        self.page_size().of_table()
    }

    /// Returns bytes of the host's source of random numbers that is fit for keys; `None` where it
    /// has none, or refuses, as by default.
    fn random_key(&self) -> Option<[u8; 32]> {
        None
    }

    /// Returns the addresses that ranges from this provider can have; by default, any.
    fn addresses(&self) -> AddressRange {
        AddressRange::ALL
    }
}

/// Does what [`PageProvider::reserve_committed`] does in two steps.
///
/// # Errors
///
/// The errors of that method.
pub fn reserve_and_commit<P: PageProvider + ?Sized>(
    provider: &P,
    request: &Request<'_>,
    how: Commit,
) -> Result<PageRange, Error> {
    let range = provider.reserve(request)?;
    // SAFETY: reserved just now, and no other code has its address yet.
    match unsafe { provider.commit(range, how) } {
        Ok(_) => Ok(range),
        Err(error) => {
            if error.kind() != ErrorKind::RangeLost {
                // SAFETY: reserved just now, and not lost. A failure wastes addresses.
                let _ = unsafe { provider.release(range) };
            }
            Err(error)
        }
    }
}

/// Makes other cores see new instructions.
///
/// # Safety
///
/// After `sync_cores` returned `Ok`, no thread of this process executes instructions that it
/// fetched before the call.
pub unsafe trait CoreSync: Send + Sync {
    /// Runs a context-synchronizing event on every core that runs a thread of this process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] or [`ErrorKind::Denied`] where the host cannot.
    fn sync_cores(&self) -> Result<(), Error>;
}

/// A clock that only goes forwards.
pub trait Clock: Send + Sync {
    /// Returns milliseconds since some fixed moment; `None` where there is no clock.
    fn now_ms(&self) -> Option<u64>;
}

/// Everything that a host gives: the sum of the seam's traits, for type erasure.
pub trait Provider: PageProvider + DualMapProvider + CoreSync + Clock + ProcessMap {}

impl<T: PageProvider + DualMapProvider + CoreSync + Clock + ProcessMap + ?Sized> Provider for T {}
