//! J9 and J4: many threads allocate, write, shrink, release and query at once, against an oracle
//! that is split by address so that it does not put them in line.

use crate::{
    code::OS,
    common::{at_length, emulated, random::Random},
};
use core::slice;
use hostmem::{
    OsLock,
    counted::{Counted, Limits},
    jit::{CodeProvider, Fill, JitAllocator, JitConfig, Span},
    page::PageSize,
    provider::{PageProvider, Placement},
    sim::{Policy, Sim},
};
use std::{collections::BTreeMap, sync::Mutex};

const THREADS: u64 = 8;

/// Bytes of addresses that one part of the oracle answers for, and parts.
const CHUNK: usize = 64 << 10;
const PARTS: usize = 64;

/// Operations of each thread: fewer where an emulator makes them slow.
fn operations() -> u64 {
    match (at_length(), emulated()) {
        (true, _) => 1_000_000,
        (false, false) => 20_000,
        (false, true) => 500,
    }
}

/// Live spans by address, ends by starts, each in all parts that it touches.
struct Oracle(Vec<Mutex<BTreeMap<usize, usize>>>);

impl Oracle {
    fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }

    fn parts(
        &self,
        start: usize,
        len: usize,
    ) -> impl Iterator<Item = &Mutex<BTreeMap<usize, usize>>> {
        let chunks = start / CHUNK..=(start + len - 1) / CHUNK;
        chunks.take(PARTS).map(|chunk| &self.0[chunk % PARTS])
    }

    /// Adds a span, which must overlap none.
    fn insert(&self, start: usize, len: usize) {
        for part in self.parts(start, len) {
            let mut part = part.lock().expect("no thread failed");
            let before = part.range(..start + len).next_back();
            assert!(
                before.is_none_or(|(_, &end)| end <= start),
                "{len} bytes at {start:#x} overlap {before:x?}"
            );
            part.insert(start, start + len);
        }
    }

    fn remove(&self, start: usize, len: usize) {
        for part in self.parts(start, len) {
            let gone = part.lock().expect("no thread failed").remove(&start);
            assert_eq!(gone, Some(start + len), "only live spans go");
        }
    }
}

/// A span and the byte that fills it.
struct Live {
    span: Span,
    byte: u8,
}

impl Live {
    fn check(&self) {
        for view in [self.span.rx(), self.span.rw()] {
            // SAFETY: the span is live and no other code writes to it.
            let bytes = unsafe { slice::from_raw_parts(view.as_ptr(), self.span.len_bytes()) };
            assert!(bytes.iter().all(|&b| b == self.byte), "{:?}", self.span);
        }
    }
}

struct Run<'a, P: CodeProvider> {
    jit: &'a JitAllocator<P, P, OsLock>,
    oracle: &'a Oracle,
    /// Spans that whoever comes next releases.
    handed_on: &'a Mutex<Vec<Live>>,
}

impl<P: CodeProvider> Run<'_, P> {
    fn allocate(&self, random: &mut Random, byte: u8) -> Option<Live> {
        let size = 1 + random.next() % [100, 1000, 8000][random.next() % 3];
        let result = if random.next().is_multiple_of(50) {
            let align = 1 << (random.next() % 10);
            let placement = Placement {
                align,
                ..Placement::ANYWHERE
            };
            self.jit.alloc_with(size, placement)
        } else {
            self.jit.alloc(size)
        };
        let mut span = result.ok()?;
        assert!(span.len_bytes() >= size, "{span:?} for {size} bytes");
        self.oracle.insert(span.rx().addr().get(), span.len_bytes());
        let filled = self.jit.write_with(&mut span, |w| w.bytes_mut().fill(byte));
        filled.expect("ours");
        Some(Live { span, byte })
    }

    fn release(&self, live: Live) {
        live.check();
        let (start, len) = (live.span.rx().addr().get(), live.span.len_bytes());
        self.oracle.remove(start, len);
        self.jit.release(live.span).expect("once");
    }

    fn shrink(&self, live: &mut Live, random: &mut Random) {
        let (start, old) = (live.span.rx().addr().get(), live.span.len_bytes());
        self.oracle.remove(start, old);
        let len = 1 + random.next() % old;
        // What the tail becomes is the next one's at once, so the oracle knows first.
        let granule = self.granule(&live.span);
        let kept = len.next_multiple_of(granule);
        self.oracle.insert(start, kept);
        self.jit.shrink(&mut live.span, len).expect("ours");
        assert_eq!(live.span.len_bytes(), kept, "in whole granules");
    }

    fn granule(&self, span: &Span) -> usize {
        let rx = span.rx().addr().get();
        let block = self.jit.blocks().find(|b| b.rx.contains(rx));
        block.expect("a span lies in a block").granularity
    }

    fn thread(&self, seed: u64, operations: u64) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut live: Vec<Live> = Vec::new();
        for n in 0..operations {
            let byte = u8::try_from((n * THREADS + seed) % 251).expect("below 256");
            let draw = random.next() % 100;
            if live.is_empty() || (live.len() < 150 && draw < 42) {
                live.extend(self.allocate(&mut random, byte));
                continue;
            }
            let at = random.next() % live.len();
            match draw {
                0..70 => self.release(live.swap_remove(at)),
                70..78 => self.shrink(&mut live[at], &mut random),
                78..84 => {
                    let len = live[at].span.len_bytes();
                    let bytes = vec![byte; len];
                    self.jit.write(&mut live[at].span, 0, &bytes).expect("ours");
                    live[at].byte = byte;
                }
                84..86 => {
                    let mut batch = self.jit.batch();
                    for Live { span, byte: old } in &mut live {
                        let filled = batch.write_with(span, |w| w.bytes_mut().fill(byte));
                        filled.expect("ours");
                        *old = byte;
                    }
                    batch.finish().expect("ours");
                }
                86..92 => {
                    let mut handed_on = self.handed_on.lock().expect("no thread failed");
                    handed_on.push(live.swap_remove(at));
                    let other = random.next() % handed_on.len();
                    let other = handed_on.swap_remove(other);
                    drop(handed_on);
                    self.release(other);
                }
                _ => {
                    let span = &live[at].span;
                    let inside = span.rx().addr().get() + random.next() % span.len_bytes();
                    assert_eq!(self.jit.query(inside), Some(span.info()), "live");
                    live[at].check();
                }
            }
        }
        live.into_iter().for_each(|live| self.release(live));
    }
}

