//! Looks for memory that is writable and executable, at once or in turn.

use std::collections::HashMap;

use super::event::{Call, Event, Space};
use super::replay::{Findings, Model, Range};

/// Describes a moment at which memory was exposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The index of the event in the record.
    pub event: usize,
    /// The process.
    pub pid: libc::pid_t,
    /// The system call that did it; `"execve"` for a mapping that a program starts with.
    pub call: &'static str,
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
}

/// Returns every moment at which pages became writable and executable in one mapping.
///
/// Calls that failed count only for what they did before they failed; for mere attempts see
/// [`Call::asks_write_and_exec`]. Under the personality `READ_IMPLIES_EXEC` what is readable counts
/// as executable. Two mappings of the same memory are two mappings.
pub fn writable_and_executable(events: &[Event]) -> Vec<Exposure> {
    replay(events, |findings| findings.both)
}

/// Returns every moment at which pages became executable that had been writable before, through the
/// same mapping: the toggle from W to X.
///
/// Memory that no recorded call mapped, as the heap of `brk`, counts as having been writable.
pub fn gained_exec(events: &[Event]) -> Vec<Exposure> {
    replay(events, |findings| findings.gained)
}

/// Replays the record and returns the findings of one kind.
fn replay(events: &[Event], kind: impl Fn(Findings) -> Vec<Range>) -> Vec<Exposure> {
    let mut spaces = HashMap::<Space, Model>::new();
    let mut exposures = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let mut findings = Findings::default();
        let (pid, call) = step(&mut spaces, event, &mut findings);
        let exposed = kind(findings).into_iter();
        exposures.extend(exposed.map(|(start, end)| Exposure {
            event: index,
            pid,
            call,
            start,
            end,
        }));
    }
    exposures
}

/// Applies an event and returns who did what.
fn step(
    spaces: &mut HashMap<Space, Model>,
    event: &Event,
    findings: &mut Findings,
) -> (libc::pid_t, &'static str) {
    match event {
        Event::Exec {
            pid,
            space,
            mappings,
            read_implies_exec,
        } => {
            let model = spaces.entry(*space).or_default();
            model.read_implies_exec = *read_implies_exec;
            model.load(mappings, findings);
            (*pid, "execve")
        }
        Event::Fork { pid, from, space } => {
            let copy = from
                .and_then(|from| spaces.get(&from).cloned())
                .unwrap_or_default();
            spaces.insert(*space, copy);
            (*pid, "fork")
        }
        Event::Call(call @ Call { pid, space, .. }) => {
            spaces.entry(*space).or_default().apply(call, findings);
            (*pid, call.name())
        }
        Event::End { space } => {
            spaces.remove(space);
            (0, "exit")
        }
    }
}
