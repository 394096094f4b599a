//! What can be asked of a provider, and the one place where requests are validated.

mod commit;
mod plan;

pub use commit::{Commit, PageWish, Purged};
pub use plan::Plan;

use super::Error;
#[cfg(doc)]
use super::ErrorKind;
use crate::page::{AddressRange, PageSize};
use core::ffi::CStr;

/// Which place is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Any place.
    Anywhere,
    /// The free place closest to this address.
    Near(usize),
    /// This address if it is free, else any place.
    Hint(usize),
    /// This address or none. Never replaces what is there.
    Exact(usize),
}

/// Where a range may lie. The addresses in [`Place`] mean the start of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The alignment in bytes of the first byte behind the leading guard: a power of two.
    pub align: usize,
    /// The range keeps inside these addresses, its guards too.
    pub within: AddressRange,
    /// Which place inside them.
    pub place: Place,
}

impl Placement {
    /// Anywhere at all.
    pub const ANYWHERE: Self = Self {
        align: 1,
        within: AddressRange::ALL,
        place: Place::Anywhere,
    };

    /// Anywhere within `range`.
    #[must_use]
    pub const fn within(range: AddressRange) -> Self {
        Self {
            within: range,
            ..Self::ANYWHERE
        }
    }

    /// As low as can be within `range`.
    #[must_use]
    pub const fn lowest(range: AddressRange) -> Self {
        Self {
            within: range,
            place: Place::Near(range.start()),
            ..Self::ANYWHERE
        }
    }

    /// As close to `anchor` as can be, at most `reach` bytes from it: what a relative branch needs.
    #[must_use]
    pub const fn near(anchor: usize, reach: usize) -> Self {
        Self {
            align: 1,
            within: AddressRange::around(anchor, reach),
            place: Place::Near(anchor),
        }
    }
}

/// Bytes at both ends of a reservation that stay inaccessible; rounded up to pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Bytes before the usable part.
    pub before: usize,
    /// Bytes after the usable part.
    pub after: usize,
}

/// Whether a range belongs in a core file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dump {
    /// As the host does with any mapping. Untouched reservations are not written out anyway.
    #[default]
    Default,
    /// Left out, where the host can. On Linux this costs: the mapping no longer merges with its
    /// neighbours. It holds for pages as long as they are not replaced: a decommit, and a commit of
    /// large pages or of executable ones, put others in their place, which do not have it.
    Excluded,
}

/// A request for addresses.
///
/// ```
/// use hostmem_core::{page::AddressRange, provider::{Place, Request}};
/// let low = Request::bytes(1 << 20).align(1 << 16).within(AddressRange::LOW_4G).name(c"low");
/// assert_eq!(low.len, 1 << 20);
/// assert_eq!(low.placement.place, Place::Anywhere);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Usable bytes, rounded up to pages; not zero.
    pub len: usize,
    /// The fewest usable bytes that will do, rounded up to pages; `None` for no fewer than `len`.
    /// What is reserved is the longest hole between the two, so that a caller who can do with less
    /// needs to ask once.
    pub min_len: Option<usize>,
    /// Where.
    pub placement: Placement,
    /// What stays inaccessible around the usable bytes.
    pub guards: Guards,
    /// Whether it belongs in a core file.
    pub dump: Dump,
    /// A name for the process map, where the host keeps names: printable ASCII but for ``\\`$[]``,
    /// 79 bytes at most; others are left out. A named range is a mapping of its own. The name goes
    /// with the pages when they are replaced: by a decommit, and by a commit of large pages or
    /// executable ones.
    pub name: Option<&'a CStr>,
}

impl<'a> Request<'a> {
    /// Asks for `len` bytes anywhere.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            min_len: None,
            placement: Placement::ANYWHERE,
            guards: Guards {
                before: 0,
                after: 0,
            },
            dump: Dump::Default,
            name: None,
        }
    }

    /// Settles for as few as `min_len` usable bytes where no hole is longer.
    #[must_use]
    pub const fn at_least(mut self, min_len: usize) -> Self {
        self.min_len = Some(min_len);
        self
    }

    /// Asks for an alignment of `align` bytes.
    #[must_use]
    pub const fn align(mut self, align: usize) -> Self {
        self.placement.align = align;
        self
    }

    /// Asks for a place within `range`.
    #[must_use]
    pub const fn within(mut self, range: AddressRange) -> Self {
        self.placement.within = range;
        self
    }

    /// Asks for a place.
    #[must_use]
    pub const fn place(mut self, place: Place) -> Self {
        self.placement.place = place;
        self
    }

    /// Asks for a placement: alignment, range and place.
    #[must_use]
    pub const fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Asks for inaccessible bytes around the usable ones.
    #[must_use]
    pub const fn guards(mut self, before: usize, after: usize) -> Self {
        self.guards = Guards { before, after };
        self
    }

    /// Asks that the range stays out of core files.
    #[must_use]
    pub const fn exclude_from_dump(mut self) -> Self {
        self.dump = Dump::Excluded;
        self
    }

    /// Names the range.
    #[must_use]
    pub const fn name(mut self, name: &'a CStr) -> Self {
        self.name = Some(name);
        self
    }

    /// Validates the request for a host with pages of `page`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length of zero, a least length of zero or above the
    /// length, an overflow, an alignment that is not a power of two or an exact place that is null
    /// or misaligned; [`ErrorKind::OutsideRange`] for an exact place that does not lie within the
    /// range asked for.
    pub fn plan(&self, page: PageSize) -> Result<Plan, Error> {
        let plan = Plan::new(self, page);
        match self.placement.place {
            Place::Exact(base) => plan?.placed(base),
            _ => plan,
        }
    }
}

/// Says whether a host with names of mappings takes this one: see [`Request::name`].
#[must_use]
pub fn is_mapping_name(name: &CStr) -> bool {
    /// Bytes of a name, the zero at its end included, that Linux takes (`PR_SET_VMA(2const)`).
    const MOST: usize = 80;
    let known = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\\`$[]".contains(byte);
    name.count_bytes() < MOST && name.to_bytes().iter().all(known)
}
