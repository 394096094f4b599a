//! Retirement against an oracle that writes down who each span waits for.

use super::JitProvider;
use crate::SplitMix64;
use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use hostmem_core::jit::{
    Executor, JitAllocator, JitConfig, JitError, RetireConfig, RetireQueue, Span, SpanInfo,
};

/// Executors that are registered at most: enough for some to be in every state at once.
const EXECUTORS: usize = 5;

/// Spans that wait at most: few enough for the bound to be met.
const WAITING: usize = 40;

/// An executor, and what the oracle calls it.
struct Known<'a> {
    executor: Executor<'a>,
    name: usize,
    online: bool,
}

/// A span that waits, and the names of those that it waits for.
struct Held {
    info: SpanInfo,
    by: BTreeSet<usize>,
}

struct Run<'a, P: JitProvider> {
    jit: &'a JitAllocator<P>,
    queue: &'a RetireQueue<&'a JitAllocator<P>, P>,
    known: Vec<Known<'a>>,
    waiting: VecDeque<Held>,
    live: Vec<Span>,
    names: usize,
    random: SplitMix64,
}

/// Runs `count` random calls of a queue with a few executors, from `seed`: after each, as much
/// waits as the oracle says, and all of it is live.
///
/// # Panics
///
/// On a violation, and where `provider` cannot give enough memory.
pub fn check_retire<P: JitProvider>(provider: P, config: JitConfig, count: usize, seed: u64) {
    let jit = JitAllocator::on(provider, provider, config).expect("an allocator can be made");
    let bounds = RetireConfig::new().waiting(WAITING).executors(EXECUTORS);
    let queue = RetireQueue::on(&jit, provider, bounds).expect("a queue can be made");
    let mut run = Run {
        jit: &jit,
        queue: &queue,
        known: Vec::new(),
        waiting: VecDeque::new(),
        live: Vec::new(),
        names: 0,
        random: SplitMix64::new(seed),
    };
    for n in 0..count {
        run.step();
        run.compare(n, seed);
    }
    let live = core::mem::take(&mut run.live);
    live.into_iter()
        .for_each(|span| jit.release(span).expect("an owned span is taken back"));
    drop(run);
    drop(queue);
    assert_eq!(jit.statistics().spans, 0, "seed {seed:#x}: spans are left");
}

impl<P: JitProvider> Run<'_, P> {
    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.live.push(self.jit.alloc(100).expect("small spans")),
            20..45 => self.retire(),
            45..55 => self.reclaim(),
            55..61 => self.register(),
            61..63 => self.leave(),
            draw => self.announce(draw),
        }
    }

    /// Notes that an executor has passed a quiescent point.
    fn passed(&mut self, name: usize) {
        for held in &mut self.waiting {
            held.by.remove(&name);
        }
    }

    fn retire(&mut self) {
        let Some(span) = self.live.pop() else {
            return;
        };
        let info = span.info();
        let by = self.known.iter().filter(|known| known.online);
        let by = by.map(|known| known.name).collect();
        let stuck = self
            .waiting
            .front()
            .is_some_and(|first| !first.by.is_empty());
        let full = self.waiting.len() == WAITING;
        match self.queue.retire(span) {
            Ok(()) => {
                assert!(!(full && stuck), "there was no room, and none to be made");
                self.waiting.push_back(Held { info, by });
                // At the bound it releases a few; the first are those that it may.
                let waiting = self.queue.statistics().waiting.spans;
                while self.waiting.len() as u64 > waiting {
                    self.release_first();
                }
            }
            Err(refused) => {
                assert!(full && stuck, "refused: {refused}");
                assert_eq!(refused.error, JitError::QueueFull);
                self.live.push(refused.span);
            }
        }
    }

    fn release_first(&mut self) {
        let first = self.waiting.pop_front().expect("something waits");
        assert!(first.by.is_empty(), "released while {:?} run it", first.by);
    }

    fn reclaim(&mut self) {
        let mut expected = 0;
        while self.waiting.front().is_some_and(|held| held.by.is_empty()) {
            self.release_first();
            expected += 1;
        }
        let found = self.queue.reclaim().spans;
        assert_eq!(found, expected, "what no executor runs is released");
    }

    fn register(&mut self) {
        match self.queue.register() {
            Ok(executor) => {
                self.names += 1;
                self.known.push(Known {
                    executor,
                    name: self.names,
                    online: true,
                });
            }
            Err(error) => {
                assert_eq!(error, JitError::TooManyExecutors);
                assert_eq!(self.known.len(), EXECUTORS, "there was a slot");
            }
        }
    }

    fn leave(&mut self) {
        if !self.known.is_empty() {
            let which = self.random.below(self.known.len());
            let gone = self.known.swap_remove(which);
            self.passed(gone.name);
        }
    }

    fn announce(&mut self, draw: usize) {
        if self.known.is_empty() {
            return;
        }
        let which = self.random.below(self.known.len());
        let known = &mut self.known[which];
        let name = known.name;
        match draw {
            63..85 => known.executor.quiescent(),
            85..92 => {
                known.executor.offline();
                known.online = false;
            }
            _ => {
                known.executor.online();
                known.online = true;
                return;
            }
        }
        self.passed(name);
    }

    fn compare(&self, n: usize, seed: u64) {
        let what = format_args!("seed {seed:#x}, step {n}");
        let found = self.queue.statistics();
        let online = self.known.iter().filter(|known| known.online).count();
        assert_eq!(found.waiting.spans, self.waiting.len() as u64, "{what}");
        assert_eq!((found.executors, found.online), (self.known.len(), online));
        let bytes: usize = self.waiting.iter().map(|held| held.info.len).sum();
        assert_eq!(found.waiting.bytes, bytes as u64, "{what}");
        for held in &self.waiting {
            let live = self.jit.query(held.info.rx.addr().get());
            assert_eq!(live, Some(held.info), "{what}: it waits, so it is live");
        }
        let spans = self.live.len() + self.waiting.len();
        assert_eq!(self.jit.statistics().spans, spans, "{what}");
    }
}
