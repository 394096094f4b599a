//! Runs the workloads on ours and on the peers, and enters what they cost; `cases` has the workloads
//! with their sizes.

mod cases;

use crate::{
    child::{self, Task},
    crew::{Crew, Workload},
    peers::{Visitor, visit_all},
    query::{Queries, Question},
    rows::GENERAL,
    segments::{Full, Short},
    sizes::Mix,
    subject::{
        CANARIES, Canaries, FULL, Global, Hardened, Local, Nothing, OURS, OurHeap, Source,
        UNCHECKED, Unchecked,
    },
};
use cases::{CASES, Case, User};
use hostmem_bench::{
    lane::{Lane, Summary, alternate, warm_up},
    program::Setting,
    random::Random,
    row::Table,
};
use std::{
    alloc::Layout,
    error::Error,
    thread::{self, Scope},
};

/// Ours in other guises, whose rows' names begin so.
const LOCAL: &str = <Local as Source>::NAME;
const UNCHECKED_NAME: &str = <hostmem::heap::GlobalHeap<Unchecked> as Global>::NAME;
const CANARIES_NAME: &str = <hostmem::heap::GlobalHeap<Canaries> as Global>::NAME;
const FULL_NAME: &str = <hostmem::heap::GlobalHeap<Hardened> as Global>::NAME;

/// Steps for each live block before anything is measured, so that memory is as used as it gets.
const AGE: usize = 4;

/// Blocks and addresses that queries are about.
const ASKED: usize = 10_000;

/// Runs everything that the table wants.
pub fn run_all(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    for case in &CASES {
        case.run(setting, table)?;
    }
    segments(setting, table);
    queries(setting, table)?;
    memory_held(setting, table, Task::Held, &HELD);
    memory_held(setting, table, Task::Drift, &[DRIFT]);
    Ok(())
}

impl Case {
    fn run(&self, setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
        let peers = self.peers().into_iter();
        let peers: Vec<_> = peers
            .filter(|peer| table.wants(&[&self.row(peer)]))
            .collect();
        let guises = [LOCAL, UNCHECKED_NAME, CANARIES_NAME, FULL_NAME].into_iter();
        let guises: Vec<_> = guises
            .filter(|guise| self.has(guise) && table.wants(&[&self.guise(guise)]))
            .collect();
        let all = [peers.as_slice(), &guises].concat();
        for group in all.chunks(self.together()) {
            let race = Race {
                case: self,
                setting,
                others: group,
            };
            let summaries = self.with(setting.seed, race)?;
            for summary in &summaries {
                summary.note(self.0);
            }
            let (ours, others) = summaries.split_first().expect("ours always runs");
            for name in group {
                let other = others.iter().find(|other| other.name == *name);
                let other = other.map(|other| other.median);
                match other {
                    Some(guise) if guises.contains(name) => {
                        table.enter(&self.guise(name), guise, Some(ours.median));
                    }
                    _ => table.enter(&self.row(name), ours.median, other),
                }
            }
        }
        Ok(())
    }
}

/// Runs a workload on ours and on some others by turns.
struct Race<'a> {
    case: &'a Case,
    setting: &'a Setting,
    others: &'a [&'static str],
}

impl User for Race<'_> {
    type Result = Result<Vec<Summary>, Box<dyn Error>>;

    fn take<W: Workload>(self, workload: &W) -> Self::Result {
        let local = Local::new()?;
        let plan = &self.setting.plan;
        let (name, count) = (self.case.0, self.case.3);
        let summaries = thread::scope(|scope| {
            let mut lineup = Lineup {
                scope,
                workload,
                others: self.others,
                crews: vec![Crew::new(scope, &OURS, workload)],
            };
            lineup.add(&local);
            lineup.visit(&UNCHECKED);
            lineup.visit(&CANARIES);
            lineup.visit(&FULL);
            visit_all(&mut lineup);
            let lanes = lineup.crews.iter_mut();
            let mut lanes: Vec<_> = lanes.map(|crew| crew as &mut dyn Lane).collect();
            for lane in &mut lanes {
                warm_up(name, *lane, AGE * count / plan.haste, plan.warm_limit);
            }
            alternate(&mut lanes, plan)
        });
        Ok(summaries)
    }
}

