//! What a cache does beside churn.

use super::{CHURN_1M, CHURN_100K_SMALL, compare, few, noted};
use crate::{
    ours::{Ours, Recycling},
    workloads::{
        cache::{Barriers, Flushes, Near, Recycle, RecyclePeer, Refusals, Releases, Tagged},
        churn::Churn,
        query::Queries,
    },
};
use hostmem::jit::JitError;
use hostmem_bench::{asmjit::AsmJit, lane::Lane, program::Setting, row::Table};

/// Bytes of a cache that is flushed when it is full.
const CACHE: usize = 256 << 20;
/// Runs every experiment of a cache that has a wanted row.
pub(super) fn run(setting: &Setting, table: &mut Table) -> Result<(), JitError> {
    let plan = &setting.plan;
    if table.wants(&["query-few"]) {
        let (ours, peer) = (Ours::new()?, AsmJit::dual());
        // The pieces go with their allocators.
        let starts = few(&ours);
        let mut hits = Queries::hits(&ours, &starts, &mut setting.random());
        let mut peers = peer.as_ref().map(|peer| {
            let starts = few(peer);
            Queries::hits(peer, &starts, &mut setting.random())
        });
        compare("query-few", table, &mut hits, peers.as_mut(), plan);
    }
    if table.wants(&["query-tagged"]) {
        let ours = Ours::with_words()?;
        let trace = CHURN_1M.trace(setting.seed);
        let churn = Churn::new(&ours, &trace, plan.warm_limit);
        let (tagged, starts) = (Tagged(&ours), churn.starts());
        let mut with = Queries::hits(&tagged, &starts, &mut setting.random());
        let mut without = Queries::hits(&ours, &starts, &mut setting.random());
        compare("query-tagged", table, &mut with, Some(&mut without), plan);
    }
    for (row, how) in [
        ("recycle-batch", Recycling::Batch),
        ("recycle-deferred", Recycling::Deferred),
    ] {
        if table.wants(&[row]) {
            let (ours, peer) = (Ours::new()?, AsmJit::dual());
            // Other code is there too: no block is ever empty.
            let _others = (few(&ours), peer.as_ref().map(few));
            let mut recycle = Recycle::new(&ours, how);
            let mut peers = peer.as_ref().map(RecyclePeer);
            compare(row, table, &mut recycle, peers.as_mut(), plan);
        }
    }
    if table.wants(&["recycle-now"]) {
        let ours = Ours::new()?;
        let _others = few(&ours);
        let mut recycle = Recycle::new(&ours, Recycling::Now);
        let mut lanes: [&mut dyn Lane; 2] = [&mut recycle, &mut Barriers];
        let medians = noted("recycle-now", &mut lanes, plan);
        table.enter("recycle-now", medians[0] - medians[1], Some(medians[1]));
    }
    if table.wants(&["near"]) {
        let trace = CHURN_100K_SMALL.trace(setting.seed);
        let (ours, others) = (Ours::new()?, Ours::new()?);
        let near = Near::new(&ours);
        let mut near = Churn::new(&near, &trace, plan.warm_limit);
        let mut anywhere = Churn::new(&others, &trace, plan.warm_limit);
        compare("near", table, &mut near, Some(&mut anywhere), plan);
    }
    if table.wants(&["near-refused"]) {
        let ours = Ours::new()?;
        let medians = noted("near-refused", &mut [&mut Refusals::new(&ours)], plan);
        table.enter("near-refused", medians[0], None);
    }
    if table.wants(&["release-many"]) {
        let trace = CHURN_1M.trace(setting.seed);
        let (ours, others) = (Ours::new()?, Ours::new()?);
        let mut many = Releases::new(&ours, &trace, true, setting.random());
        let mut single = Releases::new(&others, &trace, false, setting.random());
        compare("release-many", table, &mut many, Some(&mut single), plan);
    }
    for (row, fills) in [("reset-keep", false), ("refill", true)] {
        if table.wants(&[row]) {
            let ours = Ours::new()?;
            let mut flushes = Flushes::new(&ours, CACHE, fills);
            let medians = noted(row, &mut [&mut flushes], plan);
            table.enter(row, medians[0], None);
        }
    }
    Ok(())
}
