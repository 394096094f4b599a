//! Processes that look at the memory of one subject each, children of the benchmark: nothing else
//! allocates in them meanwhile.

use crate::{
    drift, memory,
    peers::{Visitor, visit_all},
    rows::GENERAL,
    subject::{Global, OURS, Source},
};
use hostmem_bench::program::Setting;
use std::{
    collections::HashMap,
    env, fs,
    process::{Child, Command, Stdio},
};

/// The variable that makes a process such a child: the task, the subject, the seed, and the haste.
const VARIABLE: &str = "HOSTMEM_BENCH_HEAP_MEMORY";

/// What ours is called.
const OUR_NAME: &str = <hostmem::GlobalHeap as Global>::NAME;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Says what is held after certain steps: see `memory`. All children at once, as time does not
    /// matter.
    Held,
    /// Says what is held while sizes drift: see `drift`. One child after the other.
    Drift,
}

impl Task {
    const ALL: [Self; 2] = [Self::Held, Self::Drift];

    const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Drift => "drift",
        }
    }
}

/// Something that was measured: what it is called, and how much.
pub type Measure = (String, f64);

/// What was measured in the child of each subject that is there.
pub fn measure_all(setting: &Setting, task: Task) -> HashMap<&'static str, Vec<Measure>> {
    let mut start = Start {
        setting,
        task,
        children: Vec::new(),
        measured: HashMap::new(),
    };
    start.visit(&OURS);
    visit_all(&mut start);
    let rest = start.children.into_iter();
    let rest = rest.map(|(name, child)| (name, hear(child)));
    start.measured.extend(rest);
    start.measured
}

/// Waits for the child's end and returns what it said.
fn hear(child: Child) -> Vec<Measure> {
    let output = child.wait_with_output().expect("a child ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = said.lines().filter_map(|line| line.split_once(' '));
    let measures = words.filter_map(|(what, much)| Some((what.into(), much.parse().ok()?)));
    measures.collect()
}

/// Starts children.
struct Start<'a> {
    setting: &'a Setting,
    task: Task,
    /// Those that were not heard yet.
    children: Vec<(&'static str, Child)>,
    measured: HashMap<&'static str, Vec<Measure>>,
}

impl Visitor for Start<'_> {
    fn visit<S: Source>(&mut self, _: &'static S) {
        if S::NAME != OUR_NAME && !GENERAL.contains(&S::NAME) {
            return;
        }
        let (task, seed, haste) = (self.task, self.setting.seed, self.setting.plan.haste);
        let program = env::current_exe().expect("the program's own path");
        let mut child = Command::new(program);
        let asked = format!("{} {} {seed} {haste}", task.name(), S::NAME);
        let child = child.env(VARIABLE, asked);
        let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = child.expect("a child process");
        match task {
            Task::Held => self.children.push((S::NAME, child)),
            Task::Drift => drop(self.measured.insert(S::NAME, hear(child))),
        }
    }
}

/// Does what a child does, if this is one; says whether it is.
pub fn be_a_child() -> bool {
    let Ok(asked) = env::var(VARIABLE) else {
        return false;
    };
    let mut be = Be::parse(&asked).expect("what the parent said");
    be.visit(&OURS);
    visit_all(&mut be);
    true
}

/// Finds a subject and measures it.
struct Be<'a> {
    task: Task,
    name: &'a str,
    seed: u64,
    haste: usize,
}

impl<'a> Be<'a> {
    fn parse(asked: &'a str) -> Option<Self> {
        let mut words = asked.split_whitespace();
        let task = words.next()?;
        Some(Self {
            task: Task::ALL.into_iter().find(|known| known.name() == task)?,
            name: words.next()?,
            seed: words.next()?.parse().ok()?,
            haste: words.next()?.parse().ok()?,
        })
    }
}

impl Visitor for Be<'_> {
    fn visit<S: Source>(&mut self, peer: &'static S) {
        if S::NAME == self.name {
            match self.task {
                Task::Held => memory::measure(peer, self.seed),
                Task::Drift => drift::measure(peer, self.seed, self.haste),
            }
        }
    }
}

/// Returns the bytes of this process that have memory. `statm` would be tens of pages off for each
/// CPU, where this counts.
pub fn resident() -> usize {
    kilobytes("/proc/self/smaps_rollup", "Rss:")
}

/// Returns the bytes of addresses of this process.
pub fn addresses() -> usize {
    kilobytes("/proc/self/status", "VmSize:")
}

fn kilobytes(file: &str, field: &str) -> usize {
    let text = fs::read_to_string(file).expect("Linux has this file");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    number.expect("Linux says it in kilobytes") << 10
}
