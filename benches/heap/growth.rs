//! Blocks that grow, and large ones of which every page is written.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::{Source, Subject},
    trace::{Block, Live, Step, Trace},
};
use hostmem_bench::clock::CpuTime;

/// A block that grows by one draw after the other, as a buffer does to which something is appended:
/// what it gains is written. A step is a call. The first allocates the block, and when it has grown
/// as often as it is to, it is freed.
pub struct Growth(Trace);

impl Growth {
    /// Draws by how much it grows, `count` times.
    pub fn new(mix: Mix, count: usize, seed: u64) -> Self {
        Self(Trace::new(mix, count, seed))
    }
}

/// Lets a block grow as often as the trace says, and frees it.
fn grow(subject: &impl Subject, live: &mut Live<'_>, count: usize) {
    let mut block = Block::new(subject, live.next().size);
    // SAFETY: the block is live, and this function's alone.
    unsafe { block.fill(0) };
    for _ in 1..count {
        let (len, more) = (block.size(), live.next().size);
        let size = u32::try_from(len).expect("sizes are small") + more;
        // SAFETY: the block came from this subject, and is live.
        unsafe { block.resize(subject, size) };
        // SAFETY: the block is live, this function's alone, and not shorter than it was.
        unsafe { block.fill(len) };
    }
    // SAFETY: the block came from this subject, is live, and is used no more.
    unsafe { block.free(subject) };
}

impl Workload for Growth {
    fn batch(&self) -> Option<usize> {
        Some(self.0.count())
    }

    fn serve<S: Source>(&self, source: &S, _: usize, post: &Post) {
        let subject = source.subject();
        let count = self.0.count();
        // Only the sizes of the trace are used: no block stays in this table.
        let mut live = Live::new(&self.0);
        post.each(|steps| {
            let start = CpuTime::now();
            (0..steps / count).for_each(|_| grow(&subject, &mut live, count));
            start.elapsed()
        });
    }
}

/// A few blocks that are replaced at random, each of which is written to in every page. How many
/// are live changes: a step replaces one, or frees one that may be missing, or allocates it again.
pub struct Few {
    trace: Trace,
    /// Live blocks at least; the count of the trace is how many they are at most.
    least: usize,
}

impl Few {
    /// Draws what is allocated.
    pub fn new(mix: Mix, least: usize, most: usize, seed: u64) -> Self {
        Self {
            trace: Trace::new(mix, most, seed),
            least,
        }
    }
}

/// Allocates a block and writes to all of its pages.
fn touched(subject: &impl Subject, size: u32) -> Block {
    let block = Block::new(subject, size);
    // SAFETY: allocated just now.
    unsafe { block.touch() };
    block
}

impl Workload for Few {
    /// As many steps as there may be blocks: of fewer, too much would hang on which blocks they
    /// are.
    fn batch(&self) -> Option<usize> {
        Some(self.trace.count())
    }

    fn serve<S: Source>(&self, source: &S, _: usize, post: &Post) {
        let subject = source.subject();
        // Only the steps of the trace are used: its blocks may not be missing.
        let mut live = Live::new(&self.trace);
        let mut blocks: Vec<Option<Block>> = vec![None; self.trace.count()];
        for block in &mut blocks[..self.least] {
            *block = Some(touched(&subject, live.next().size));
        }
        post.each(|steps| {
            let start = CpuTime::now();
            for _ in 0..steps {
                let Step { slot, size } = live.next();
                let slot = slot as usize;
                let old = blocks[slot].take();
                let had = old.is_some();
                if let Some(block) = old {
                    // SAFETY: a live block of this subject, which leaves the table.
                    unsafe { block.free(&subject) };
                }
                if slot < self.least || !had {
                    blocks[slot] = Some(touched(&subject, size));
                }
            }
            start.elapsed()
        });
        for block in blocks.into_iter().flatten() {
            // SAFETY: a live block of this subject, which leaves the table.
            unsafe { block.free(&subject) };
        }
    }
}
