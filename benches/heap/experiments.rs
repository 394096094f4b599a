//! Runs the workloads on ours and on the peers, and enters what they cost.

use crate::{
    churn::Churn,
    peers::{JEMALLOC, MIMALLOC, PRESENT},
    query::{Queries, Question},
    segments::{Full, Short},
    sizes::Mix,
    subject::{Malloc, OurHeap, Ours},
};
use hostmem::{
    OsProvider,
    heap::{Hardening, HeapConfig},
};
use hostmem_bench::{
    lane::{self, Lane, alternate, warm_up},
    program::Setting,
    random::Random,
    row::Table,
};
use std::{alloc::Layout, error::Error};

/// A churn: its rows' names begin so.
struct Case {
    name: &'static str,
    mix: Mix,
    count: usize,
}

const CASES: [Case; 9] = [
    case("churn-p1-100", Mix::P1, 100),
    case("churn-p1-10k", Mix::P1, 10_000),
    case("churn-p1-1m", Mix::P1, 1_000_000),
    case("churn-p2-100", Mix::P2, 100),
    case("churn-p2-10k", Mix::P2, 10_000),
    case("churn-p2-1m", Mix::P2, 1_000_000),
    case("churn-p3-100", Mix::P3, 100),
    case("churn-p3-10k", Mix::P3, 10_000),
    case("churn-p3-1m", Mix::P3, 1_000_000),
];

const fn case(name: &'static str, mix: Mix, count: usize) -> Case {
    Case { name, mix, count }
}

/// Steps for each live block before anything is measured, so that memory is as used as it gets.
const AGE: usize = 4;

/// Blocks and addresses that queries are about.
const ASKED: usize = 10_000;

fn heap() -> Result<OurHeap, Box<dyn Error>> {
    let os = OsProvider::new();
    Ok(OurHeap::new(os, os, HeapConfig::new())?)
}

/// Runs everything that the table wants.
pub fn run_all(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    for case in &CASES {
        churn(setting, table, case)?;
    }
    segments(setting, table);
    for (row, mix) in [
        ("full-p1-10k", Mix::P1),
        ("full-p2-10k", Mix::P2),
        ("full-p3-10k", Mix::P3),
    ] {
        hardened(setting, table, row, mix)?;
    }
    queries(setting, table)
}

/// The highest level of hardening beside the default one.
fn hardened(
    setting: &Setting,
    table: &mut Table,
    row: &str,
    mix: Mix,
) -> Result<(), Box<dyn Error>> {
    if !table.wants(&[row]) {
        return Ok(());
    }
    let (os, count) = (OsProvider::new(), 10_000);
    let config = HeapConfig::new().hardening(Hardening::Full);
    let (full, checked) = (OurHeap::new(os, os, config)?, heap()?);
    let mut full = Churn::new(Ours(full.local()?), mix, count, setting.seed);
    let mut checked = Churn::new(Ours(checked.local()?), mix, count, setting.seed);
    let mut lanes: [&mut dyn Lane; 2] = [&mut full, &mut checked];
    for lane in &mut lanes {
        warm_up(row, *lane, AGE * count, setting.plan.warm_limit);
    }
    let summaries = alternate(&mut lanes, &setting.plan);
    summaries.iter().for_each(|summary| summary.note(row));
    table.enter(row, summaries[0].median, Some(summaries[1].median));
    Ok(())
}

fn segments(setting: &Setting, table: &mut Table) {
    let mut enter = |row, lane: &dyn Fn() -> Box<dyn Lane>| {
        if table.wants(&[row]) {
            let summaries = alternate(&mut [&mut *lane()], &setting.plan);
            summaries[0].note(row);
            table.enter(row, summaries[0].median, None);
        }
    };
    enter("large-in-1-segment", &|| Box::new(Full::new(1)));
    enter("large-in-400-segments", &|| Box::new(Full::new(400)));
    enter("short-heap", &|| Box::new(Short));
}

fn churn(setting: &Setting, table: &mut Table, case: &Case) -> Result<(), Box<dyn Error>> {
    let names = ["jemalloc", "mimalloc", "malloc"].map(|peer| format!("{}-vs-{peer}", case.name));
    if !table.wants(&names.each_ref().map(String::as_str)) {
        return Ok(());
    }
    let (mix, count, seed) = (case.mix, case.count, setting.seed);
    let heap = heap()?;
    let mut ours = Churn::new(Ours(heap.local()?), mix, count, seed);
    let mut malloc = Churn::new(Malloc, mix, count, seed);
    let peers = if PRESENT { count } else { 1 };
    let mut jemalloc = Churn::new(JEMALLOC, mix, peers, seed);
    let mut mimalloc = Churn::new(MIMALLOC, mix, peers, seed);
    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours, &mut malloc];
    if PRESENT {
        lanes.push(&mut jemalloc);
        lanes.push(&mut mimalloc);
    }
    for lane in &mut lanes {
        warm_up(case.name, *lane, AGE * count, setting.plan.warm_limit);
    }
    let summaries = alternate(&mut lanes, &setting.plan);
    summaries.iter().for_each(|summary| summary.note(case.name));
    let median = |name| summaries.iter().find(|s| s.name == name).map(|s| s.median);
    for (name, peer) in names.iter().zip(["jemalloc", "mimalloc", "malloc"]) {
        table.enter(name, summaries[0].median, median(peer));
    }
    Ok(())
}

fn queries(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let heap = heap()?;
    let mut random = Random::new(setting.seed);
    let mut owned = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let size = Mix::P2.draw(&mut random);
        let block = heap.alloc(Layout::from_size_align(size, 16)?)?;
        owned.push(block.addr().get() + random.below(size));
    }
    random.shuffle(&mut owned);
    let foreign: Vec<_> = (0..ASKED).map(|_| random.below(usize::MAX)).collect();
    for (row, addresses, question) in [
        ("owns-owned", &owned, Question::Owns),
        ("owns-foreign", &foreign, Question::Owns),
        ("block-of", &owned, Question::BlockOf),
    ] {
        if table.wants(&[row]) {
            let mut lane = Queries {
                heap: &heap,
                addresses,
                question,
                next: 0,
            };
            let summaries = alternate(&mut [&mut lane], &setting.plan);
            summaries[0].note(row);
            table.enter(row, summaries[0].median, None);
        }
    }
    Ok(())
}

/// Does `steps` steps of the churn of `row` on ours to warm up, and then as many within
/// [`lane::count`]. Says whether the row has such a workload.
pub fn count(setting: &Setting, row: &str, steps: usize) -> Result<bool, Box<dyn Error>> {
    let is = |case: &&Case| row.starts_with(&format!("{}-vs-", case.name));
    let Some(case) = CASES.iter().find(is) else {
        return Ok(false);
    };
    let heap = heap()?;
    let mut lane = Churn::new(Ours(heap.local()?), case.mix, case.count, setting.seed);
    lane::count(&mut lane, steps);
    Ok(true)
}
