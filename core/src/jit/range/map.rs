//! How the views of a code range come and go.

use super::{CodeRange, CodeRangeConfig, Hull};
use crate::{
    atomic::{AtomicBool, Ordering},
    jit::{
        CodeProvider, JitError,
        mapping::{Kind, Way},
        views::Views,
    },
    page::{Access, Ceiling, PageRange},
    provider::{
        Capabilities, Commit, DualError, DualMapping, DualRequest, DualView, Error, ErrorKind,
        Leave, PageWish, Request, Target,
    },
};
use core::ops::Range;

/// An executable view that is reserved, and the guards around it.
struct Place {
    whole: PageRange,
    body: PageRange,
    guards: [Option<PageRange>; 2],
}

impl<P: CodeProvider + Default> CodeRange<P> {
    /// Makes a code range on a provider that needs no arguments, such as an operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`CodeRange::on`].
    pub fn new(config: CodeRangeConfig) -> Result<Self, JitError> {
        Self::on(P::default(), config)
    }
}

impl<P: CodeProvider> CodeRange<P> {
    /// Makes a code range on a provider.
    ///
    /// # Errors
    ///
    /// [`JitError::Config`] for a configuration with a value out of its range;
    /// [`JitError::Unsupported`] for a mapping that the provider does not have; [`JitError::Map`]
    /// where there is no place for it, or no memory.
    pub fn on(provider: P, config: CodeRangeConfig) -> Result<Self, JitError> {
        config.check().map_err(JitError::Config)?;
        let wanted = Kind::looked_at(config.mapping) | Capabilities::CORE_SYNC;
        let wanted = wanted | Capabilities::TOGGLE_EXEC;
        let able = provider.capabilities_among(wanted);
        let first = Kind::choose(config.mapping, able).ok_or(JitError::Unsupported)?;
        let page = provider.page_size();
        let unit = match config.pages {
            PageWish::Large { bytes, .. } => page.bytes().max(bytes),
            _ => page.bytes(),
        };
        let len = config.len.checked_next_multiple_of(unit);
        let len = len.ok_or(JitError::InvalidSize)?;
        let mut way = first.way();
        let mut mapped = map(&provider, &config, way, len);
        let toggles = able.contains(Capabilities::TOGGLE_EXEC);
        if matches!(&mapped, Err(e) if toggles && way.may_fall_back(config.mapping, e)) {
            way = Way::Toggle;
            mapped = map(&provider, &config, way, len);
        }
        let (views, guards) = mapped.map_err(JitError::Map)?;
        Ok(Self {
            syncs_cores: able.contains(Capabilities::CORE_SYNC),
            provider,
            views: Some(views),
            guards,
            way,
            page,
            lost: AtomicBool::new(false),
            foreign: AtomicBool::new(false),
            open: Hull::new(),
            purged: Hull::new(),
            ready: Hull::new(),
            published: Hull::new(),
            owed: AtomicBool::new(false),
        })
    }

