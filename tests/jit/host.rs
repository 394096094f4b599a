//! The JIT allocator on the real system: what the kernel shows of its mappings, and what it makes
//! of refusals.

use crate::{
    code::{allocator, place, run},
    common::{CODE_LEN, call, skip_emulated},
};
use hostmem::{
    jit::{Fill, JitConfig, Mapping},
    page::RwxOptIn,
    provider::{DualStep, ErrorKind},
};
use hostmem_test_support::{
    fault::{Signal, faults},
    isolate::{isolated, leave_out, or_skip},
    maps, seccomp,
};

fn mapping_of(addr: usize) -> maps::Mapping {
    let found = maps::find(addr).expect("/proc is mounted");
    found.expect("it is mapped")
}

/// `rwxp`, as the kernel shows it.
fn access_of(addr: usize) -> (bool, bool, bool) {
    let perms = mapping_of(addr).perms;
    (perms.read, perms.write, perms.execute)
}

#[test]
fn blocks_have_their_name_in_the_process_map() {
    let name = c"hostmem-test: code";
    let rwx = {
        // SAFETY: nothing but the functions of these tests is written there.
        let ok = unsafe { RwxOptIn::accept() };
        Mapping::ReadWriteExec(ok)
    };
    for mapping in [Mapping::Dual, Mapping::Toggle, rwx] {
        let jit = allocator(JitConfig::new().name(name).mapping(mapping));
        let span = place(&jit, 7);
        for view in [span.rx(), span.rw()] {
            let path = mapping_of(view.addr().get()).path;
            if mapping != Mapping::Dual && path.is_empty() {
                leave_out(format!(
                    "{mapping:?}: this kernel keeps no names of anonymous memory"
                ));
                break;
            }
            assert!(path.contains("hostmem-test: code"), "{mapping:?}: {path}");
        }
        jit.release(span).expect("once");
    }
}

#[test]
fn a_block_is_mapped_as_asked_and_never_more_open() {
    let dual = allocator(JitConfig::new());
    let span = place(&dual, 1);
    assert_eq!(access_of(span.rx().addr().get()), (true, false, true));
    assert_eq!(access_of(span.rw().addr().get()), (true, true, false));
    dual.release(span).expect("once");

    let toggle = allocator(JitConfig::new().mapping(Mapping::Toggle));
    let mut span = place(&toggle, 2);
    let rx = span.rx().addr().get();
    assert_eq!(access_of(rx), (true, false, true), "between writes");
    let during = toggle.write_with(&mut span, |_| access_of(rx));
    assert_eq!(during, Ok((true, true, false)), "during a write");
    assert_eq!(access_of(rx), (true, false, true), "and after");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = toggle.write_with(&mut span, |_| std::panic::resume_unwind(Box::new(())));
    }));
    assert!(panicked.is_err(), "the panic is passed on");
    assert_eq!(access_of(rx), (true, false, true), "after a panic too");
    assert_eq!(run(&span), 2);
    let pages = toggle.blocks().next().expect("there is one").rx;
    toggle.release(span).expect("once");
    assert_eq!(access_of(pages.addr()), (true, false, true), "all of it");

    // SAFETY: nothing but the functions of these tests is written there.
    let ok = unsafe { RwxOptIn::accept() };
    let open = allocator(JitConfig::new().mapping(Mapping::ReadWriteExec(ok)));
    let span = place(&open, 3);
    assert_eq!(access_of(span.rx().addr().get()), (true, true, true));
    assert_eq!(run(&span), 3);
    open.release(span).expect("once");
}

#[test]
fn toggled_pages_do_not_run_while_they_are_written() {
    if skip_emulated("does not show faults of cloned processes") {
        return;
    }
    let jit = allocator(JitConfig::new().mapping(Mapping::Toggle));
    let mut span = place(&jit, 9);
    let rx = span.rx();
    let fault = jit.write_with(&mut span, |_| {
        faults(|| {
            // SAFETY: a function is there; that it cannot be executed is what is asked.
            let _ = unsafe { call(rx.as_ptr()) };
        })
    });
    let fault = fault.expect("ours").expect("it must fault");
    assert_eq!(
        (fault.signal, fault.address),
        (Signal::Segv, rx.addr().get())
    );
    assert_eq!(run(&span), 9, "afterwards it runs");
    jit.release(span).expect("once");
}

