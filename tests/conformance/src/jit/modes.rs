//! Blocks that are mapped once: toggled, or writable and executable.

use super::{adapted, configs::RWX, make, model::Model, need_jit, unable};
use crate::{Outcome, code};
use core::slice;
use hostmem_core::{
    jit::{Fill, JitAllocator, JitConfig, JitError, Mapping},
    provider::{Capabilities, Error, ErrorKind, Provider},
    sim::{Calls, Faulty},
};

/// Writes functions, runs them, replaces them and runs those.
fn expect_code_runs<P: Provider + Copy, M: Provider + Copy>(jit: &JitAllocator<P, M>) {
    let mut spans = alloc::vec::Vec::new();
    for round in 0..3 {
        for n in 0..200 {
            let value = 1000 * round + n;
            let Some(function) = code::returning(value) else {
                return;
            };
            let mut span = jit.alloc(100).expect("a small span can be had");
            let result = if n % 2 == 0 {
                jit.write(&mut span, 0, function.bytes())
            } else {
                let bytes = function.bytes();
                jit.write_with(&mut span, |w| {
                    w.bytes_mut()[..bytes.len()].copy_from_slice(bytes)
                })
            };
            result.expect("it can be written");
            spans.push((span, value));
        }
        for (span, value) in &spans {
            // SAFETY: the allocator published the code of `returning` at the start of the span.
            let returned = unsafe { code::call(span.rx()) };
            assert_eq!(returned, u32::from(*value), "each span runs its own code");
        }
        for (span, _) in spans.drain(..100) {
            jit.release(span).expect("an owned span is taken back");
        }
    }
}

fn expect_mapped_once<P: Provider + Copy>(p: P, mapping: Mapping) -> Outcome {
    if let Some(reason) = unable(p, &JitConfig::new().mapping(mapping)) {
        return Outcome::Skipped(reason);
    }
    for fill in [Fill::Keep, Fill::Trap] {
        let jit = make(p, JitConfig::new().mapping(mapping).fill(fill));
        let jit = jit.expect("an allocator can be made");
        expect_code_runs(&jit);
        assert_eq!(jit.mapping(), (mapping, None), "as it was asked for");
        let mut span = jit.alloc(10_000).expect("a span can be had");
        assert_eq!(span.rx(), span.rw(), "there is one view");
        jit.write(&mut span, 5000, &[7; 1000])
            .expect("it can be written");
        // SAFETY: the span is live and readable, and no other code writes to it.
        let bytes = unsafe { slice::from_raw_parts(span.rx().as_ptr(), 6000) };
        assert_eq!(bytes[5000..], [7; 1000], "and is there");
        assert_eq!(
            jit.decommit_unused(),
            0,
            "nothing is shared, so nothing goes"
        );
        jit.release(span).expect("an owned span is taken back");
    }
    Outcome::Passed
}

pub(super) fn toggled_code_is_written_and_runs<P: Provider + Copy>(p: P) -> Outcome {
    expect_mapped_once(p, Mapping::Toggle)
}

pub(super) fn writable_and_executable_code_runs<P: Provider + Copy>(p: P) -> Outcome {
    expect_mapped_once(p, RWX)
}

pub(super) fn a_mapping_that_the_host_lacks_is_refused<P: Provider + Copy>(p: P) -> Outcome {
    for mapping in [Mapping::Dual, Mapping::Toggle, Mapping::Auto, RWX] {
        let config = JitConfig::new().mapping(mapping);
        let made = make(p, config);
        match unable(p, &config) {
            Some(_) => assert!(
                matches!(made, Err(JitError::Unsupported)),
                "{mapping:?} is not to be had: {made:?}"
            ),
            None => assert!(made.is_ok(), "{mapping:?}: {made:?}"),
        }
    }
    Outcome::Passed
}

/// An allocator of blocks mapped by what the host can, whose dual mappings all fail with `error`.
fn without_dual<P: Provider + Copy>(faulty: &Faulty<P>, p: P) -> JitAllocator<&Faulty<P>, P> {
    faulty.only(Calls::MAP_DUAL);
    faulty.fail_randomly(0, 1);
    let config = adapted(p, JitConfig::new().mapping(Mapping::Auto));
    JitAllocator::on(faulty, p, config).expect("an allocator can be made")
}