    /// Gives both ends of the range back to the host, but for what lies in `kept`: their memory and
    /// their addresses. Offsets count from `kept.start` afterwards. Guards stay as long as they
    /// were, and lie around what is kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`], with nothing changed, where `kept` is empty, is no part of
    /// the range, or does not begin and end at pages of [`CodeRange::page_size`];
    /// [`ErrorKind::Denied`] in a forked child that lost a view. What the host says where it does
    /// not give up a part: that end stays, and the call may be made again.
    ///
    /// # Safety
    ///
    /// No thread reads, writes or executes what goes.
    pub unsafe fn shrink(&mut self, kept: Range<usize>) -> Result<(), Error> {
        let (size, len) = (self.page_size(), self.len_bytes());
        let whole = size.is_aligned(kept.start) && size.is_aligned(kept.end);
        if !whole || kept.start >= kept.end || kept.end > len {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if self.lost.load(Ordering::Relaxed) {
            return Err(ErrorKind::Denied.into());
        }
        if kept.end < len {
            // SAFETY: the caller promises that no thread uses what lies behind `kept`.
            unsafe { self.cut(kept.end..len, 1)? };
            self.keep(&(0..kept.end));
        }
        if kept.start > 0 {
            // SAFETY: the caller promises that no thread uses what lies before `kept`.
            unsafe { self.cut(0..kept.start, 0)? };
            self.keep(&kept);
        }
        Ok(())
    }

    /// Forgets what was noted of pages that are gone; offsets count from `kept.start` from now on.
    fn keep(&self, kept: &Range<usize>) {
        for hull in [&self.open, &self.purged, &self.ready, &self.published] {
            let noted = hull.get();
            let now = |offset: usize| offset.clamp(kept.start, kept.end) - kept.start;
            hull.set(now(noted.start)..now(noted.end));
        }
    }

    /// Takes an end of the range off; `side` is that of its guard.
    ///
    /// # Safety
    ///
    /// `part` is whole pages at that end, not all of the range, and no thread uses them.
    unsafe fn cut(&mut self, part: Range<usize>, side: usize) -> Result<(), Error> {
        let guard = self.guards[side].map_or(0, PageRange::len_bytes);
        let leave = if guard == 0 {
            Leave::Hole
        } else {
            Leave::Reserved
        };
        let rest = if side == 0 {
            part.end..self.len_bytes()
        } else {
            0..part.start
        };
        let page = self.page;
        let parts = |view: PageRange| {
            let (left, gone) = (rest.clone(), part.clone());
            let left = view.part(left.start, left.len(), page);
            left.zip(view.part(gone.start, gone.len(), page))
        };
        let invalid = Error::of(ErrorKind::InvalidArgument);
        let views = self.views.as_mut().ok_or(invalid)?;
        let (left, gone) = parts(views.rx()).ok_or(invalid)?;
        match views {
            Views::Single(range, _) => {
                match leave {
                    // SAFETY: an end of this range that no thread uses.
                    Leave::Hole => unsafe { self.provider.release(gone)? },
                    // SAFETY: committed pages of this range that no thread uses.
                    Leave::Reserved => unsafe { self.provider.decommit(gone)? },
                }
                *range = left;
            }
            Views::Dual(mapping) => {
                let (rw_left, rw_gone) = parts(mapping.rw()).ok_or(invalid)?;
                // SAFETY: views of the mapping at the same offsets; the whole's token is used again
                // only where this one, which is not unmapped then, is not.
                let end = unsafe { part_of(mapping, rw_gone, gone) };
                // SAFETY: views of the mapping at the same offsets; it takes the whole's place once
                // the end is unmapped.
                let kept = unsafe { part_of(mapping, rw_left, left) };
                // SAFETY: the mapping came from this provider, which unmaps parts, too; no thread
                // uses this one.
                if let Err((_, error)) = unsafe { self.provider.unmap_dual(end, leave) } {
                    if error.kind() == ErrorKind::RangeLost {
                        *mapping = kept; // The end is somebody else's.
                    }
                    return Err(error);
                }
                *mapping = kept;
                if leave == Leave::Reserved {
                    // SAFETY: reserved just now, and used by no thread. A failure wastes addresses.
                    let _ = unsafe { self.provider.release(rw_gone) };
                }
            }
        }
        if let Some(old) = self.guards[side] {
            self.guards[side] = self.moved_guard(old, gone, side);
        }
        Ok(())
    }

    /// Makes a guard of the part of `gone`, which is reserved, next to the rest of the range; gives
    /// what lies beyond back, the old guard too.
    fn moved_guard(&self, old: PageRange, gone: PageRange, side: usize) -> Option<PageRange> {
        let (first, second) = if side == 0 { (old, gone) } else { (gone, old) };
        let all = first.len_bytes() + second.len_bytes();
        // They lie side by side.
        let both = PageRange::new(first.start(), all, self.page)?;
        let (len, beyond) = (old.len_bytes(), all - old.len_bytes());
        let (guard, rest) = if side == 0 { (beyond, 0) } else { (0, len) };
        if let Some(rest) = both.part(rest, beyond, self.page) {
            // SAFETY: reserved by this range, and used by no thread. A failure wastes addresses.
            let _ = unsafe { self.provider.release(rest) };
        }
        both.part(guard, len, self.page)
    }
}

/// Makes the token of a part of a mapping.
///
/// # Safety
///
/// The views are those of the mapping at the same offsets, and its token is not used for them
/// afterwards.
unsafe fn part_of(mapping: &DualMapping, rw: PageRange, rx: PageRange) -> DualMapping {
    let (step, page) = (mapping.step(), mapping.page_size());
    // SAFETY: parts of two views of the same pages, at the same offsets; the caller promises that
    // this is their one token.
    let part = unsafe { DualMapping::from_parts(rw, rx, step, page, mapping.fork()) };
    if mapping.purges() {
        part
    } else {
        part.without_purge()
    }
}

type Mapped = (Views, [Option<PageRange>; 2]);

/// Maps a range one way.
fn map<P: CodeProvider>(
    provider: &P,
    config: &CodeRangeConfig,
    way: Way,
    len: usize,
) -> Result<Mapped, DualError> {
    let placed = |error| DualError::unplaceable(DualView::Rx, error);
    match way {
        Way::Dual if config.guard == 0 => {
            let request = dual_request(config, len, Target::Find(config.rx));
            // SAFETY: neither target is a range of the caller's.
            let mapping = unsafe { provider.map_dual(&request)? };
            Ok((Views::Dual(mapping), [None, None]))
        }
        Way::Dual => {
            let place = reserve(provider, config, len).map_err(placed)?;
            let request = dual_request(config, len, Target::Into(place.body));
            // SAFETY: the executable view's target was reserved just now, and no other code has its
            // address yet.
            match unsafe { provider.map_dual(&request) } {
                Ok(mapping) => Ok((Views::Dual(mapping), place.guards)),
                Err(error) => {
                    let lost = error.lost().is_some();
                    give_back(provider, &place, lost);
                    Err(error)
                }
            }
        }
        Way::Toggle => {
            let pages = match config.pages {
                PageWish::Large { .. } => PageWish::Transparent,
                pages => pages,
            };
            let how = Commit {
                access: Access::ReadExec,
                ceiling: Ceiling::WriteXorExec,
                pages,
            };
            map_once(provider, config, len, how)
        }
        Way::ReadWriteExec(opt_in) => {
            let how = Commit {
                access: Access::ReadWriteExec(opt_in),
                ceiling: Ceiling::ReadWriteExec(opt_in),
                pages: config.pages,
            };
            map_once(provider, config, len, how)
        }
    }
}

fn dual_request(config: &CodeRangeConfig, len: usize, rx: Target) -> DualRequest<'static> {
    DualRequest {
        rx,
        pages: config.pages,
        fork: config.fork,
        name: Some(config.name),
        ..DualRequest::bytes(len)
    }
}

