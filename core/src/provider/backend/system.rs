//! What a system is asked, and what its answers mean.

use super::{can_map, commit_over, keep::Call, mappable, pointer};
use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Clock, Commit, Dump, Error, ErrorKind, MapFlags, PageWish, ProcessMap,
        Purged, Resource,
    },
};
use core::{
    ffi::{CStr, c_void},
    fmt::Debug,
};

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Wherever the system likes.
    Anywhere,
    /// Wherever the system likes, at a multiple of this power of two, which is more than a page.
    Aligned(usize),
    /// At this address or nowhere, replacing nothing. A system that has no such flag takes the
    /// address for a hint.
    Exact(usize),
    /// At this address if nothing is there, else wherever the system likes.
    Hint(usize),
    /// In place of this range.
    Over(PageRange),
}

impl At {
    /// Says whether the mapping replaces a range.
    #[must_use]
    pub const fn replaces(self) -> bool {
        matches!(self, Self::Over(_))
    }

    /// Returns the address to pass to the system: null where it is to choose.
    #[must_use]
    pub fn pointer(self) -> *mut c_void {
        match self {
            Self::Anywhere | Self::Aligned(_) => core::ptr::null_mut(),
            Self::Exact(addr) | Self::Hint(addr) => core::ptr::without_provenance_mut(addr),
            Self::Over(range) => pointer(range),
        }
    }
}

/// The calls that have the same form on many systems.
///
/// # Safety
///
/// An implementation promises that each call does what its description says, replaces no mapping,
/// changes nothing where it fails, and does not allocate by the global allocator.
///
/// Every `unsafe` call asks of the caller that the range is the caller's, in the state that the
/// call starts from, and that no other code uses memory that the call takes away.
pub unsafe trait Calls: Clock + Copy {
    /// Returns the page size.
    fn page_size(&self) -> PageSize;

    /// Maps `len` bytes of fresh private memory where the system likes, and returns where.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn map_fresh(&self, len: usize, access: Access) -> Result<*mut c_void, Error>;

    /// Unmaps.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    unsafe fn unmap(&self, range: PageRange) -> Result<(), Error>;

    /// Changes the access of committed pages; see [`PageProvider::protect`].
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    ///
    /// [`PageProvider::protect`]: crate::provider::PageProvider::protect
    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error>;

    /// Keeps a range out of forked children.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    unsafe fn hide_from_children(&self, range: PageRange) -> Result<(), Error>;

    /// Gives memory of committed pages back; see [`PageProvider::purge`].
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    ///
    /// [`PageProvider::purge`]: crate::provider::PageProvider::purge
    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error>;

    /// Returns bytes that are fit for keys; see [`PageProvider::random_key`].
    ///
    /// [`PageProvider::random_key`]: crate::provider::PageProvider::random_key
    fn random_key(&self) -> Option<[u8; 32]>;
}