/// Runs all threads, and looks at what they leave.
fn run<P: CodeProvider>(provider: P, config: JitConfig, what: &str, operations: u64) {
    let jit = JitAllocator::on(provider, provider, config).expect("the configuration is valid");
    let (oracle, handed_on) = (Oracle::new(), Mutex::default());
    let run = Run {
        jit: &jit,
        oracle: &oracle,
        handed_on: &handed_on,
    };
    std::thread::scope(|scope| {
        for seed in 1..=THREADS {
            let run = &run;
            scope.spawn(move || run.thread(seed, operations));
        }
    });
    for live in handed_on.lock().expect("no thread failed").drain(..) {
        run.release(live);
    }
    let left = jit.statistics();
    assert_eq!((left.spans, left.used), (0, 0), "{what}: {left:?}");
    let all: usize = jit.blocks().map(|b| b.rx.len_bytes()).sum();
    assert_eq!(
        (jit.blocks().count(), all),
        (left.blocks, left.reserved),
        "{what}: the blocks add up"
    );
    let most = usize::from(!config.releases_immediately());
    for pool in 0..config.pool_count() {
        let granule = config.granularity_bytes() << pool;
        let kept = jit.blocks().filter(|b| b.granularity == granule).count();
        assert!(
            kept <= most,
            "{what}: {kept} empty blocks of granules of {granule}, whatever the sharding"
        );
    }
}

/// The configurations in which threads meet in different places.
fn configurations() -> [(&'static str, JitConfig); 5] {
    let new = JitConfig::new();
    let small = new.block_size(64 << 10, 64 << 10);
    [
        ("default", new),
        ("one shard", new.shards(1)),
        ("small blocks", small),
        (
            "immediate release, three pools",
            small.immediate_release(true).pools(3),
        ),
        ("filled", new.fill(Fill::Trap).granularity(16)),
    ]
}

#[test]
fn j9_threads_agree_with_a_sharded_oracle() {
    for (what, config) in configurations() {
        run(OS, config, what, operations());
    }
}

#[test]
fn j9_threads_agree_with_a_sharded_oracle_on_a_simulated_host() {
    for (what, config) in configurations() {
        let page = OS.page_size().max(PageSize::KIB_16);
        let sim = Sim::new(OS, Policy::new(page)).expect("a simulated host");
        run(&sim, config, what, operations() / 4);
        assert_eq!(sim.take_misuse(), None, "{what}: a call from a wrong state");
        assert_eq!(sim.pages_in_use(), 0, "{what}: pages leaked");
    }
}

#[test]
fn j4_an_empty_block_that_another_thread_left_saves_mapping_too() {
    let code = Counted::<_, OsLock>::new(OS, "code", Limits::NONE).expect("a small arena");
    let config = JitConfig::new().block_size(64 << 10, 64 << 10);
    let jit = JitAllocator::<_, _, OsLock>::on(&code, OS, config).expect("valid");
    let come_and_go = || {
        let span = jit.alloc(100).expect("memory");
        jit.release(span).expect("once");
    };
    let in_threads = |rounds: usize| {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..rounds).for_each(|_| come_and_go()));
            }
        });
    };
    const ROUNDS: usize = 20;
    const PAIRS: usize = 2000;
    let mut together = 0;
    for _ in 0..ROUNDS {
        // Threads that meet spread over the shards; one of them leaves the block that is kept.
        let before = code.calls();
        in_threads(PAIRS);
        together += code.calls() - before;
        assert!(jit.statistics().blocks <= 1, "{:?}", jit.statistics());
        for _ in 0..THREADS {
            let before = code.calls();
            std::thread::scope(|scope| {
                scope.spawn(|| (0..200).for_each(|_| come_and_go()));
            });
            let alone = code.calls() - before;
            assert!(alone <= 4, "{alone} calls for spans that come and go");
        }
    }
    // While one thread uses the block that was kept, another may have to map one; but threads with
    // so little code soon share a shard.
    let pairs = u64::try_from(ROUNDS * PAIRS).expect("few") * THREADS;
    assert!(together < pairs / 20, "{together} calls for {pairs} pairs");
}
