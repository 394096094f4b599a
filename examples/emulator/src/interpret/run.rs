//! Programs that are interpreted: decoded instructions, kept by the address where they begin.

use super::{Code, Hart, Memory, Trap, decode_at, step};
use crate::inst::Inst;
use alloc::{boxed::Box, vec, vec::Vec};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The most instructions that are decoded in a row.
const BLOCK: usize = 64;

/// Places of the table that leads from addresses to decoded blocks; a power of two.
const PLACES: usize = 1 << 14;

/// Runs guest code by looking at one decoded instruction after the other.
pub(crate) struct Interpreter {
    blocks: Vec<Box<[Inst]>>,
    /// A block's address and number, at the place that the address says.
    table: Box<[(u32, u32)]>,
    generation: u64,
    pub(crate) executed: u64,
}

impl Interpreter {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            table: vec![(u32::MAX, 0); PLACES].into(),
            generation: 0,
            executed: 0,
        }
    }

    /// Runs until something is to be done for the guest. Decoded code is forgotten when
    /// `generation` moves.
    pub(crate) fn run<M: Memory, C: Code>(
        &mut self,
        hart: &mut Hart,
        (memory, code): (&M, &C),
        interrupt: &AtomicU32,
        generation: &AtomicU64,
    ) -> Trap {
        loop {
            if interrupt.load(Ordering::Relaxed) != 0 {
                return Trap::Interrupted;
            }
            let now = generation.load(Ordering::Acquire);
            if now != self.generation {
                self.blocks.clear();
                self.table.fill((u32::MAX, 0));
                self.generation = now;
            }
            let place = (hart.pc >> 1) as usize & (PLACES - 1);
            let (pc, mut number) = self.table[place];
            if pc != hart.pc {
                number = match self.decode(code, hart.pc) {
                    Ok(number) => number,
                    Err(trap) => return trap,
                };
                self.table[place] = (hart.pc, number);
            }
            let mut pc = hart.pc;
            let block = &self.blocks[number as usize];
            let mut left = block.iter();
            for inst in left.by_ref() {
                match step(hart, memory, inst, pc) {
                    Ok(next) => pc = next,
                    Err(trap) => {
                        hart.pc = pc;
                        self.executed += (block.len() - left.len()) as u64;
                        return trap;
                    }
                }
            }
            self.executed += block.len() as u64;
            hart.pc = pc;
        }
    }

    /// Decodes instructions from `pc` on, up to one that leads elsewhere.
    #[cold]
    fn decode<C: Code>(&mut self, code: &C, pc: u32) -> Result<u32, Trap> {
        let mut block = vec![decode_at(code, pc)?];
        let mut at = block[0].next(pc);
        while block.len() < BLOCK && block.last().is_some_and(|last| !last.ends_block()) {
            let Ok(inst) = decode_at(code, at) else {
                break;
            };
            at = inst.next(at);
            block.push(inst);
        }
        self.blocks.push(block.into());
        Ok(u32::try_from(self.blocks.len() - 1).unwrap_or_else(|_| unreachable!("memory is less")))
    }
}
