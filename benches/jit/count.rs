//! One workload on ours, for a profiler that counts instructions.

use crate::{
    experiments::{
        BOARD, CHURN_1M, CHURN_10K, CHURN_100K_LARGE, CHURN_100K_SMALL, HUGE, Live, THREADS, few,
    },
    ours::{Ours, Recycling},
    workloads::{
        buffer::Range,
        cache::{Iteration, Near, Recycle},
        checkerboard::Checkerboard,
        churn::Churn,
        publish::{Fresh, How},
        query::Queries,
        shrink::Shrinks,
    },
};
use hostmem::jit::JitError;
use hostmem_bench::{lane::count as count_steps, program::Setting, subject::Subject};
use std::time::Duration;

/// Does `steps` steps of the workload of `row` to warm up, and then as many within
/// `counted_steps`. Says whether the row has such a workload.
pub fn count(setting: &Setting, row: &str, steps: usize) -> Result<bool, JitError> {
    let ours = Ours::new()?;
    let mut random = setting.random();
    match row {
        "churn-10k" | "growth" => churn(setting, &ours, &CHURN_10K, steps),
        "churn-100k-small" => churn(setting, &ours, &CHURN_100K_SMALL, steps),
        "churn-100k-large" => churn(setting, &ours, &CHURN_100K_LARGE, steps),
        "churn-1m" => churn(setting, &ours, &CHURN_1M, steps),
        "threads-100" => churn(setting, &ours, &THREADS[0], steps),
        "threads-10k" => churn(setting, &ours, &THREADS[1], steps),
        "checkerboard" => {
            let granule = ours.granule();
            count_steps(&mut Checkerboard::with_holes(&ours, granule, BOARD), steps);
        }
        "checkerboard-growth" => {
            let granule = ours.granule();
            count_steps(
                &mut Checkerboard::without_holes(&ours, granule, BOARD),
                steps,
            );
        }
        "query-hit" | "query-miss" => {
            let trace = CHURN_1M.trace(setting.seed);
            let churn = Churn::new(&ours, &trace, Duration::MAX);
            let starts = churn.starts();
            let mut queries = if row == "query-hit" {
                Queries::hits(&ours, &starts, &mut random)
            } else {
                Queries::misses(&ours, &mut random)
            };
            count_steps(&mut queries, steps);
        }
        "query-huge" => {
            let piece = ours.alloc(HUGE);
            let mut queries = Queries::middle(&ours, piece.address(), HUGE, &mut random);
            count_steps(&mut queries, steps);
        }
        "range" => count_steps(&mut Range, steps),
        "publish-single" => count_steps(&mut Fresh::new(How::Single), steps),
        "publish-batch" => count_steps(&mut Fresh::new(How::Batch), steps),
        "shrink" => count_steps(&mut Shrinks::new(&ours, &mut random), steps),
        "recycle-batch" | "recycle-deferred" | "recycle-now" => {
            let _others = few(&ours);
            let how = match row {
                "recycle-batch" => Recycling::Batch,
                "recycle-deferred" => Recycling::Deferred,
                _ => Recycling::Now,
            };
            count_steps(&mut Recycle::new(&ours, how), steps);
        }
        "near" => {
            let trace = CHURN_100K_SMALL.trace(setting.seed);
            let near = Near::new(&ours);
            count_steps(&mut Churn::new(&near, &trace, Duration::MAX), steps);
        }
        "iterate" => {
            let trace = CHURN_100K_SMALL.trace(setting.seed);
            let churn = Churn::new(&ours, &trace, Duration::MAX);
            count_steps(&mut Iteration(&churn), steps);
        }
        "query-few" => {
            let starts = few(&ours);
            count_steps(&mut Queries::hits(&ours, &starts, &mut random), steps);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn churn(setting: &Setting, ours: &Ours, live: &Live, steps: usize) {
    let trace = live.trace(setting.seed);
    count_steps(&mut Churn::new(ours, &trace, Duration::MAX), steps);
}
