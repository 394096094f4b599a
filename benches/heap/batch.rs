//! Blocks that are allocated one after the other, and freed so.

use crate::{
    crew::{Post, Workload},
    sizes::Mix,
    subject::{Source, Subject},
    trace::{Block, Live, Trace},
};
use hostmem_bench::{clock::CpuTime, random::Random};
use std::time::Duration;

/// Who frees a batch, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The thread itself, the oldest block first.
    Fifo,
    /// The thread itself, the youngest block first.
    Lifo,
    /// The thread itself, in an order drawn anew for each batch.
    Shuffled,
    /// Another thread, the oldest block first, while the next batches are allocated.
    Elsewhere,
}

/// Batches that a thread may be ahead of the other that frees them.
const AHEAD: usize = 4;

/// Batches that belong together: as many as let two threads work at the same time for a while.
const TOGETHER: usize = 16;

/// Blocks by batches.
pub struct Batches {
    order: Order,
    /// One a thread; its count is the length of a batch.
    traces: Vec<Trace>,
    seed: u64,
}

impl Batches {
    /// Draws what each of the threads allocates.
    pub fn new(order: Order, mix: Mix, len: usize, threads: usize, seed: u64) -> Self {
        let seeds = (seed..).take(threads);
        let traces = seeds.map(|seed| Trace::new(mix, len, seed)).collect();
        Self {
            order,
            traces,
            seed,
        }
    }
}

/// Allocates a batch of the length of an empty table, and adds what that took.
fn allocate<S: Subject>(
    live: &mut Live<'_>,
    subject: &S,
    mut batch: Vec<Block>,
    took: &mut Duration,
) -> Vec<Block> {
    let start = CpuTime::now();
    for _ in 0..batch.capacity() {
        let size = live.next().size;
        batch.push(Block::new(subject, size));
    }
    *took += start.elapsed();
    batch
}

/// Frees a batch, adds what that took, and returns the empty table.
///
/// # Safety
///
/// The blocks are of this subject's heap, and live.
unsafe fn free<S: Subject>(subject: &S, mut batch: Vec<Block>, took: &mut Duration) -> Vec<Block> {
    let start = CpuTime::now();
    for block in batch.drain(..) {
        // SAFETY: the caller's promise; the table loses the token.
        unsafe { block.free(subject) };
    }
    *took += start.elapsed();
    batch
}

impl Workload for Batches {
    fn threads(&self) -> usize {
        self.traces.len()
    }

    fn batch(&self) -> Option<usize> {
        Some(TOGETHER * self.traces[0].count())
    }

    fn serve<S: Source>(&self, source: &S, thread: usize, post: &Post) {
        let subject = source.subject();
        let len = self.traces[thread].count();
        // Only the sizes of the trace are used: no block stays in this table.
        let mut live = Live::new(&self.traces[thread]);
        let mut random = Random::new(self.seed);
        let mut tables: Vec<_> = (0..=AHEAD).map(|_| Vec::with_capacity(len)).collect();
        post.each(|steps| {
            let mut took = Duration::ZERO;
            let (batches, mut freed) = (steps / len, 0);
            let next_table =
                |tables: &mut Vec<Vec<Block>>| tables.pop().expect("as many come as go");
            for made in 1..=batches {
                let table = next_table(&mut tables);
                let mut batch = allocate(&mut live, &subject, table, &mut took);
                match self.order {
                    Order::Elsewhere => {
                        post.to_next.send(batch).expect("the other thread serves");
                        while made - freed == AHEAD || (made == batches && freed < batches) {
                            let batch = post.from_last.recv().expect("the other thread serves");
                            // SAFETY: the other thread's, of the same heap, which it has let go of.
                            tables.push(unsafe { free(&subject, batch, &mut took) });
                            freed += 1;
                        }
                    }
                    Order::Fifo | Order::Lifo | Order::Shuffled => {
                        match self.order {
                            Order::Lifo => batch.reverse(),
                            Order::Shuffled => random.shuffle(&mut batch),
                            Order::Fifo | Order::Elsewhere => {}
                        }
                        // SAFETY: allocated just now.
                        tables.push(unsafe { free(&subject, batch, &mut took) });
                    }
                }
            }
            took
        });
    }
}
