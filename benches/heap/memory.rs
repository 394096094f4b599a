//! How much memory a heap holds. Each heap is looked at in a process of its own, a child of the
//! benchmark, where nothing else allocates meanwhile.
//!
//! A million blocks are allocated, replaced at random, freed but for 1.5 MB of them, and freed. The
//! child says how much memory it has after each, beside what it had before: what Linux calls resident,
//! which includes what the heap keeps of itself. Memory of which it needs nothing is given two seconds
//! to go back, while a thread does a little now and then, as a program does that waits for something.

use crate::{
    peers::{Visitor, visit_all},
    rows::GENERAL,
    sizes::Mix,
    subject::{Global, OURS, Source, Subject},
    trace::{Block, Live, Trace},
};
use hostmem_bench::program::Setting;
use std::{
    collections::HashMap,
    env, fs,
    hint::black_box,
    process::{Child, Command, Stdio},
    sync::Barrier,
    thread,
    time::Duration,
};

/// The variable that makes a process such a child: the subject, and the seed.
const VARIABLE: &str = "HOSTMEM_BENCH_HEAP_MEMORY";

/// What ours is called.
const OUR_NAME: &str = <hostmem::GlobalHeap as Global>::NAME;

/// Live blocks.
const COUNT: usize = 1_000_000;

/// Bytes of them that survive.
const SURVIVORS: usize = 1_500_000;

/// Steps for each block.
const AGE: usize = 4;

/// How long memory may take to go back, and how often the thread wakes up meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
const WAKES: u32 = 20;

/// Blocks that it allocates and frees each time: more than any heap has at hand for a thread.
const LITTLE: usize = 1000;

/// Threads of which one's share is told.
const THREADS: usize = 64;

/// Something that was measured: what it is called, and how much.
pub type Measure = (String, f64);

/// What was measured in the child of each subject that is there.
pub fn measure_all(setting: &Setting) -> HashMap<&'static str, Vec<Measure>> {
    let mut start = Start {
        seed: setting.seed,
        children: Vec::new(),
    };
    start.visit(&OURS);
    visit_all(&mut start);
    // They do not disturb each other: nothing but memory is measured.
    let read = |(name, child): (_, Child)| {
        let output = child.wait_with_output().expect("a child ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = said.lines().filter_map(|line| line.split_once(' '));
        let measures = words.filter_map(|(what, much)| Some((what.into(), much.parse().ok()?)));
        (name, measures.collect())
    };
    start.children.into_iter().map(read).collect()
}

/// Starts children.
struct Start {
    seed: u64,
    children: Vec<(&'static str, Child)>,
}

impl Visitor for Start {
    fn visit<S: Source>(&mut self, _: &'static S) {
        if S::NAME == OUR_NAME || GENERAL.contains(&S::NAME) {
            let program = env::current_exe().expect("the program's own path");
            let mut child = Command::new(program);
            child.env(VARIABLE, format!("{} {}", S::NAME, self.seed));
            let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
            let child = child.expect("a child process");
            self.children.push((S::NAME, child));
        }
    }
}

/// Does what a child does, if this is one; says whether it is.
pub fn be_a_child() -> bool {
    let Ok(asked) = env::var(VARIABLE) else {
        return false;
    };
    let asked = asked.split_once(' ').and_then(|(name, seed)| {
        let seed = seed.parse().ok()?;
        Some(Be { name, seed })
    });
    let mut be = asked.expect("what the parent said");
    be.visit(&OURS);
    visit_all(&mut be);
    true
}

/// Finds a subject and measures it.
struct Be<'a> {
    name: &'a str,
    seed: u64,
}

impl Visitor for Be<'_> {
    fn visit<S: Source>(&mut self, peer: &'static S) {
        if S::NAME == self.name {
            self.measure(peer);
        }
    }
}

impl Be<'_> {
    fn measure<S: Source>(&self, source: &S) {
        threads(source);
        let subject = source.subject();
        let wait = || {
            for _ in 0..WAKES {
                thread::sleep(PATIENCE / WAKES);
                do_little(&subject);
            }
        };
        let trace = Trace::new(Mix::P1, COUNT, self.seed);
        let mut live = Live::new(&trace);
        let bytes = |live: &mut Live<'_>| live.blocks().iter().map(Block::size).sum::<usize>();
        let before = resident();
        let held = || (resident() - before) as f64;

        live.fill(&subject);
        let asked = bytes(&mut live) as f64;
        if let Some(metadata) = source.metadata() {
            println!("metadata {}", metadata as f64 / asked * 100.0);
        }
        println!("resident-fill {}", held() / asked);
        // SAFETY: all blocks came from this subject.
        (0..AGE * COUNT).for_each(|_| unsafe { live.replace(&subject) });
        let asked = bytes(&mut live) as f64;
        println!("resident-churn {}", held() / asked);

        // The slots say nothing about addresses any more, so survivors are anywhere.
        let (mut left, mut kept) = (SURVIVORS, Vec::new());
        let blocks = live.blocks();
        while let Some(block) = blocks.last()
            && block.size() <= left
        {
            left -= block.size();
            kept.extend(blocks.pop());
        }
        // SAFETY: all blocks came from this subject.
        unsafe { live.clear(&subject) };
        wait();
        println!("resident-survivors-kept {}", held() / 1e6);
        source.collect();
        println!("resident-survivors {}", held() / 1e6);
        for block in kept {
            // SAFETY: the block is live, and came from this subject.
            unsafe { block.free(&subject) };
        }
        wait();
        println!("resident-freed {}", held() / 1e6);
    }
}

/// Does what a thread does that has little to do.
fn do_little(subject: &impl Subject) {
    let blocks: [_; LITTLE] = std::array::from_fn(|_| Block::new(subject, 64));
    for block in blocks {
        // SAFETY: allocated just now.
        unsafe { block.free(subject) };
    }
}

/// Says what a thread costs that has used the heap once and does nothing now.
fn threads<S: Source>(source: &S) {
    let (ready, go) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let (used, end) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    // What the first use of the heap costs is no thread's.
    let first = Block::new(&source.subject(), 64);
    // SAFETY: allocated just now.
    unsafe { first.free(&source.subject()) };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                touch_stack();
                ready.wait();
                go.wait();
                let subject = source.subject();
                let block = Block::new(&subject, 64);
                // SAFETY: allocated just now.
                unsafe { block.free(&subject) };
                used.wait();
                end.wait();
            });
        }
        ready.wait();
        let (resident_before, addresses_before) = (resident(), addresses());
        go.wait();
        used.wait();
        let share = |more: usize| more as f64 / THREADS as f64;
        println!(
            "thread-resident {}",
            share(resident().saturating_sub(resident_before))
        );
        println!(
            "thread-addresses {}",
            share(addresses().saturating_sub(addresses_before))
        );
        end.wait();
    });
}

/// Touches what calls may need of the thread's stack, which is no heap's.
#[inline(never)]
fn touch_stack() {
    black_box([1_u8; 64 << 10]);
}

/// Returns the bytes of this process that have memory. `statm` would be tens of pages off for each
/// CPU, where this counts.
fn resident() -> usize {
    kilobytes("/proc/self/smaps_rollup", "Rss:")
}

/// Returns the bytes of addresses of this process.
fn addresses() -> usize {
    kilobytes("/proc/self/status", "VmSize:")
}

fn kilobytes(file: &str, field: &str) -> usize {
    let text = fs::read_to_string(file).expect("Linux has this file");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    number.expect("Linux says it in kilobytes") << 10
}