/// Collects a crew for each who is wanted.
struct Lineup<'a, 'scope, 'env, W> {
    scope: &'scope Scope<'scope, 'env>,
    workload: &'scope W,
    others: &'a [&'static str],
    crews: Vec<Crew>,
}

impl<'scope, W: Workload> Lineup<'_, 'scope, '_, W> {
    fn add<S: Source>(&mut self, source: &'scope S) {
        if self.others.contains(&S::NAME) {
            let crew = Crew::new(self.scope, source, self.workload);
            self.crews.push(crew);
        }
    }
}

impl<W: Workload> Visitor for Lineup<'_, '_, '_, W> {
    fn visit<S: Source>(&mut self, peer: &'static S) {
        self.add(peer);
    }
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

fn queries(setting: &Setting, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let Local(heap) = Local::new()?;
    let mut random = Random::new(setting.seed);
    let mut owned = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let size = Mix::P2.draw(&mut random);
        let block = OurHeap::alloc(&heap, Layout::from_size_align(size, 16)?)?;
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

/// The rows of memory, which are what a child prints.
const HELD: [&str; 7] = [
    "resident-fill",
    "resident-churn",
    "resident-survivors",
    "resident-freed",
    "thread-resident",
    "thread-addresses",
    "metadata",
];

/// The row of memory that is measured alone, since it tells of time too.
const DRIFT: &str = "drift";

fn memory_held(setting: &Setting, table: &mut Table, task: Task, rows: &[&'static str]) {
    if !table.wants(rows) {
        return;
    }
    if !cfg!(target_os = "linux") {
        println!("note: what memory a process has is not known here");
        return;
    }
    let measured = child::measure_all(setting, task);
    let of = |subject: &str, what: &str| {
        let measures = measured.get(subject)?;
        measures
            .iter()
            .find(|(name, _)| name == what)
            .map(|(_, much)| *much)
    };
    for subject in ["ours"].iter().chain(&GENERAL) {
        for (what, much) in measured.get(subject).into_iter().flatten() {
            println!("note: {what} {subject} {much:.3}");
        }
    }
    for row in rows {
        if let Some(ours) = of("ours", row)
            && table.wants(&[row])
        {
            let peer = (*row != "metadata").then(|| of("jemalloc", row)).flatten();
            table.enter(row, ours, peer);
        }
    }
}

/// Does `steps` steps of the workload of `row` on ours, in the guise that it names, to warm up, and
/// then as many by [`Crew::count`], and the same without a heap. Says whether the row has such a
/// workload.
pub fn count(setting: &Setting, row: &str, steps: usize) -> Result<bool, Box<dyn Error>> {
    let guises = [UNCHECKED_NAME, CANARIES_NAME, FULL_NAME].into_iter();
    let named = |guise: &'static str| Some((guise, row.strip_prefix(guise)?.strip_prefix('-')?));
    let (guise, row) = guises.filter_map(named).next().unwrap_or(("", row));
    let row = format!("{row}-vs-");
    let is = |case: &&Case| row.starts_with(&case.row(""));
    let Some(case) = CASES.iter().find(is) else {
        return Ok(false);
    };
    case.with(setting.seed, Count(guise, steps))?;
    Ok(true)
}

/// Counts steps of ours in a guise, and of the harness.
struct Count(&'static str, usize);

impl User for Count {
    type Result = Result<(), Box<dyn Error>>;

    fn take<W: Workload>(self, workload: &W) -> Self::Result {
        let Self(guise, steps) = self;
        thread::scope(|scope| match guise {
            UNCHECKED_NAME => Crew::new(scope, &UNCHECKED, workload).count(steps),
            CANARIES_NAME => Crew::new(scope, &CANARIES, workload).count(steps),
            FULL_NAME => Crew::new(scope, &FULL, workload).count(steps),
            _ => Crew::new(scope, &OURS, workload).count(steps),
        });
        thread::scope(|scope| Crew::new(scope, &Nothing, workload).count(steps));
        Ok(())
    }
}
