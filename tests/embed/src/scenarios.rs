//! A selection of what the JIT allocator must hold, without an operating system's library under it.

use crate::{
    cpu,
    steps::{Jit, OS, Step, call, check, generate},
};
use hostmem::{
    jit::{Fill, JitConfig, JitError, Reset, Span},
    provider::Placement,
};

/// Spans that live at a time.
const SPANS: usize = 256;

/// How far a direct branch of AArch64 reaches.
const REACH: usize = 128 << 20;

type Spans = [Option<Span>; SPANS];

pub(crate) fn run() -> Result<(), Step> {
    let config = JitConfig::new().granularity(16).pools(3).fill(Fill::Trap);
    let jit = Jit::on(OS, OS, config).map_err(|_| Step::MakeAllocator)?;
    let mut spans: Spans = [const { None }; SPANS];
    fill(&jit, &mut spans, 0)?;
    expect_all(&jit, &spans, 0)?;
    for span in spans.iter_mut().step_by(2) {
        let released = span.take().is_some_and(|span| jit.release(span).is_ok());
        check(released, Step::Churn)?;
    }
    fill(&jit, &mut spans, 0)?;
    expect_all(&jit, &spans, 0)?;
    refusals(&jit, &spans)?;
    near(&jit)?;
    reset(&jit, spans)
}

/// What the nth span returns.
fn value(n: usize, salt: u32) -> u32 {
    u32::try_from(n).unwrap_or(0) * 3 + salt
}

/// Makes a function for every place that has none, all in one batch.
fn fill(jit: &Jit, spans: &mut Spans, salt: u32) -> Result<(), Step> {
    for (n, place) in spans.iter_mut().enumerate() {
        if place.is_none() {
            let span = jit.alloc(16 + n * 37 % 1000);
            *place = Some(span.map_err(|_| Step::Churn)?);
        }
    }
    let mut batch = jit.batch();
    for (n, span) in spans.iter_mut().enumerate() {
        if let Some(span) = span {
            let written = batch.write(span, 0, &cpu::returning(value(n, salt)));
            written.map_err(|_| Step::Churn)?;
        }
    }
    batch.finish().map_err(|_| Step::Churn)
}

/// Runs every function, and asks for it by its last byte.
fn expect_all(jit: &Jit, spans: &Spans, salt: u32) -> Result<(), Step> {
    for (n, span) in spans.iter().enumerate() {
        let span = span.as_ref().ok_or(Step::Churn)?;
        check(call(span) == value(n, salt), Step::Churn)?;
        let last = span.rx().addr().get() + span.len_bytes() - 1;
        check(jit.query(last) == Some(span.info()), Step::Churn)?;
    }
    Ok(())
}

/// Bad calls are refused and change nothing.
fn refusals(jit: &Jit, spans: &Spans) -> Result<(), Step> {
    let before = jit.statistics();
    let rx = spans[7].as_ref().map_or(0, |span| span.rx().addr().get());
    for (addr, error) in [
        (rx + 1, JitError::Interior),
        (0, JitError::NotOwned),
        (run as fn() -> _ as usize, JitError::NotOwned),
    ] {
        // SAFETY: no span starts at any of these.
        let refused = unsafe { jit.release_at(addr) };
        check(refused == Err(error), Step::Refusal)?;
    }
    check(
        jit.alloc(0).is_err() && jit.alloc(usize::MAX).is_err(),
        Step::Refusal,
    )?;
    check(jit.statistics() == before, Step::Refusal)
}

/// Spans near an anchor lie in its reach.
fn near(jit: &Jit) -> Result<(), Step> {
    let anchor = run as fn() -> _ as usize;
    for n in 0..32 {
        let span = jit.alloc_with(100 + n, Placement::near(anchor, REACH));
        let span = span.map_err(|_| Step::Near)?;
        let start = span.rx().addr().get();
        let end = start + span.len_bytes();
        check(
            start.abs_diff(anchor) <= REACH && end.abs_diff(anchor) <= REACH,
            Step::Near,
        )?;
        jit.release(span).map_err(|_| Step::Near)?;
    }
    Ok(())
}

/// After a hard reset nothing is left, tokens from before are refused, and everything works.
fn reset(jit: &Jit, spans: Spans) -> Result<(), Step> {
    // SAFETY: no other code uses any span any more.
    unsafe { jit.reset(Reset::Hard) };
    let left = jit.statistics();
    check(
        left.blocks == 0 && left.spans == 0 && left.used == 0,
        Step::Reset,
    )?;
    for span in spans.into_iter().flatten() {
        check(jit.release(span).is_err(), Step::Reset)?;
    }
    let again = generate(jit, 99)?;
    check(call(&again) == 99, Step::Reset)?;
    jit.release(again).map_err(|_| Step::Reset)
}
