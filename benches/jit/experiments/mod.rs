//! Runs the workloads on ours and on the peers, and enters what they cost; `caches` has those of a
//! cache beside churn.

mod caches;

use crate::{
    ours::Ours,
    trace::Trace,
    workloads::{
        buffer::{Plain, Range},
        cache::Iteration,
        checkerboard::Checkerboard,
        churn::Churn,
        publish::{Fresh, How, Reused},
        query::Queries,
        shrink::Shrinks,
        threads,
    },
};
use hostmem::jit::JitError;
use hostmem_bench::{
    asmjit::AsmJit,
    lane::{Lane, Plan, advance, alternate, warm_up},
    malloc::Malloc,
    program::Setting,
    random::Random,
    row::Table,
    subject::{Jit, Nothing, Piece, Subject, Usage},
};
use std::{ops::RangeInclusive, time::Duration};

/// A churn's row: how many pieces are live, and their sizes in bytes.
pub struct Live {
    pub row: &'static str,
    pub count: usize,
    pub sizes: RangeInclusive<usize>,
}

impl Live {
    pub fn trace(&self, seed: u64) -> Trace {
        Trace::new(seed, self.count, &self.sizes)
    }
}

pub const CHURN_10K: Live = live("churn-10k", 10_000, 16..=1024);
pub const CHURN_100K_SMALL: Live = live("churn-100k-small", 100_000, 16..=1024);
pub const CHURN_100K_LARGE: Live = live("churn-100k-large", 100_000, 64..=8192);
pub const CHURN_1M: Live = live("churn-1m", 1_000_000, 16..=1024);

/// Two threads with these each.
pub const THREADS: [Live; 2] = [
    live("threads-100", 100, 16..=1024),
    live("threads-10k", 10_000, 16..=1024),
];

/// The same number of steps for all, and then what they waste.
const WASTE: [Live; 3] = [
    live("waste-10k", 10_000, 16..=1024),
    live("waste-100k-small", 100_000, 16..=1024),
    live("waste-100k-large", 100_000, 64..=8192),
];

const fn live(row: &'static str, count: usize, sizes: RangeInclusive<usize>) -> Live {
    Live { row, count, sizes }
}

/// Live pieces of a checkerboard, and holes.
pub const BOARD: usize = 1_000_000;

/// A span far longer than a block.
pub const HUGE: usize = 512 << 20;

/// Runs every experiment that has a wanted row.
pub fn run_all(setting: &Setting, table: &mut Table) -> Result<(), JitError> {
    if table.wants(&["churn-10k", "growth"]) {
        churn(setting, table, &CHURN_10K, |_, _, _| ())?;
    }
    if table.wants(&["churn-100k-small", "metadata"]) {
        churn(setting, table, &CHURN_100K_SMALL, |table, ours, peer| {
            let peer = peer.map(|peer| metadata(peer.subject()));
            table.enter("metadata", metadata(ours.subject()), peer);
        })?;
    }
    if table.wants(&["churn-100k-large"]) {
        churn(setting, table, &CHURN_100K_LARGE, |_, _, _| ())?;
    }
    if table.wants(&["churn-1m", "growth", "query-hit", "query-miss", "iterate"]) {
        churn(setting, table, &CHURN_1M, |table, ours, peer| {
            if table.wants(&["query-hit", "query-miss"]) {
                queries(setting, table, ours, peer);
            }
            if table.wants(&["iterate"]) {
                let medians = noted("iterate", &mut [&mut Iteration(ours)], &setting.plan);
                table.enter("iterate", medians[0], None);
            }
        })?;
    }
    if let (Some(large), Some(small)) = (table.ours("churn-1m"), table.ours("churn-10k")) {
        table.enter("growth", large, Some(small));
    }
    if table.wants(&["checkerboard", "checkerboard-growth"]) {
        checkerboard(setting, table)?;
    }
    if table.wants(&["query-huge"]) {
        query_huge(setting, table)?;
    }
    caches::run(setting, table)?;
    for (row, write, copy) in [
        ("publish-single", How::Single, How::SingleCopy),
        ("publish-batch", How::Batch, How::BatchCopy),
    ] {
        if table.wants(&[row]) {
            publish(setting, table, row, write, copy)?;
        }
    }
    if table.wants(&["range"]) {
        compare("range", table, &mut Range, Some(&mut Plain), &setting.plan);
    }
    if table.wants(&["shrink"]) {
        shrink(setting, table)?;
    }
    for live in &THREADS {
        if table.wants(&[live.row]) {
            two_threads(setting, table, live)?;
        }
    }
    for live in &WASTE {
        if table.wants(&[live.row]) {
            waste(setting, table, live)?;
        }
    }
    Ok(())
}

