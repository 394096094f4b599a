//! Mappings that grow and shrink, the program's break among them.

use super::{Break, Content, Mapping, PAGE, Space, USER_END, addresses, in_pages};
use crate::elf::Protection;
use hostmem::{
    page::{Access, AddressRange},
    provider::{Error, ErrorKind, PageProvider},
};

impl Space {
    /// Changes the length of a mapping, and moves it if it has to and may.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] where no one mapping has the range; [`ErrorKind::Exhausted`]
    /// where there is no room or no memory.
    pub(crate) fn remap(
        &self,
        range: AddressRange,
        new_len: u32,
        may_move: bool,
    ) -> Result<AddressRange, Error> {
        let held = self.lock();
        let invalid = ErrorKind::InvalidArgument;
        let (found, mapping) = self.map.query(range.start()).ok_or(invalid)?;
        let old_len = range.last() - range.start() + 1;
        let new_len = in_pages(new_len).ok_or(invalid)? as usize;
        if !found.contains_range(range) || mapping.content == Content::Host {
            return Err(invalid.into());
        }
        let resized = AddressRange::from_len(range.start(), new_len).ok_or(invalid)?;
        if new_len <= old_len {
            if let Some(tail) = AddressRange::new(resized.last() + 1, range.last()) {
                self.unmap_held(&held, tail)?;
            }
            return Ok(resized);
        }
        if mapping.content.is_of_file() {
            return Err(ErrorKind::Exhausted.into());
        }
        let tail = AddressRange::new(range.last() + 1, resized.last()).ok_or(invalid)?;
        let fits = tail.last() < USER_END as usize;
        if fits && self.map.ranges(tail).next().is_none() {
            self.map_held(&held, tail, mapping)?;
            return Ok(resized);
        }
        if !may_move {
            return Err(ErrorKind::Exhausted.into());
        }
        let to = self.find_gap(new_len)?;
        if let Some(coarse) = &self.coarse {
            self.map_held(&held, to, mapping)?;
            coarse.move_pages(range.start(), to.start(), old_len)?;
            self.unmap_held(&held, range)?;
            return Ok(to);
        }
        let open = Mapping {
            protection: Protection::READ_WRITE,
            ..mapping
        };
        self.map_held(&held, to, open)?;
        // SAFETY: the guest's committed pages; it alone uses them.
        unsafe { self.os.protect(self.pages(range)?, Access::ReadWrite)? };
        let (from, into) = (self.pages(range)?, self.pages(to)?);
        // SAFETY: both are committed, readable and writable, so long, and do not overlap, since the
        // second was a gap.
        unsafe { into.start().copy_from_nonoverlapping(from.start(), old_len) };
        // SAFETY: as above.
        unsafe { self.os.protect(into, mapping.protection.access())? };
        self.map.insert(to, mapping)?;
        self.unmap_held(&held, range)?;
        Ok(to)
    }

    /// Says where the program's break starts.
    pub(crate) fn set_break(&self, start: u32) {
        *self.lock() = Break { start, now: start };
    }

    /// Moves the program's break, if it can; returns where it is then.
    pub(crate) fn move_break(&self, to: u32) -> u32 {
        let mut held = self.lock();
        let Break { start, now } = *held;
        let page_up = |addr: u32| addr.checked_next_multiple_of(PAGE);
        let (Some(old), Some(new)) = (page_up(now), page_up(to)) else {
            return now;
        };
        let mapping = Mapping {
            content: Content::Break,
            protection: Protection::READ_WRITE,
        };
        let moved = if to < start {
            false
        } else if new > old {
            let free = |range: &AddressRange| self.map.ranges(*range).next().is_none();
            let range = addresses(old, new - old).ok().filter(free);
            range.is_some_and(|range| self.map_held(&held, range, mapping).is_ok())
        } else if new < old {
            let range = addresses(new, old - new);
            range.is_ok_and(|range| self.unmap_held(&held, range).is_ok())
        } else {
            true
        };
        if moved {
            held.now = to;
        }
        held.now
    }
}
