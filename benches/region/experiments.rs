//! Runs the workloads on ours and on the peers, and enters what they cost.

use crate::{
    bitset::Bitset,
    crates,
    ours::{OurMap, Ours, index_bytes},
    rows::ROWS,
    space::{Lookup, Nothing},
    trace::Trace,
    workloads::{
        churn::{Churn, Churning},
        edit::{Edits, Moves},
        iterate::Walk,
        query::{Chained, Queries, draw},
    },
};
use hostmem_bench::{
    lane::{Lane, Plan, Summary, alternate, warm_up},
    program::Setting,
    random::Random,
    row::{Row, Table},
};
use std::error::Error;

/// How many mappings are live, and the rows that ask.
pub struct Live {
    pub map: &'static str,
    pub query: &'static str,
    pub count: usize,
}

pub const LIVE: [Live; 4] = [
    live("map-1k", "query-1k", 1000),
    live("map-10k", "query-10k", 10_000),
    live("map-100k", "query-100k", 100_000),
    live("map-1m", "query-1m", 1_000_000),
];

const fn live(map: &'static str, query: &'static str, count: usize) -> Live {
    Live { map, query, count }
}

impl Live {
    /// Says whether a row is about maps and unmaps with this live set.
    pub fn maps(&self, row: &str) -> bool {
        let rest = row.strip_prefix(self.map);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("-vs-"))
    }

    /// Returns those rows.
    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(|row| self.maps(row.name))
    }
}

/// Mappings where each address is asked for after the last answer, too.
const CHAINED: usize = 1_000_000;

/// Ranges of the map that is changed and gone through.
pub const EDITED: usize = 100_000;

/// Calls in a step of a churn: one unmap and one map.
const CALLS: f64 = 2.0;

/// Nanoseconds of a pair from which on it is slow.
const SLOW: f64 = 100_000.0;

/// Warming up takes this part of the time that the plan has for it: the layout is old already.
const HASTE: u32 = 4;

/// Mappings and steps with which it is seen that all lowest-first peers choose the same addresses.
const CHECKED: (usize, usize) = (1000, 5000);

/// Runs every experiment that has a wanted row.
pub fn run_all(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    agree(setting)?;
    let mut costs = [None; LIVE.len()];
    for (live, cost) in LIVE.iter().zip(&mut costs) {
        let grows = table.wants(&["growth"]) && ["map-10k", "map-1m"].contains(&live.map);
        let maps = grows || live.rows().any(|row| table.wants(&[row.name]));
        let chains = live.count == CHAINED && table.wants(&["query-1m-chained"]);
        let asks = chains || table.wants(&[live.query]);
        let weighs = table.wants(&["bytes-per-range"]) && live.map == "map-1m";
        if !(maps || asks || weighs) {
            continue;
        }
        let trace = Trace::new(setting.seed, live.count)?;
        if weighs {
            bytes(table, &trace)?;
        }
        if maps {
            *cost = Some(churn(setting, table, live, &trace)?);
        }
        if asks {
            queries(setting, table, live, &trace)?;
        }
    }
    edits(setting, table)?;
    if let [_, Some(small), _, Some(large)] = costs {
        table.enter("growth", large, Some(small));
    }
    #[cfg(target_os = "linux")]
    kernel::run(setting, table)?;
    Ok(())
}

/// Checks that all who take the lowest place choose the same ones: then they keep book of the same.
fn agree(setting: &Setting) -> Result<(), Box<dyn Error>> {
    let (live, steps) = CHECKED;
    let trace = Trace::new(setting.seed, live)?;
    let mut ours = Churn::new(Ours::new(trace.window())?, &trace);
    ours.run(steps);
    let mut names = Vec::new();
    for mut peer in crates::churns(&trace) {
        peer.run(steps);
        if peer.slots() != ours.slots() {
            return Err(format!("{} chose other places than ours", peer.name()).into());
        }
        names.push(peer.name());
    }
    if names.is_empty() {
        println!("note: rangemap and vm-allocator were left out when this was built");
        return Ok(());
    }
    let names = names.join(" ");
    println!("note: same places as ours after {steps} steps with {live} mappings: {names}");
    Ok(())
}