/// Measures pairs of release and allocation, then hands the live sets to `then`.
fn churn(
    setting: &Setting,
    table: &mut Table,
    live: &Live,
    then: impl FnOnce(&mut Table, &Churn<'_, Ours>, Option<&Churn<'_, AsmJit>>),
) -> Result<(), JitError> {
    let (row, plan) = (live.row, &setting.plan);
    let trace = live.trace(setting.seed);
    let (ours, peer) = (Ours::new()?, AsmJit::dual());
    let limit = plan.warm_limit;
    let mut ours = Churn::new(&ours, &trace, limit);
    let mut peer = peer.as_ref().map(|peer| Churn::new(peer, &trace, limit));
    let mut malloc = Churn::new(&Malloc, &trace, limit);
    let mut harness = Churn::new(&Nothing, &trace, limit);

    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours];
    lanes.extend(peer.as_mut().map(|peer| peer as &mut dyn Lane));
    lanes.push(&mut malloc);
    lanes.push(&mut harness);
    for lane in &mut lanes {
        warm_up(row, *lane, live.count, limit);
    }
    let medians = noted(row, &mut lanes, plan);
    table.enter(row, medians[0], peer.is_some().then(|| medians[1]));

    split(row, &mut ours, plan);
    if let Some(peer) = &mut peer {
        split(row, peer, plan);
    }
    split(row, &mut malloc, plan);
    then(table, &ours, peer.as_ref());
    Ok(())
}

/// Runs the rounds, notes them and returns the medians in the lanes' order.
fn noted(row: &str, lanes: &mut [&mut dyn Lane], plan: &Plan) -> Vec<f64> {
    let summaries = alternate(lanes, plan);
    summaries.iter().for_each(|summary| summary.note(row));
    summaries.iter().map(|summary| summary.median).collect()
}

/// Notes what allocation and release cost apart.
fn split<S: Subject>(row: &str, churn: &mut Churn<'_, S>, plan: &Plan) {
    let (alloc, release) = churn.split(plan.steps, plan.limit);
    let name = S::NAME;
    println!("note: {row} {name} alloc={alloc:.1}ns release={release:.1}ns, in runs of each");
}

/// Returns the share of metadata in what is used, in percent.
fn metadata<S: Jit>(subject: &S) -> f64 {
    let usage = subject.usage();
    100.0 * usage.metadata as f64 / usage.used as f64
}

/// Asks about addresses in live pieces, anywhere, and in holes between pieces.
fn queries(
    setting: &Setting,
    table: &mut Table,
    ours: &Churn<'_, Ours>,
    peer: Option<&Churn<'_, AsmJit>>,
) {
    let plan = &setting.plan;
    let mut random = setting.random();
    let mut hits = Queries::hits(ours.subject(), &ours.starts(), &mut random);
    let mut random = setting.random();
    let mut peers = peer.map(|peer| Queries::hits(peer.subject(), &peer.starts(), &mut random));
    compare("query-hit", table, &mut hits, peers.as_mut(), plan);

    let mut random = setting.random();
    let mut misses = Queries::misses(ours.subject(), &mut random);
    let mut random = setting.random();
    let mut peers = peer.map(|peer| Queries::misses(peer.subject(), &mut random));
    compare("query-miss", table, &mut misses, peers.as_mut(), plan);

    let mut random = setting.random();
    let mut holes = Queries::holes(ours.subject(), &ours.starts(), &mut random);
    noted("query-miss in holes:", &mut [&mut holes], plan);
}

/// Measures ours beside the peer, if there is one, and enters the medians.
fn compare(
    row: &str,
    table: &mut Table,
    ours: &mut dyn Lane,
    peer: Option<&mut impl Lane>,
    plan: &Plan,
) {
    let mut lanes: Vec<&mut dyn Lane> = vec![ours];
    lanes.extend(peer.map(|peer| peer as &mut dyn Lane));
    let medians = noted(row, &mut lanes, plan);
    table.enter(row, medians[0], medians.get(1).copied());
}