fn map_once<P: CodeProvider>(
    provider: &P,
    config: &CodeRangeConfig,
    len: usize,
    how: Commit,
) -> Result<Mapped, DualError> {
    let placed = |error| DualError::unplaceable(DualView::Rx, error);
    let place = reserve(provider, config, len).map_err(placed)?;
    // SAFETY: reserved just now, and no other code has its address yet.
    match unsafe { provider.commit(place.body, how) } {
        Ok(size) => Ok((Views::Single(place.body, size), place.guards)),
        Err(error) => {
            give_back(provider, &place, error.kind() == ErrorKind::RangeLost);
            Err(error.into())
        }
    }
}

/// Reserves an executable view and its guards.
fn reserve<P: CodeProvider>(
    provider: &P,
    config: &CodeRangeConfig,
    len: usize,
) -> Result<Place, Error> {
    let page = provider.page_size();
    let mut placement = config.rx;
    if let PageWish::Large { bytes, .. } = config.pages {
        placement.align = placement.align.max(bytes);
    }
    let request = Request::bytes(len)
        .placement(placement)
        .guards(config.guard, config.guard)
        .name(config.name);
    let whole = provider.reserve(&request)?;
    let guard = (whole.len_bytes() - len) / 2;
    let part = |from, len| whole.part(from, len, page);
    let Some(body) = part(guard, len) else {
        return Err(ErrorKind::Other.into()); // It is as long as was asked for.
    };
    Ok(Place {
        whole,
        body,
        guards: [part(0, guard), part(guard + len, guard)],
    })
}

/// Gives addresses back that nothing was mapped at; not the body, if another has it.
fn give_back<P: CodeProvider>(provider: &P, place: &Place, is_lost: bool) {
    let whole = [Some(place.whole), None];
    let ranges = if is_lost { &place.guards } else { &whole };
    for range in ranges.iter().flatten() {
        // SAFETY: reserved for this code range, and no other code has their addresses. A failure
        // wastes addresses.
        let _ = unsafe { provider.release(*range) };
    }
}

impl<P: CodeProvider> Drop for CodeRange<P> {
    fn drop(&mut self) {
        let Some(views) = self
            .views
            .take()
            .filter(|_| !self.foreign.load(Ordering::Relaxed))
        else {
            return;
        };
        // There is no one to tell of an error: the views stay mapped, which wastes memory.
        match views {
            // SAFETY: the mapping came from this provider; that no code of a dropped range runs is
            // what callers of that code promised.
            Views::Dual(mapping) => unsafe {
                let _ = self.provider.unmap_dual(mapping, Leave::Hole);
            },
            // SAFETY: reserved from this provider; as above, no code of it runs.
            Views::Single(range, _) => unsafe {
                let _ = self.provider.release(range);
            },
        }
        for guard in self.guards.into_iter().flatten() {
            // SAFETY: reserved for this range, and never used.
            let _ = unsafe { self.provider.release(guard) };
        }
    }
}
