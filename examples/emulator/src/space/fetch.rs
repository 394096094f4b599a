//! Instructions are read where the guest may execute.

use super::Space;
use crate::{
    access::{Identity, Second},
    interpret::{Code, Fault, Kind, Memory},
};
use core::cell::Cell;
use hostmem::page::AddressRange;

/// Reads instructions, and remembers of which mapping: for a block at a time, since mappings
/// change.
pub(crate) struct Reader<'a> {
    space: &'a Space,
    /// What the guest may execute around the last address.
    range: Cell<Option<AddressRange>>,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(space: &'a Space) -> Self {
        Self {
            space,
            range: Cell::new(None),
        }
    }

    fn half(&self, addr: u32) -> Result<u16, Fault> {
        let fault = Fault {
            addr,
            kind: Kind::Fetch,
        };
        let holds = |range: AddressRange| range.contains(addr as usize);
        if !self.range.get().is_some_and(holds) {
            let (range, mapping) = self.space.query(addr).ok_or(fault)?;
            if !mapping.protection.execute {
                return Err(fault);
            }
            self.range.set(Some(range));
        }
        let loaded = if self.space.has_second_view() {
            Second.load_u16(addr)
        } else {
            Identity.load_u16(addr)
        };
        loaded.map_err(|_| fault)
    }
}

impl Code for Reader<'_> {
    fn fetch(&self, pc: u32) -> Result<u32, Fault> {
        let low = self.half(pc)?;
        if crate::decode::len_bytes(low) == 2 {
            return Ok(low.into());
        }
        Ok(u32::from(low) | u32::from(self.half(pc.wrapping_add(2))?) << 16)
    }
}

impl Code for Space {
    fn fetch(&self, pc: u32) -> Result<u32, Fault> {
        Reader::new(self).fetch(pc)
    }
}