/// Measures pairs of unmap and map. Returns what a call of ours costs.
fn churn(
    setting: &Setting,
    table: &mut Table,
    live: &Live,
    trace: &Trace,
) -> Result<f64, Box<dyn Error>> {
    let (name, plan) = (live.map, &setting.plan);
    let mut ours = Churn::new(Ours::new(trace.window())?, trace);
    let mut peers: Vec<Box<dyn Churning + '_>> =
        vec![Box::new(Churn::new(Bitset::new(trace.window()), trace))];
    peers.extend(crates::churns(trace));
    let mut harness = Churn::new(Nothing, trace);

    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours];
    for peer in &mut peers {
        lanes.push(&mut **peer);
    }
    lanes.push(&mut harness);
    for lane in &mut lanes {
        warm_up(name, *lane, live.count, plan.warm_limit / HASTE);
    }
    let sums = noted(name, &mut lanes, plan);
    let cost = sums[0].median / CALLS;
    for row in live.rows() {
        let peer = sums.iter().find(|sum| sum.name == row.peer);
        table.enter(row.name, cost, peer.map(|sum| sum.median / CALLS));
    }

    split(name, &mut ours, plan, sums[0].median);
    for (peer, sum) in peers.iter_mut().zip(&sums[1..]) {
        split(name, &mut **peer, plan, sum.median);
    }
    describe(name, &ours);
    Ok(cost)
}

/// Asks about addresses anywhere in the window.
fn queries(
    setting: &Setting,
    table: &mut Table,
    live: &Live,
    trace: &Trace,
) -> Result<(), Box<dyn Error>> {
    let addresses = draw(&mut Random::new(setting.seed), trace.window());
    let mut ours = Ours::new(trace.window())?;
    trace.fill(&mut ours);
    let peer = crates::lookup(trace);
    if let Some(peer) = &peer {
        let same = addresses
            .iter()
            .all(|&at| ours.tag_at(at) == peer.tag_at(at));
        assert!(same, "rangemap answers otherwise");
    }
    let mut asked = Queries::new(&ours, &addresses);
    let mut other = peer.as_ref().map(|peer| Queries::new(peer, &addresses));
    let mut lanes: Vec<&mut dyn Lane> = vec![&mut asked];
    lanes.extend(other.as_mut().map(|peer| peer as &mut dyn Lane));
    enter(setting, table, live.query, &mut lanes);
    if live.count == CHAINED {
        let mut asked = Chained::new(&ours, &addresses);
        let mut other = peer.as_ref().map(|peer| Chained::new(peer, &addresses));
        let mut lanes: Vec<&mut dyn Lane> = vec![&mut asked];
        lanes.extend(other.as_mut().map(|peer| peer as &mut dyn Lane));
        enter(setting, table, "query-1m-chained", &mut lanes);
    }
    Ok(())
}

/// Moves ranges about in a map, and goes through it.
fn edits(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    const ROWS: [&str; 2] = ["edit-100k", "iterate-100k"];
    if !table.wants(&ROWS) {
        return Ok(());
    }
    let moves = Moves::draw(&mut Random::new(setting.seed), EDITED);
    let mut ours = Edits::new(OurMap::new(moves.window())?, &moves);
    let mut peer = crates::tracker(moves.window()).map(|map| Edits::new(map, &moves));
    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours];
    lanes.extend(peer.as_mut().map(|peer| peer as &mut dyn Lane));
    enter(setting, table, ROWS[0], &mut lanes);
    let mut ours = Walk::new(ours.map(), EDITED);
    let mut peer = peer.as_ref().map(|peer| Walk::new(peer.map(), EDITED));
    let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours];
    lanes.extend(peer.as_mut().map(|peer| peer as &mut dyn Lane));
    enter(setting, table, ROWS[1], &mut lanes);
    Ok(())
}

/// Measures ours beside a peer, and enters what a step costs.
fn enter(setting: &Setting, table: &mut Table, row: &'static str, lanes: &mut [&mut dyn Lane]) {
    let sums = noted(row, lanes, &setting.plan);
    table.enter(row, sums[0].median, sums.get(1).map(|sum| sum.median));
}

