//! Runs the body of a test under the tracer.

use hostmem_test_support::isolate::isolated_by;
use hostmem_test_support::trace::{Plan, TraceReport, Tracer};

/// Runs `body` isolated and traced. None in the isolated process itself, and where the host does
/// not permit tracing.
pub(crate) fn traced(test_name: &str, plan: Plan, body: impl FnOnce()) -> Option<TraceReport> {
    let mut report = None;
    let start = |command| {
        let traced = Tracer::run(command, plan)?;
        let output = traced.output.clone();
        report = Some(traced);
        Ok(output)
    };
    isolated_by(test_name, start, body);
    report
}
