//! How much memory a heap holds, and gives back.
//!
//! A million blocks are allocated, replaced at random, freed but for 1.5 MB of them, and freed. The
//! child says how much memory it has after each, beside what it had before: what Linux calls
//! resident, which includes what the heap keeps of itself. Memory of which it needs nothing is
//! given three seconds to go back, while a thread does a little now and then, as a program does
//! that waits for something.

use crate::{
    child::{addresses, resident},
    sizes::Mix,
    subject::{Source, Subject},
    trace::{Block, Live, Trace},
};
use std::{hint::black_box, sync::Barrier, thread, time::Duration};

/// Live blocks.
const COUNT: usize = 1_000_000;

/// Bytes of them that survive.
const SURVIVORS: usize = 1_500_000;

/// Steps for each block.
const AGE: usize = 4;

/// How long memory may take to go back, and how often the thread wakes up meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
const WAKES: u32 = 30;

/// Blocks that it allocates and frees each time: more than any heap has at hand for a thread.
const LITTLE: usize = 1000;

/// Threads of which one's share is told.
const THREADS: usize = 64;

/// Says what a subject holds.
pub fn measure<S: Source>(source: &S, seed: u64) {
    threads(source);
    let subject = source.subject();
    let wait = || {
        for _ in 0..WAKES {
            thread::sleep(PATIENCE / WAKES);
            do_little(&subject);
        }
    };
    let trace = Trace::new(Mix::P1, COUNT, seed);
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