/// Weighs the index.
fn bytes(table: &mut Table, trace: &Trace) -> Result<(), Box<dyn Error>> {
    let ranges = trace.layout().len() as f64;
    let (nodes, all) = index_bytes(trace.layout())?;
    let theirs = crates::bytes(trace).map(|bytes| bytes as f64 / ranges);
    table.enter("bytes-per-range", nodes as f64 / ranges, theirs);
    println!(
        "note: bytes-per-range {:.3}B of the arena",
        all as f64 / ranges
    );
    let mut in_order = trace.layout().to_vec();
    in_order.sort_unstable_by_key(|mapping| mapping.start);
    let (nodes, _) = index_bytes(&in_order)?;
    println!(
        "note: bytes-per-range {:.3}B where ranges come in order",
        nodes as f64 / ranges
    );
    Ok(())
}

/// Maps of the host.
#[cfg(target_os = "linux")]
mod kernel {
    use super::{Setting, noted};
    use crate::workloads::linux::{Bare, Calls, Claimed, Counting, Slots, pass_through};
    use hostmem::OsProvider;
    use hostmem_bench::{lane::Lane, row::Table};
    use std::error::Error;

    /// Pairs of calls that are counted.
    const COUNTED: usize = 1000;

    pub fn run(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
        for (row, second, touched) in [
            ("linux-64k", "linux-64k-vs-munmap", false),
            ("linux-64k-touched", "linux-64k-touched-vs-munmap", true),
        ] {
            if table.wants(&[row, second]) {
                measure(setting, table, (row, second), touched)?;
            }
        }
        if table.wants(&["calls-per-pair"]) {
            count(table)?;
        }
        Ok(())
    }

    fn measure(
        setting: &Setting,
        table: &mut Table,
        (row, second): (&str, &str),
        touched: bool,
    ) -> Result<(), Box<dyn Error>> {
        let mut slots = Slots::default();
        let mut ours = Claimed::new(OsProvider::new(), &mut slots, touched)?;
        let mut same = Bare::new(Calls::ProtectMap, touched)?;
        let mut twice = Bare::new(Calls::MapMap, touched)?;
        let mut anywhere = Bare::new(Calls::MapUnmap, touched)?;
        let mut lanes: [&mut dyn Lane; 4] = [&mut ours, &mut same, &mut anywhere, &mut twice];
        let sums = noted(row, &mut lanes, &setting.plan);
        table.enter(row, sums[0].median, Some(sums[1].median));
        table.enter(second, sums[0].median, Some(sums[2].median));
        Ok(())
    }

    /// Counts the calls of the provider below.
    fn count(table: &mut Table) -> Result<(), Box<dyn Error>> {
        let provider = Counting::default();
        let mut slots = Slots::default();
        let ours = Claimed::new(&provider, &mut slots, false)?;
        let before = provider.calls();
        (0..COUNTED).for_each(|_| ours.pair());
        let calls = provider.calls() - before;
        drop(ours);

        let before = provider.calls();
        pass_through(&provider, COUNTED)?;
        let other = provider.calls() - before;
        let each = |calls: usize| calls as f64 / COUNTED as f64;
        table.enter("calls-per-pair", each(calls), Some(each(other)));
        Ok(())
    }
}

/// Notes how full the window is.
fn describe(row: &str, ours: &Churn<'_, Ours>) {
    let live: u64 = ours
        .slots()
        .iter()
        .map(|mapping| u64::from(mapping.pages))
        .sum();
    let (holes, pages) = ours.space().holes();
    let share = 100.0 * pages as f64 / (pages as f64 + live as f64);
    let (metadata, ranges) = (ours.space().metadata(), ours.space().ranges());
    println!("note: {row} {holes} holes, {share:.1}% of the pages up to the last mapping");
    println!("note: {row} {metadata} bytes of metadata for {ranges} ranges");
}

/// Runs the rounds, notes them and returns their sums in the lanes' order.
fn noted(row: &str, lanes: &mut [&mut dyn Lane], plan: &Plan) -> Vec<Summary> {
    let sums = alternate(lanes, plan);
    sums.iter().for_each(|sum| sum.note(row));
    sums
}

/// Notes what a map and what an unmap cost apart, where both together take `pair` nanoseconds.
fn split(row: &str, churn: &mut dyn Churning, plan: &Plan, pair: f64) {
    let (map, unmap) = churn.split(plan.steps, plan.limit, pair > SLOW);
    let name = churn.name();
    println!("note: {row} {name} map={map:.1}ns unmap={unmap:.1}ns, in runs of each");
}
