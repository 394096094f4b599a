//! Which blocks there are, and which of their jumps lead to which others.

use super::{Counts, Jit, fail, target, translate::HEADER};
use alloc::{collections::VecDeque, vec::Vec};
use hashbrown::HashMap;
use hostmem::jit::{Barrier, Span};

/// The number of no exit.
pub(super) const NONE: u32 = u32::MAX;

/// A block of translated code.
pub(super) struct Block {
    pub(super) key: u32,
    /// The last guest address of its instructions.
    pub(super) last: u32,
    pub(super) span: Span,
    pub(super) exits: Vec<u32>,
    /// Exits of blocks that are linked to this one.
    pub(super) incoming: Vec<u32>,
}

/// A jump of a block to a guest address.
#[derive(Clone, Copy)]
pub(super) struct Exit {
    pub(super) target: u32,
    /// Where its field is.
    pub(super) site: usize,
    /// Where it leads when it is not linked.
    pub(super) stub: usize,
    pub(super) linked: u32,
}

/// All blocks, and who leads where.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) by_key: HashMap<u32, u32>,
    pub(super) by_page: HashMap<u32, Vec<u32>>,
    pub(super) blocks: Vec<Option<Block>>,
    pub(super) free_blocks: Vec<u32>,
    pub(super) exits: Vec<Option<Exit>>,
    pub(super) free_exits: Vec<u32>,
    /// Blocks in the order in which they were made, with their addresses; some are gone.
    pub(super) ages: VecDeque<(u32, u32)>,
    pub(super) bytes: usize,
    pub(super) counts: Counts,
    /// Spans that the queue had no room for.
    pub(super) unretired: Vec<Span>,
}

/// Where in the cache a number leads.
pub(super) fn index(number: u32) -> usize {
    number as usize
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or_else(|_| unreachable!("there is less memory"))
}

/// Takes a free place, or makes one.
pub(super) fn take_place<T>(places: &mut Vec<Option<T>>, free: &mut Vec<u32>) -> u32 {
    free.pop().unwrap_or_else(|| {
        places.push(None);
        number(places.len() - 1)
    })
}

impl Cache {
    fn block(&self, number: u32) -> Option<&Block> {
        self.blocks.get(index(number))?.as_ref()
    }

    /// Returns where a block's code begins.
    pub(super) fn code_of(&self, block: u32) -> usize {
        let block = self.block(block);
        block.map_or(0, |block| block.span.rx().addr().get() + HEADER)
    }

    /// Makes an exit lead to a block. It may be another's than was left, with the same target.
    pub(super) fn link(&mut self, jit: &Jit, exit: u32, block: u32, key: u32) {
        let code = self.code_of(block);
        let Some(Some(found)) = self.exits.get_mut(index(exit)) else {
            return;
        };
        if found.target != key || found.linked != NONE {
            return;
        }
        found.linked = block;
        patch(jit, found.site, code);
        self.counts.links += 1;
        if let Some(Some(block)) = self.blocks.get_mut(index(block)) {
            block.incoming.push(exit);
        }
    }

    /// Makes an exit lead out of the code.
    pub(super) fn unlink(&mut self, jit: &Jit, exit: u32) {
        if let Some(Some(found)) = self.exits.get_mut(index(exit)) {
            found.linked = NONE;
            patch(jit, found.site, found.stub);
        }
    }
}

/// Makes the jump with its field at `site` lead to `code`, in one step; threads may be running it.
fn patch(jit: &Jit, site: usize, code: usize) {
    let field = u32::from_le_bytes(target::field(code, site));
    // SAFETY: a field of a block that is live under the lock of the cache, and is written by
    // patches alone since the block was placed.
    if let Err(error) = unsafe { jit.patch_at(site, field, Barrier::Never) } {
        fail("translated code cannot be linked", &error);
    }
}
