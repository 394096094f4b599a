//! One workload on ours, for a profiler that counts instructions.

use crate::{
    experiments::{EDITED, LIVE},
    ours::{OurMap, Ours},
    trace::Trace,
    workloads::{
        churn::Churn,
        edit::{Edits, Moves},
        iterate::Walk,
        query::{Queries, draw},
    },
};
use hostmem_bench::{lane::count as count_steps, program::Setting, random::Random};
use std::error::Error;

/// Does `steps` steps of the workload of `row` to warm up, and then as many within
/// `counted_steps`. Says whether the row has such a workload.
pub fn count(setting: &Setting, row: &str, steps: usize) -> Result<bool, Box<dyn Error>> {
    for live in &LIVE {
        // The smaller one of those that growth compares.
        let maps = live.maps(row) || (row == "growth" && live.map == "map-10k");
        if !maps && row != live.query {
            continue;
        }
        let trace = Trace::new(setting.seed, live.count)?;
        let mut churn = Churn::new(Ours::new(trace.window())?, &trace);
        if maps {
            count_steps(&mut churn, steps);
        } else {
            let addresses = draw(&mut Random::new(setting.seed), trace.window());
            count_steps(&mut Queries::new(churn.space(), &addresses), steps);
        }
        return Ok(true);
    }
    if row == "edit-100k" || row == "iterate-100k" {
        let moves = Moves::draw(&mut Random::new(setting.seed), EDITED);
        let mut edits = Edits::new(OurMap::new(moves.window())?, &moves);
        if row == "edit-100k" {
            count_steps(&mut edits, steps);
        } else {
            count_steps(&mut Walk::new(edits.map(), EDITED), steps);
        }
        return Ok(true);
    }
    #[cfg(target_os = "linux")]
    if row.starts_with("linux-64k") {
        use crate::workloads::linux::{Claimed, Slots};
        let mut slots = Slots::default();
        let touched = row.starts_with("linux-64k-touched");
        let os = hostmem::OsProvider::new();
        count_steps(&mut Claimed::new(os, &mut slots, touched)?, steps);
        return Ok(true);
    }
    Ok(false)
}
