//! The program break: what it has in the range, and a page that keeps it from growing.

use super::{BreakBlock, Claim, Claimed, Purpose};
use crate::{
    page::AddressRange,
    provider::{AddressSpace, ErrorKind, PageProvider, Place, ProcessMap, Request},
};

/// How often the break is asked for anew because it moved meanwhile.
const BREAK_TRIES: u32 = 8;

impl<P: PageProvider + ProcessMap + Copy> Claim<'_, P> {
    /// Returns how many bytes of the memory that the break gave lie in the range.
    pub(super) fn heap_in(&self, range: AddressRange) -> Option<usize> {
        let end = self.behind_break()?;
        let mut bytes = 0;
        let walked = self.provider.walk(&mut |entry| {
            if entry.range.last().checked_add(1) == Some(end) {
                let inside = entry.range.intersect(range);
                bytes = inside.map_or(0, |inside| inside.last() - inside.start() + 1);
            }
            entry.range.last() < end
        });
        walked.ok().map(|()| bytes)
    }

    /// Reserves the page behind the program break.
    pub(super) fn put_behind_break(&mut self) -> BreakBlock {
        for _ in 0..BREAK_TRIES {
            let Some(start) = self.behind_break() else {
                return BreakBlock::Unknown;
            };
            let len = self.page.bytes();
            if !self.list.has_room(start, len, Purpose::Break) {
                self.report.full = true;
                return BreakBlock::Failed(ErrorKind::Exhausted.into());
            }
            let request = Request::bytes(len).place(Place::Exact(start));
            match self.provider.reserve(&request) {
                Ok(range) => {
                    let purpose = Purpose::Break;
                    self.list.insert(Claimed { range, purpose });
                    return BreakBlock::Blocked;
                }
                // Not by the break itself: it did not move.
                Err(e) if e.kind() == ErrorKind::Taken && self.behind_break() == Some(start) => {
                    return BreakBlock::Already;
                }
                Err(e) if e.kind() == ErrorKind::Taken => {}
                Err(e) => return BreakBlock::Failed(e),
            }
        }
        BreakBlock::Failed(ErrorKind::Taken.into())
    }

    /// Returns the first page that the break has not reached.
    fn behind_break(&self) -> Option<usize> {
        let AddressSpace { program_break, .. } = self.provider.address_space();
        program_break.and_then(|at| self.page.round_up(at))
    }
}