pub(super) fn refused_dual_mappings_are_replaced<P: Provider + Copy>(p: P) -> Outcome {
    let able = p.capabilities();
    if !able.contains(Capabilities::DUAL | Capabilities::TOGGLE_EXEC) {
        return Outcome::Skipped("not both kinds of mappings");
    }
    for kind in [ErrorKind::Denied, ErrorKind::Unsupported] {
        let error = Error::os(kind, 13);
        let faulty = Faulty::new(p).with_error(error);
        let jit = without_dual(&faulty, p);
        assert_eq!(
            jit.mapping(),
            (Mapping::Dual, None),
            "nothing was tried yet"
        );
        expect_code_runs(&jit);
        let (mapping, reason) = jit.mapping();
        assert_eq!(mapping, Mapping::Toggle, "the next best");
        assert_eq!(reason.map(|r| r.cause()), Some(error), "the reason is kept");
        assert!(faulty.calls() < 8, "they are not tried for every block");
    }
    // A want of memory says nothing about what the host permits.
    let faulty = Faulty::new(p);
    let jit = without_dual(&faulty, p);
    let before = jit.statistics();
    for _ in 0..3 {
        let error = jit.alloc(100).expect_err("there is no memory");
        let cause = matches!(error, JitError::Map(e) if e.kind() == ErrorKind::Exhausted);
        assert!(cause, "the error is passed on: {error:?}");
    }
    let after = jit.statistics();
    assert_eq!(
        (before.blocks, before.used),
        (after.blocks, after.used),
        "nothing changed"
    );
    faulty.fail_none();
    expect_code_runs(&jit);
    assert_eq!(jit.mapping(), (Mapping::Dual, None), "later there is");
    Outcome::Passed
}

pub(super) fn failed_toggles_are_told<P: Provider + Copy>(p: P) -> Outcome {
    let config = adapted(p, JitConfig::new().mapping(Mapping::Toggle));
    if let Some(reason) = unable(p, &config) {
        return Outcome::Skipped(reason);
    }
    let error = Error::os(ErrorKind::Exhausted, 12);
    let faulty = Faulty::new(p);
    faulty.only(Calls::PROTECT);
    let jit = JitAllocator::<_, P>::on(&faulty, p, config);
    let mut model = Model::new(jit.expect("an allocator can be made"));
    model.alloc(100, 1).expect("a small span can be had");
    let before = model.jit.statistics();
    faulty.fail_nth(0);
    let live = &mut model.live[0];
    let result = model.jit.write(&mut live.span, 0, &[9; 100]);
    assert_eq!(result, Err(JitError::Protect(error)), "not writable");
    model.expect_all_intact();
    faulty.fail_nth(0);
    let live = &mut model.live[0];
    let result = model
        .jit
        .write_with(&mut live.span, |_| panic!("it must not be called"));
    assert_eq!(result, Err(JitError::Protect(error)), "not writable");
    model.expect_all_intact();
    assert_eq!(model.jit.statistics(), before, "nothing changed");
    // Not executable again: everything was written, and the next write makes it so.
    faulty.fail_nth(1);
    let live = &mut model.live[0];
    let result = model.jit.write(&mut live.span, 0, &[9; 100]);
    assert_eq!(result, Err(JitError::Protect(error)), "not executable");
    live.contents[..100].fill(9);
    model.expect_all_intact();
    if let Some(function) = code::returning(77) {
        let live = &mut model.live[0];
        let result = model.jit.write(&mut live.span, 0, function.bytes());
        assert_eq!(result, Ok(()), "the next write");
        live.contents[..function.bytes().len()].copy_from_slice(function.bytes());
        // SAFETY: the allocator published the code of `returning` at the start of the span.
        let returned = unsafe { code::call(live.span.rx()) };
        assert_eq!(returned, 77, "the code runs");
    }
    model.release_all();
    Outcome::Passed
}

pub(super) fn a_strict_allocator_is_never_open<P: Provider + Copy>(p: P) -> Outcome {
    need_jit!(p);
    let strict = JitConfig::new().strict(true);
    let refused = |config| matches!(make(p, config), Err(JitError::Unsupported));
    let both = make(p, strict.mapping(RWX));
    let asks = matches!(both, Err(JitError::Config(e)) if e.setting() == "mapping");
    assert!(asks, "it asks for both at once");
    let explicit = Capabilities::EXEC_ONLY_WHERE_ASKED;
    if !p.capabilities().contains(explicit) {
        assert!(refused(strict), "what is readable is executable here");
        assert!(make(p, JitConfig::new()).is_ok(), "others do not mind");
        return Outcome::Passed;
    }
    let jit = make(p, strict).expect("nothing is executable unasked");
    assert!(jit.config().is_strict());
    expect_code_runs(&jit);
    Outcome::Passed
}