/// Allocates beside holes that are too small, and beside none.
fn checkerboard(setting: &Setting, table: &mut Table) -> Result<(), JitError> {
    let row = "checkerboard";
    let (ours, plain, peer) = (Ours::new()?, Ours::new()?, AsmJit::dual());
    let granule = ours.granule();
    let mut ours = Checkerboard::with_holes(&ours, granule, BOARD);
    let mut plain = Checkerboard::without_holes(&plain, granule, BOARD);
    let mut peer = peer
        .as_ref()
        .map(|peer| Checkerboard::with_holes(peer, granule, BOARD));
    println!("note: {row} ours has {} holes of one granule", ours.holes());
    if let Some(peer) = &peer {
        println!(
            "note: {row} asmjit has {} holes of one granule",
            peer.holes()
        );
    }
    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours, &mut plain];
    lanes.extend(peer.as_mut().map(|peer| peer as &mut dyn Lane));
    let medians = noted(row, &mut lanes, &setting.plan);
    table.enter(row, medians[0], medians.get(2).copied());
    table.enter("checkerboard-growth", medians[0], Some(medians[1]));
    Ok(())
}

/// Asks about addresses in the middle of one long piece.
fn query_huge(setting: &Setting, table: &mut Table) -> Result<(), JitError> {
    fn middle<'a, S: Jit>(subject: &'a S, piece: &Piece, seed: u64) -> Queries<'a, S> {
        Queries::middle(subject, piece.address(), HUGE, &mut Random::new(seed))
    }
    let (ours, peer) = (Ours::new()?, AsmJit::dual());
    // The pieces go with their allocators.
    let piece = ours.alloc(HUGE);
    let mut queries = middle(&ours, &piece, setting.seed);
    let mut peers = peer.as_ref().map(|peer| {
        let piece = peer.alloc(HUGE);
        middle(peer, &piece, setting.seed)
    });
    compare(
        "query-huge",
        table,
        &mut queries,
        peers.as_mut(),
        &setting.plan,
    );
    Ok(())
}

/// Writes and publishes code, beside writing it; notes the same where code was before.
fn publish(
    setting: &Setting,
    table: &mut Table,
    row: &str,
    write: How,
    copy: How,
) -> Result<(), JitError> {
    let plan = &setting.plan;
    let (mut written, mut copied) = (Fresh::new(write), Fresh::new(copy));
    compare(row, table, &mut written, Some(&mut copied), plan);
    let (mut written, mut copied) = (Reused::new(write)?, Reused::new(copy)?);
    advance(&mut written, 1, plan.limit);
    let mut lanes: [&mut dyn Lane; 2] = [&mut written, &mut copied];
    noted(&format!("{row} where code was:"), &mut lanes, plan);
    Ok(())
}

/// Allocates ten pieces, and returns where they start.
pub fn few<S: Jit>(subject: &S) -> Vec<usize> {
    (1..=10).map(|n| subject.alloc(100 * n).address()).collect()
}

/// Allocates a page and shrinks it.
fn shrink(setting: &Setting, table: &mut Table) -> Result<(), JitError> {
    let (ours, peer) = (Ours::new()?, AsmJit::dual());
    let mut shrinks = Shrinks::new(&ours, &mut setting.random());
    let mut peers = peer
        .as_ref()
        .map(|peer| Shrinks::new(peer, &mut setting.random()));
    compare("shrink", table, &mut shrinks, peers.as_mut(), &setting.plan);
    Ok(())
}

/// Lets two threads share an allocator.
fn two_threads(setting: &Setting, table: &mut Table, live: &Live) -> Result<(), JitError> {
    let (row, plan) = (live.row, &setting.plan);
    let traces = [live.trace(setting.seed), live.trace(!setting.seed)];
    let (one, two) = threads::one_and_two(row, &Ours::new()?, &traces, plan);
    one.note(row);
    two.note(row);
    table.enter(row, two.median, Some(one.median));
    if let Some(peer) = AsmJit::dual() {
        let (one, two) = threads::one_and_two(row, &peer, &traces, plan);
        let (one, two) = (one.median, two.median);
        println!("note: {row} asmjit one-thread={one:.1}ns two-threads={two:.1}ns");
    }
    Ok(())
}

/// Compares what is mapped for what is used, after exactly the same trace.
fn waste(setting: &Setting, table: &mut Table, live: &Live) -> Result<(), JitError> {
    let steps = live.count / setting.plan.haste;
    let trace = live.trace(setting.seed);
    let ours = wasted(live.row, &Ours::new()?, &trace, steps);
    let peer = AsmJit::dual().map(|peer| wasted(live.row, &peer, &trace, steps));
    table.enter(live.row, ours, peer);
    Ok(())
}

/// Returns how many bytes are mapped for one that is used, after `steps` steps.
fn wasted<S: Jit>(row: &str, subject: &S, trace: &Trace, steps: usize) -> f64 {
    let mut churn = Churn::new(subject, trace, Duration::MAX);
    churn.run(steps);
    let Usage { used, reserved, .. } = subject.usage();
    let name = S::NAME;
    println!("note: {row} {name} used={used} reserved={reserved} bytes");
    reserved as f64 / used as f64
}