/// Runs `code` in a forked child and returns the signal that ended it.
fn signal_of(code: *const u8) -> Option<i32> {
    // SAFETY: the child calls code that traps or returns, sets a handler and exits.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a process can be forked");
    if child == 0 {
        // SAFETY: no more than the default is set.
        unsafe { libc::signal(libc::SIGTRAP, libc::SIG_DFL) };
        // SAFETY: it traps; should it not, the test fails.
        let _ = unsafe { call(code) };
        // SAFETY: _exit has no precondition.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: status is a live int.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(ended, child, "the child ends");
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

#[test]
fn a_stray_jump_into_unused_memory_traps() {
    let jit = allocator(JitConfig::new().fill(Fill::Trap).pools(2));
    let (first, second) = (place(&jit, 1), place(&jit, 2));
    let (kept, gone) = (place(&jit, 3), second.rx());
    jit.release(second).expect("once");
    let block = jit.blocks().next().expect("there is one").rx;
    let last = block.end() - CODE_LEN - block.addr();
    let at = |offset: usize| block.start().as_ptr().wrapping_add(offset).cast_const();
    for (what, code) in [
        ("padding", at(0)),
        ("a released span", gone.as_ptr().cast_const()),
        ("the end of the block", at(last)),
        (
            "the rest of a span's granule",
            first.rx().as_ptr().wrapping_add(32),
        ),
    ] {
        assert_eq!(signal_of(code), Some(libc::SIGTRAP), "{what}");
    }
    assert_eq!((run(&first), run(&kept)), (1, 3), "live code runs");
    jit.release(first).expect("once");
    jit.release(kept).expect("once");
}

#[test]
fn unused_memory_that_goes_back_is_not_resident() {
    if skip_emulated("shows no resident memory in smaps") {
        return;
    }
    isolated!("unused_memory_that_goes_back_is_not_resident", || {
        let jit = allocator(JitConfig::new().block_size(4 << 20, 4 << 20));
        let resident = |addr: usize| {
            let field = maps::smaps_field(addr, "Rss").expect("/proc is mounted");
            field.expect("it is mapped") * 1024
        };
        let mut kept = jit.alloc(64 << 10).expect("memory");
        let mut large = jit.alloc(2 << 20).expect("memory");
        jit.write(&mut kept, 0, &vec![1; 64 << 10]).expect("ours");
        jit.write(&mut large, 0, &vec![2; 2 << 20]).expect("ours");
        let rw = kept.rw().addr().get();
        assert!(resident(rw) >= 2 << 20, "it was written");
        jit.release(large).expect("once");
        assert!(resident(rw) >= 2 << 20, "and stays");
        assert!(jit.decommit_unused() >= 2 << 20, "until it is given back");
        let left = resident(rw);
        assert!(left <= 128 << 10, "{left} bytes are resident still");
        // SAFETY: the span is live, and no other code writes to it.
        let bytes = unsafe { std::slice::from_raw_parts(kept.rx().as_ptr(), 64 << 10) };
        assert!(bytes.iter().all(|&b| b == 1), "live code stays");
        let again = place(&jit, 77);
        assert_eq!(run(&again), 77, "what was given back serves again");
    });
}

/// Shuts every way to a dual mapping with an error of its own.
fn shut_dual_mappings(errno: i32) -> Option<()> {
    let calls = [
        libc::SYS_memfd_create,
        libc::SYS_openat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
    ];
    or_skip(seccomp::refuse(&calls, errno))
}

#[test]
fn refused_dual_mappings_become_toggled_ones_and_the_reason_is_kept() {
    let test = "refused_dual_mappings_become_toggled_ones_and_the_reason_is_kept";
    isolated!(test, || {
        // Made while everything was allowed: it is the first block that tells.
        let jit = allocator(JitConfig::new().mapping(Mapping::Auto));
        let dual = allocator(JitConfig::new());
        if shut_dual_mappings(libc::EPERM).is_none() {
            return;
        }
        let span = place(&jit, 42);
        assert_eq!(run(&span), 42, "code runs all the same");
        let (mapping, reason) = jit.mapping();
        let reason = reason.expect("it is kept");
        assert_eq!(mapping, Mapping::Toggle);
        assert_eq!(
            (reason.kind(), reason.errno()),
            (ErrorKind::Denied, Some(libc::EPERM))
        );
        let steps: Vec<_> = reason.steps().map(|(step, e)| (step, e.errno())).collect();
        assert!(steps.len() > 2, "every step is there: {steps:?}");
        assert_eq!(steps[0], (DualStep::Memfd, Some(libc::EPERM)));
        jit.release(span).expect("once");
        assert!(
            dual.alloc(1).is_err(),
            "who asked for dual ones gets an error"
        );
    });
}
