//! How pages get the access they keep.

use super::{CraneliftMemory, FORK, NAME};
use hostmem::{
    arch,
    jit::Mapping,
    page::{Access, Ceiling, PageRange},
    provider::{
        Capabilities, Commit, DualError, DualMapProvider, DualRequest, Error, ErrorKind,
        PageProvider, PageWish, Target,
    },
};
use std::{ptr::NonNull, slice};

/// How data is committed.
pub(super) const DATA: Commit = Commit::READ_WRITE;

/// How code becomes executable.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// An executable view is put in its place.
    Dual {
        /// Whether toggling may be tried if the host refuses that.
        or_toggle: bool,
    },
    /// It is made executable.
    Toggle,
}

impl Way {
    /// Chooses by what the provider says it can.
    pub(super) fn choose(wanted: Mapping, able: Capabilities) -> Result<Self, ErrorKind> {
        let toggle = able.contains(Capabilities::TOGGLE_EXEC);
        match wanted {
            Mapping::ReadWriteExec(_) => Err(ErrorKind::InvalidArgument),
            Mapping::Dual | Mapping::Auto if able.contains(Capabilities::DUAL) => Ok(Self::Dual {
                or_toggle: wanted == Mapping::Auto && toggle,
            }),
            Mapping::Toggle | Mapping::Auto if toggle => Ok(Self::Toggle),
            _ => Err(ErrorKind::Unsupported),
        }
    }

    /// Returns the way as it would be asked for.
    pub(super) const fn mapping(self) -> Mapping {
        match self {
            Self::Dual { .. } => Mapping::Dual,
            Self::Toggle => Mapping::Toggle,
        }
    }

    /// Returns how code is committed that will become executable this way.
    pub(super) const fn commit(self) -> Commit {
        Commit {
            access: Access::ReadWrite,
            ceiling: match self {
                Self::Dual { or_toggle: false } => Ceiling::ReadWrite,
                Self::Dual { or_toggle: true } | Self::Toggle => Ceiling::WriteXorExec,
            },
            pages: PageWish::Base,
        }
    }
}

impl<P: PageProvider + DualMapProvider> CraneliftMemory<P> {
    /// Gives everything that was written the access that it keeps. May be called again after a
    /// failure.
    pub(super) fn seal(&mut self, landing_pads: bool) -> Result<(), Error> {
        if self.region.is_none() {
            return Err(ErrorKind::RangeLost.into());
        }
        let page = self.provider.page_size();
        if let Some(open) = self.read_only.open(page) {
            self.seal_read_only(open)?;
        }
        if let Some(open) = self.code.open(page) {
            self.seal_code(open, landing_pads)?;
        }
        Ok(())
    }

    /// Takes the right to write from read-only data.
    fn seal_read_only(&mut self, open: PageRange) -> Result<(), Error> {
        // SAFETY: the pages are committed. cranelift-jit writes to them no more, once it finalizes.
        unsafe { self.provider.protect(open, Access::Read) }?;
        self.read_only.seal(open);
        Ok(())
    }

    /// Makes code executable, and visible to instruction fetches. Other cores cannot have fetched
    /// from there: nothing was executable there before.
    fn seal_code(&mut self, open: PageRange, landing_pads: bool) -> Result<(), Error> {
        if let Way::Dual { or_toggle } = self.way {
            match self.seal_dual(open, landing_pads) {
                Ok(()) => {}
                Err(error) if or_toggle && self.may_toggle_instead(error) => self.way = Way::Toggle,
                Err(error) => return Err(error),
            }
        }
        if let Way::Toggle = self.way {
            // SAFETY: the pages are committed, to be toggled. cranelift-jit writes to them no more.
            unsafe { self.provider.protect(open, Access::ReadExec) }?;
        }
        // SAFETY: the pages are mapped, and readable.
        unsafe { arch::publish_code(open.start().as_ptr(), open.len_bytes()) };
        self.code.seal(open);
        Ok(())
    }

    /// Says whether pages that could not be replaced may be toggled: they are as they were, and
    /// all code is mapped one way.
    fn may_toggle_instead(&self, error: Error) -> bool {
        self.region.is_some() && self.mappings.is_empty() && error.kind() != ErrorKind::Exhausted
    }

    /// Puts the executable view of a copy in the place of `open`. A failure leaves the pages as
    /// they were, or, where not even that can be done, no region.
    fn seal_dual(&mut self, open: PageRange, landing_pads: bool) -> Result<(), Error> {
        let able = self.provider.capabilities();
        // SAFETY: the pages are committed, so they can be read; no other code writes them
        // meanwhile.
        let bytes = unsafe { slice::from_raw_parts(open.start().as_ptr(), open.len_bytes()) };
        let contents = Vec::from(bytes);
        self.mappings.reserve(1);
        // SAFETY: committed, and the contents are saved. cranelift-jit does not look at them now.
        unsafe { self.provider.decommit(open) }.inspect_err(|error| self.note_loss(*error))?;
        let request = DualRequest {
            rx: Target::Into(open),
            landing_pads: landing_pads && able.contains(Capabilities::LANDING_PADS),
            fork: FORK,
            name: Some(NAME),
            ..DualRequest::bytes(open.len_bytes())
        };
        // SAFETY: the target is reserved since the line above, and no other code uses it.
        match unsafe { self.provider.map_dual(&request) } {
            Ok(mapping) => {
                // SAFETY: the writable view is as long as the pages, and no other code's.
                unsafe { fill(mapping.rw().start(), &contents) };
                self.mappings.push(mapping);
                Ok(())
            }
            Err(error) => Err(self.put_back(open, &contents, &error)),
        }
    }

    /// Makes the pages again what they were before they were decommitted. Returns why.
    fn put_back(&mut self, open: PageRange, contents: &[u8], why: &DualError) -> Error {
        if why.lost().is_some() {
            self.region = None;
            return why.cause();
        }
        // SAFETY: the pages were decommitted, and the failure changed nothing.
        match unsafe { self.provider.commit(open, self.way.commit()) } {
            // SAFETY: the pages are committed, readable and writable, and no other code's.
            Ok(_) => unsafe { fill(open.start(), contents) },
            // The code is gone.
            Err(_) => self.region = None,
        }
        why.cause()
    }

    /// Forgets the region where a part of it is somebody else's.
    fn note_loss(&mut self, error: Error) {
        if error.kind() == ErrorKind::RangeLost {
            self.region = None;
        }
    }
}

/// Copies `contents` to `to`.
///
/// # Safety
///
/// As many bytes there can be written, and belong to no other code.
unsafe fn fill(to: NonNull<u8>, contents: &[u8]) {
    let from = NonNull::from(contents).cast();
    // SAFETY: as many bytes can be written there, and belong to no other code, by this function's
    // condition; the contents are a copy of their own, so that nothing overlaps.
    unsafe { to.copy_from_nonoverlapping(from, contents.len()) };
}
