//! How much memory a heap holds while the sizes that it is asked for change.
//!
//! 200 MB are live all the time, or a quarter of all in haste. Each block takes the place of some
//! that are chosen at random, so that it is as long as all of them, or a little shorter, and all of
//! it is written, until 6 GB were allocated. The mean of the sizes goes up from 128 bytes to 4096
//! meanwhile, by the same factor for the same number of bytes, and back. Pages of a size that is
//! not asked for any more have a block here and there.
//!
//! What Linux calls resident, beside what was resident before the first block, is divided by the
//! bytes that are live, a few hundred times. The table of blocks has its memory before the first
//! one.

use crate::{child::resident, subject::Source, trace::Block};
use hostmem_bench::{clock::CpuTime, random::Random};
use std::time::Instant;

/// Bytes that are live.
const LIVE: usize = 200_000_000;

/// Bytes that are allocated for each of them.
const TURNS: usize = 30;

/// By what both are divided in haste.
const LESS: usize = 4;

/// The least mean, and how often it doubles.
const LEAST: usize = 128;
const DOUBLINGS: f64 = 5.0;

/// How often memory is looked at.
const LOOKS: usize = 300;

/// Returns the mean of the sizes after that part of all bytes.
fn mean(at: f64) -> f64 {
    let height = 1.0 - (2.0 * at - 1.0).abs();
    LEAST as f64 * (DOUBLINGS * height).exp2()
}

/// Draws a size, half the mean to one and a half.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the mean is between 128 and 4096"
)]
fn draw(random: &mut Random, at: f64) -> u32 {
    let mean = mean(at) as usize;
    let size = random.within(&(mean / 2..=mean * 3 / 2));
    u32::try_from(size).expect("sizes are small")
}

/// Lets sizes drift, and says what is held for each byte that is live: the mean and the most of all
/// looks, and how long it took, which tells how often a heap could look at a clock.
pub fn measure<S: Source>(source: &S, seed: u64, haste: usize) {
    let subject = source.subject();
    let mut random = Random::new(seed);
    let most_live = if haste == 1 { LIVE } else { LIVE / LESS };
    let total = TURNS * most_live;
    // As many as there can be, and touched.
    let mut blocks = vec![Block::NONE; 2 * most_live / LEAST];
    blocks.clear();
    let before = resident();
    let (start, worked) = (Instant::now(), CpuTime::now());

    let (mut through, mut live) = (0, 0);
    let (mut looks, mut sum, mut most) = (0, 0.0, 0.0_f64);
    let mut next_look = most_live;
    while through < total {
        let size = draw(&mut random, through as f64 / total as f64);
        while live + size as usize > most_live {
            let block: Block = blocks.swap_remove(random.below(blocks.len()));
            live -= block.size();
            // SAFETY: the block is live, came from this subject, and has left the table.
            unsafe { block.free(&subject) };
        }
        let block = Block::new(&subject, size);
        // SAFETY: allocated just now.
        unsafe { block.fill(0) };
        blocks.push(block);
        live += block.size();
        through += block.size();
        if through >= next_look {
            let held = resident().saturating_sub(before) as f64 / live as f64;
            (looks, sum, most) = (looks + 1, sum + held, most.max(held));
            next_look += (total - most_live) / LOOKS;
        }
    }

    println!("drift {}", sum / f64::from(looks));
    println!("drift-most {most}");
    println!("drift-seconds {}", start.elapsed().as_secs_f64());
    println!("drift-cpu-seconds {}", worked.elapsed().as_secs_f64());
    for block in blocks {
        // SAFETY: the block is live, came from this subject, and leaves the table.
        unsafe { block.free(&subject) };
    }
}