/// The calls of a system for pages, and what its answers mean.
///
/// # Safety
///
/// An implementation promises that
/// - each call does what its description says, and replaces no mapping but the one it is given;
/// - a call that fails changes nothing, except that one that replaces a range may have unmapped it,
///   where [`System::unmaps_nothing`] does not say otherwise;
/// - no call allocates by the global allocator.
///
/// Every `unsafe` call asks of the caller that the range is the caller's, in the state that the
/// call starts from, and that no other code uses memory that the call takes away.
///
/// [`ProcessMap::address_space`] need not tell the addresses that a mapping can have:
/// [`SystemProvider`](super::SystemProvider) does, by [`System::last_address`].
pub unsafe trait System: ProcessMap + Copy + Debug + 'static {
    /// The calls that it shares with other systems, or has by itself.
    type Calls: Calls;

    /// What the process map says of a view of a dual mapping.
    const VIEW: MapFlags = MapFlags::SHARED.union(MapFlags::OBJECT);

    /// Whether fresh memory that is mapped where the system likes is what a reservation is after it
    /// was committed with the host's pages, so that one call does for both.
    const RESERVES_COMMITTED: bool = false;

    /// Returns the calls.
    fn calls(&self) -> Self::Calls;

    /// Returns which of `wanted` the system can do now.
    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities;

    /// Maps a reservation of `len` bytes, and returns where.
    ///
    /// # Errors
    ///
    /// What the system says; [`ErrorKind::Unsupported`] for [`At::Aligned`] where it takes no
    /// alignments.
    ///
    /// # Safety
    ///
    /// The conditions of the trait, for the range of [`At::Over`].
    unsafe fn map_reserved(&self, len: usize, at: At) -> Result<*mut c_void, Error>;

    /// Maps fresh private memory of the host's pages over a reservation.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    unsafe fn map_committed(&self, range: PageRange, how: Commit) -> Result<(), Error>;

    /// Gives pages memory; see [`PageProvider::commit`]. By default by mapping over, with the
    /// host's pages.
    ///
    /// # Errors
    ///
    /// What the system says; [`ErrorKind::Unsupported`] where it has no such pages.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    ///
    /// [`PageProvider::commit`]: crate::provider::PageProvider::commit
    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if let PageWish::Large { or_base: false, .. } = how.pages {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: the caller's range is reserved, and no other code uses it.
        unsafe { commit_over(self, range, how)? };
        Ok(self.calls().page_size())
    }

    /// Moves memory; see [`PageProvider::move_pages`]. Most systems cannot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the system cannot.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    ///
    /// [`PageProvider::move_pages`]: crate::provider::PageProvider::move_pages
    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        let _ = (from, to);
        Err(ErrorKind::Unsupported.into())
    }

    /// Names a range, and says whether it belongs in a core file: advice, which is passed by by
    /// default.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        let _ = (range, name, dump);
    }

    /// Advises whether large pages are welcome in a range; passed by by default.
    ///
    /// # Safety
    ///
    /// The conditions of the trait.
    unsafe fn advise(&self, range: PageRange, wish: PageWish) {
        let _ = (range, wish);
    }

    /// Returns how much of a limited resource is left; see [`PageProvider::left`].
    ///
    /// [`PageProvider::left`]: crate::provider::PageProvider::left
    fn left(&self, of: Resource) -> Option<usize>;

    /// Returns the size of the pages that [`PageWish::Transparent`] asks for.
    fn large_page(&self) -> PageSize {
        self.calls().page_size().of_table()
    }

    /// Returns the last address that a user mapping can have; `None` where that cannot be found
    /// out.
    fn last_address(&self) -> Option<usize>;

    /// Returns the first address that a user mapping can have. By default the second page's: the
    /// first has none, so that null pointers fault.
    fn first_address(&self) -> usize {
        self.calls().page_size().bytes()
    }

    /// Returns what a user mapping can have of a window; `None` for nothing.
    fn within_user_addresses(&self, window: AddressRange) -> Option<AddressRange> {
        window.intersect(mappable(self).unwrap_or(AddressRange::ALL))
    }

    /// Says whether an exact place that was refused by this error may be in use, or not be there at
    /// all: [`refused`](super::refused) then finds out which.
    fn may_be_taken(&self, error: Error) -> bool;

    /// Returns what it means that a mapping at an exact place came to lie elsewhere; `None` where
    /// the reason is to be found out. By default the place is in use.
    fn elsewhere(&self) -> Option<Error> {
        Some(ErrorKind::Taken.into())
    }

    /// Says whether a mapping that was refused by this error was refused for its length, which no
    /// address space has.
    fn is_too_long(&self, error: Error) -> bool;

    /// Says whether a call that fails by this error fails before it unmaps the range that it
    /// replaces, or undoes that. By default policy is asked before.
    fn unmaps_nothing(&self, call: Call, error: Error) -> bool {
        let _ = call;
        error.kind() == ErrorKind::Denied
    }

    /// Says whether a call that replaces `len` bytes failed by this error because the process is at
    /// a limit that is looked at before anything is unmapped. By default it is the limit of
    /// addresses, where as much cannot be mapped anywhere.
    fn is_at_limit(&self, len: usize, error: Error) -> bool {
        let _ = error;
        !can_map(self, len)
    }
}
