//! Code ranges in forked children.

use super::{is_taken, page, range, run};
use crate::common::{bare_fork, code_returning, exit, skip_emulated, wait};
use hostmem::{
    CodeRange, CodeRangeConfig,
    fork::ForkChild,
    jit::{JitError, Mapping},
    page::AddressRange,
    provider::{ErrorKind, Fork},
};
use hostmem_test_support::isolate::isolated;

#[test]
fn what_a_forked_child_sees() {
    if skip_emulated("does not pass MADV_DONTFORK on") {
        return;
    }
    isolated!("what_a_forked_child_sees", || {
        for fork in [Fork::ChildLosesRw, Fork::Share, Fork::ChildLosesBoth] {
            let mut code = range(CodeRangeConfig::new(2 * page()).fork(fork).guard(page()));
            code.write(0, &code_returning(1)).expect("memory");
            let child = bare_fork();
            if child == 0 {
                exit(child_of(&mut code, fork));
            }
            assert_eq!(wait(child), 0, "{fork:?}");
            let seen = if fork == Fork::Share { 2 } else { 1 };
            assert_eq!(run(&code, 0), seen, "{fork:?}");
        }
        let mut toggled = range(CodeRangeConfig::new(page()).mapping(Mapping::Toggle));
        toggled.write(0, &code_returning(1)).expect("memory");
        let child = bare_fork();
        if child == 0 {
            // SAFETY: the only thread of a child that was just forked.
            let repaired = unsafe { toggled.fork_child() };
            let written = toggled.write(0, &code_returning(2));
            exit(i32::from(
                repaired != Ok(()) || written.is_err() || run(&toggled, 0) != 2,
            ));
        }
        assert_eq!(wait(child), 0, "it has a copy of its own");
        assert_eq!(run(&toggled, 0), 1);
    });
}

/// What is wrong in a child; zero if nothing is.
fn child_of(code: &mut CodeRange, fork: Fork) -> i32 {
    // SAFETY: the only thread of a child that was just forked.
    if unsafe { code.fork_child() } != Ok(()) {
        return 1;
    }
    let written = code.write(0, &code_returning(2));
    let expected = if fork == Fork::Share {
        Ok(())
    } else {
        Err(JitError::ReadOnly)
    };
    if written != expected {
        return 2;
    }
    // SAFETY: no code in the range is executed; the call is refused where a view is gone.
    let shrunk = unsafe { code.shrink(0..page()) }.map_err(|e| e.kind());
    if shrunk != expected.map_err(|_| ErrorKind::Denied) {
        return 3;
    }
    if fork != Fork::ChildLosesBoth && run(code, 0) != if fork == Fork::Share { 2 } else { 1 } {
        return 4;
    }
    // Its addresses are still its own.
    let len = code.len_bytes();
    let views = [code.rw(), code.rx()].map(|view| AddressRange::from_len(view.addr().get(), len));
    i32::from(!views.into_iter().flatten().all(is_taken)) * 5
}
