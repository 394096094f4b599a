//! The ways to map a block: twice, or once with pages that are toggled or writable and executable.

use crate::{
    jit::{CodeProvider, JitAllocator, LargePages, Mapping, Mappings, views::Views},
    page::{Access, Ceiling, PageRange, RwxOptIn},
    provider::{
        Capabilities, Commit, DualError, DualRequest, DualView, Error, ErrorKind, PageProvider,
        PageWish, Placement, Request, Target,
    },
    sync::RawMutex,
};
use core::sync::atomic::{AtomicBool, Ordering};

/// How blocks are mapped, as far as it is known.
pub(in crate::jit) struct Kind {
    first: Way,
    /// Whether the way is not what was wanted first.
    fell_back: AtomicBool,
}

/// A way to map a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jit) enum Way {
    Dual,
    Toggle,
    ReadWriteExec(RwxOptIn),
}

/// What a block is to be mapped as.
struct Wish {
    /// Bytes, at most.
    len: usize,
    /// Bytes that will do.
    least: usize,
    /// Where the executable view goes.
    rx: Placement,
    /// What both views are aligned to by the pages they are to have.
    align: usize,
    pages: PageWish,
}

impl Way {
    /// Says whether a host that toggles may be asked for single mappings after it refused one of
    /// this way. Not for want of a place, which single ones have no more of, nor of memory or
    /// descriptors, which there may be later; but where a strategy was refused, what is short for
    /// another, as room in a file system, is no reason to wait.
    pub(in crate::jit) fn may_fall_back(self, wanted: Mapping, error: &DualError) -> bool {
        let short = |error: Error| error.kind() == ErrorKind::Exhausted;
        let refused = if error.steps().next().is_some() {
            error.steps().any(|(_, error)| !short(error))
        } else {
            !short(error.cause())
        };
        let is_auto = wanted == Mapping::Auto && self == Self::Dual;
        is_auto && refused && error.unplaced().is_none()
    }
}

impl Kind {
    /// Returns what [`Kind::choose`] looks at.
    pub(in crate::jit) const fn looked_at(wanted: Mapping) -> Capabilities {
        match wanted {
            Mapping::Dual => Capabilities::DUAL,
            Mapping::Toggle => Capabilities::TOGGLE_EXEC,
            Mapping::Auto => Capabilities::DUAL.union(Capabilities::TOGGLE_EXEC),
            Mapping::ReadWriteExec(_) => Capabilities::RWX,
        }
    }

    /// Chooses by what the provider says it can; `None` where it says it cannot.
    pub(in crate::jit) fn choose(wanted: Mapping, able: Capabilities) -> Option<Self> {
        let (dual, toggle) = (
            able.contains(Capabilities::DUAL),
            able.contains(Capabilities::TOGGLE_EXEC),
        );
        let first = match wanted {
            Mapping::Dual | Mapping::Auto if dual => Way::Dual,
            Mapping::Toggle | Mapping::Auto if toggle => Way::Toggle,
            Mapping::ReadWriteExec(opt_in) if able.contains(Capabilities::RWX) => {
                Way::ReadWriteExec(opt_in)
            }
            _ => return None,
        };
        Some(Self {
            first,
            fell_back: AtomicBool::new(false),
        })
    }

    /// Returns the way in use.
    #[inline]
    pub(in crate::jit) fn way(&self) -> Way {
        if self.fell_back.load(Ordering::Relaxed) {
            Way::Toggle
        } else {
            self.first
        }
    }

