//! The memory of the page map: reservations whose pages are made writable as they are needed, and
//! objects of the arena where little is enough.

use crate::{
    arena::Arena,
    atomic,
    heap::{NAME, error::HeapError, index::Index},
    page::{Access, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, Request},
    sync::RawMutex,
};
use core::{alloc::Layout, ops::Range, ptr::NonNull};

/// Bytes of the window that become writable at once for the first granule of a huge block, at most:
/// those of 512 MiB of addresses.
const NEAR: usize = 64 << 10;

/// The memory of a map, which the holder of the lock of the granules may change.
pub(in crate::heap) struct Leaves {
    /// Leaves that are a reservation each, by address: few, while the root has room for many.
    pub(super) own: Index<PageRange>,
    /// The root, if some of its pages can only be read.
    pub(super) root: Growing,
    /// The window, likewise.
    pub(super) window: Growing,
    /// Whether a window was made, or tried in vain.
    pub(super) is_window_made: bool,
}

/// Memory whose pages are made writable as they are needed.
pub(super) struct Growing {
    /// All of it, if it is a reservation with pages that can only be read.
    pub(super) range: Option<PageRange>,
    /// Bytes that can be written.
    writable: Range<usize>,
}

impl Growing {
    const fn none() -> Self {
        Self {
            range: None,
            writable: 0..0,
        }
    }

    /// Says whether few bytes lie between these and those that can be written.
    pub(super) fn is_near(&self, bytes: &Range<usize>) -> bool {
        let writable = &self.writable;
        self.range.is_none()
            || writable.is_empty()
            || bytes.end.saturating_add(NEAR) > writable.start
                && bytes.start < writable.end.saturating_add(NEAR)
    }

    /// Makes the pages writable that have these bytes, and all between them and those that are.
    pub(super) fn make_writable<M: PageProvider>(
        &mut self,
        provider: &M,
        bytes: Range<usize>,
    ) -> Result<(), Error> {
        let Some(range) = self.range else {
            return Ok(());
        };
        let page = provider.page_size();
        let end = page.round_up(bytes.end).ok_or(ErrorKind::InvalidArgument)?;
        let wanted = page.round_down(bytes.start)..end;
        let old = self.writable.clone();
        if old.is_empty() {
            protect_part(provider, range, wanted.clone())?;
            self.writable = wanted;
            return Ok(());
        }
        if wanted.start < old.start {
            protect_part(provider, range, wanted.start..old.start)?;
            self.writable.start = wanted.start;
        }
        if wanted.end > old.end {
            protect_part(provider, range, old.end..wanted.end)?;
            self.writable.end = wanted.end;
        }
        Ok(())
    }
}

/// Makes pages of a root or a window writable.
fn protect_part<M: PageProvider>(
    provider: &M,
    range: PageRange,
    bytes: Range<usize>,
) -> Result<(), Error> {
    let part = range.part(bytes.start, bytes.len(), provider.page_size());
    let part = part.ok_or(ErrorKind::InvalidArgument)?;
    // SAFETY: committed pages of the map, which are only read meanwhile, as they can be afterwards.
    unsafe { provider.protect(part, Access::ReadWrite) }
}

impl Leaves {
    pub(in crate::heap) const fn new() -> Self {
        Self {
            own: Index::new(),
            root: Growing::none(),
            window: Growing::none(),
            is_window_made: false,
        }
    }

    /// Adds one that is a reservation, unless it is there.
    pub(super) fn note<M: PageProvider + Copy, R: RawMutex>(
        &mut self,
        arena: &Arena<M, R>,
        leaf: PageRange,
    ) -> Result<(), HeapError> {
        let place = self.own.below(leaf.addr());
        if self.own.nth(place) != Some(leaf) {
            self.own.make_room(arena)?;
            self.own.insert(leaf.addr(), leaf);
        }
        Ok(())
    }

    /// Returns the leaves that are a reservation each, by address.
    pub(in crate::heap) const fn own(&self) -> &Index<PageRange> {
        &self.own
    }
}

/// Reserves and commits zeroed memory.
pub(super) fn memory<M: PageProvider>(
    provider: &M,
    bytes: usize,
    how: Commit,
) -> Result<PageRange, Error> {
    let range = provider.reserve(&Request::bytes(bytes).name(NAME))?;
    // SAFETY: reserved just now, and no other code has its address yet.
    match unsafe { provider.commit(range, how) } {
        Ok(_) => Ok(range),
        Err(error) => {
            if error.kind() != ErrorKind::RangeLost {
                // SAFETY: reserved above, and not used yet. An error has no consequence but that
                // the addresses stay reserved.
                let _ = unsafe { provider.release(range) };
            }
            Err(error)
        }
    }
}

/// Allocates `count` atomics in the arena, each zero.
pub(super) fn small<A: Default, M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    count: usize,
) -> Result<NonNull<A>, Error> {
    let layout = Layout::array::<A>(count).map_err(|_| ErrorKind::InvalidArgument)?;
    let first = arena.alloc(layout)?;
    // SAFETY: fresh memory of this layout.
    unsafe { first.write_bytes(0, layout.size()) };
    let first = first.cast::<A>();
    // SAFETY: zeroed just now, and no other code has its address yet.
    unsafe { atomic::init_zeroed(first, count) };
    Ok(first)
}

/// Says whether a host that gave `page`, which is readable, can make it writable: if not, all of a
/// root has to be.
fn can_protect<M: PageProvider>(provider: &M, page: PageRange) -> bool {
    [Access::ReadWrite, Access::Read].iter().all(|access| {
        // SAFETY: committed by the caller, with a ceiling that allows it, and not used by other
        // code yet.
        unsafe { provider.protect(page, *access) }.is_ok()
    })
}

/// Makes a root or a window that is a reservation; says whether its pages must be made writable.
pub(super) fn reserve_readable<M: PageProvider>(
    provider: &M,
    bytes: usize,
) -> Result<(PageRange, bool), Error> {
    let readable = Commit {
        access: Access::Read,
        ..Commit::READ_WRITE
    };
    let page = provider.page_size();
    if let Ok(range) = memory(provider, bytes, readable) {
        let part = range.part(0, page.bytes(), page);
        if part.is_some_and(|part| can_protect(provider, part)) {
            return Ok((range, true));
        }
        // SAFETY: reserved just now, and not used yet. An error has no consequence but that the
        // addresses stay reserved.
        let _ = unsafe { provider.release(range) };
    }
    memory(provider, bytes, Commit::READ_WRITE).map(|range| (range, false))
}