    /// Returns the way in use as a configuration would ask for it.
    pub(in crate::jit) fn mapping(&self, wanted: Mapping) -> Mapping {
        match (self.way(), wanted) {
            (Way::Dual, _) => Mapping::Dual,
            (Way::Toggle, _) => Mapping::Toggle,
            (Way::ReadWriteExec(_), wanted) => wanted,
        }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitAllocator<P, M, R> {
    /// Maps between the two lengths, the longer one first: as much as there is room for, as in a
    /// window full of foreign mappings, or memory.
    pub(super) fn map_at_most(
        &self,
        mappings: &mut Mappings,
        shift: u32,
        lens: (usize, usize),
        placement: Placement,
    ) -> Result<Views, DualError> {
        let outside = Error::of(ErrorKind::OutsideRange);
        let rx = self.rx_placement(placement, 1 << shift);
        let rx = rx.ok_or(DualError::unplaceable(DualView::Rx, outside))?;
        let error = match self.map_halving(self.kind.way(), lens, rx) {
            Err(error) if self.may_fall_back(&error) => error,
            result => return result,
        };
        let views = self.map_halving(Way::Toggle, lens, rx)?;
        mappings.refused = Some(error);
        self.kind.fell_back.store(true, Ordering::Relaxed);
        Ok(views)
    }

    /// Maps one way; where memory is short, half as much and so on down to `least`. What room there
    /// is for the views the provider finds out by itself, once.
    fn map_halving(
        &self,
        way: Way,
        (most, least): (usize, usize),
        rx: Placement,
    ) -> Result<Views, DualError> {
        let mut len = most;
        loop {
            match self.map_views(way, len, least, rx) {
                Err(error) if error.is_shortage() && len > least => {
                    len = self.page.round_down(len / 2).max(least);
                }
                result => return result,
            }
        }
    }

    /// Says whether single mappings may take the place of dual ones that were refused. Never after
    /// the host gave a dual one: all blocks are mapped the same way.
    fn may_fall_back(&self, error: &DualError) -> bool {
        let wanted = self.config.mapping_wanted();
        self.index.block(0).is_none()
            && self.kind.way().may_fall_back(wanted, error)
            && self
                .provider
                .capabilities_among(Capabilities::TOGGLE_EXEC)
                .contains(Capabilities::TOGGLE_EXEC)
    }

    fn map_views(
        &self,
        way: Way,
        len: usize,
        least: usize,
        rx: Placement,
    ) -> Result<Views, DualError> {
        let large = self.config.large_pages_wanted().bytes();
        let wishes = match self.config.large_pages_wanted() {
            LargePages::Never => [Some(PageWish::Base), None],
            // Toggling protects the host's pages one by one.
            _ if way == Way::Toggle || !len.is_multiple_of(large) => {
                [Some(PageWish::Transparent), None]
            }
            _ => [
                Some(PageWish::Large {
                    bytes: large,
                    or_base: false,
                }),
                Some(PageWish::Transparent),
            ],
        };
        let mut result = Err(DualError::of(ErrorKind::Unsupported));
        // A shorter block would take the addresses of a large page, and have none.
        let align = if len < large { 1 } else { large };
        for pages in wishes.into_iter().flatten() {
            let unit = match pages {
                PageWish::Large { bytes, .. } => bytes,
                _ => 1,
            };
            let wish = Wish {
                len,
                least: least.next_multiple_of(unit).min(len),
                rx: Placement {
                    align: rx.align.max(align),
                    ..rx
                },
                align,
                pages,
            };
            result = match way {
                Way::Dual => self.map_dual(&wish),
                Way::Toggle => self.map_single(&wish, Access::ReadExec, Ceiling::WriteXorExec),
                Way::ReadWriteExec(ok) => {
                    self.map_single(&wish, Access::ReadWriteExec(ok), Ceiling::ReadWriteExec(ok))
                }
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Returns where an executable view goes: where the configuration says and the request too.
    fn rx_placement(&self, placement: Placement, granule: usize) -> Option<Placement> {
        let mut rx = self.config.rx_placement();
        rx.within = rx.within.intersect(placement.within)?;
        // Granules may be longer than a page.
        rx.align = rx.align.max(granule);
        let unit = self.config.block_size_bytes();
        if self.ordered && rx.within.start().is_multiple_of(unit) {
            // On the grid that alloc_at goes by.
            rx.align = rx.align.max(unit);
        }
        if placement.place != Placement::ANYWHERE.place {
            rx.place = placement.place;
        }
        Some(rx)
    }

    fn map_dual(&self, wish: &Wish) -> Result<Views, DualError> {
        let mut rw = self.config.rw_placement();
        rw.align = rw.align.max(wish.align);
        let request = DualRequest {
            len: wish.len,
            min_len: Some(wish.least),
            rw: Target::Find(rw),
            rx: Target::Find(wish.rx),
            pages: wish.pages,
            landing_pads: self.config.wants_landing_pads(),
            fork: self.config.fork_policy(),
            name: Some(self.config.block_name()),
        };
        // SAFETY: neither target is a range of ours.
        unsafe { self.provider.map_dual(&request) }.map(Views::Dual)
    }

    fn map_single(
        &self,
        wish: &Wish,
        access: Access,
        ceiling: Ceiling,
    ) -> Result<Views, DualError> {
        let failed = |error: Error| DualError::from(error);
        let request = Request::bytes(wish.len)
            .at_least(wish.least)
            .placement(wish.rx)
            .name(self.config.block_name());
        // As little as will do was asked for: half as much would not be had either.
        let unplaced = |error| DualError::unplaceable(DualView::Rx, error);
        let mut range = self.provider.reserve(&request).map_err(unplaced)?;
        if let PageWish::Large { bytes, .. } = wish.pages {
            range = self.cut_to_whole(range, bytes);
        }
        let pages = wish.pages;
        let how = Commit {
            access,
            ceiling,
            pages,
        };
        // SAFETY: the range was just reserved, and is ours.
        match unsafe { self.provider.commit(range, how) } {
            Ok(page) => Ok(Views::Single(range, page)),
            Err(error) => {
                // SAFETY: reserved just now, and no other code has its address. If this fails too,
                // addresses are wasted, no more.
                let _ = unsafe { self.provider.release(range) };
                Err(failed(error))
            }
        }
    }

    /// Gives back what a range has beyond a multiple of `unit` bytes.
    fn cut_to_whole(&self, range: PageRange, unit: usize) -> PageRange {
        let len = range.len_bytes() - range.len_bytes() % unit;
        let (whole, tail) = (
            range.part(0, len, self.page),
            range.part(len, range.len_bytes() - len, self.page),
        );
        let (Some(whole), Some(tail)) = (whole, tail) else {
            return range;
        };
        // SAFETY: reserved just now, and used by no other code. A failure wastes addresses.
        let _ = unsafe { self.provider.release(tail) };
        whole
    }
}
