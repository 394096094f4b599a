//! What dual mappings promise, on hosts that make it hard: the executable view never becomes
//! writable, memory is there before it is used, and what cannot be had is an error.
#![cfg(all(target_os = "linux", feature = "linux"))]

#[path = "../common/mod.rs"]
mod common;
mod seals;
mod shortage;

use crate::common::{call, skip_emulated, unmap_dual, write_code};
use core::ffi::CStr;
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError, Mapping, Span},
    page::{PageRange, RwxOptIn},
    probe::Setting,
    provider::{
        Capabilities, DualError, DualMapProvider, DualMapping, DualRequest, ErrorKind, Fork,
        PageProvider, Request, Target,
    },
};
use hostmem_test_support::{
    isolate::{isolated, or_skip},
    maps, mounts, seccomp,
};
use std::{fs, io};

const OS: OsProvider = OsProvider::new();
const NOWHERE: &[&CStr] = &[];

/// A provider that has memory files and `/dev/shm`, and no other directories.
const NO_DIRECTORIES: OsProvider = OsProvider::with_directories(NOWHERE);

const LEN: usize = 1 << 20;
const LARGE: usize = 2 << 20;
type Jit = JitAllocator<OsProvider, OsProvider, OsLock>;

fn allocator(os: OsProvider, config: JitConfig) -> Jit {
    JitAllocator::on(os, os, config).expect("the configuration is valid")
}

fn map(os: &OsProvider, len: usize) -> Result<DualMapping, DualError> {
    // SAFETY: neither target is a range of ours.
    unsafe { os.map_dual(&DualRequest::bytes(len)) }
}

fn purge(mapping: &DualMapping, offset: usize, len: usize) -> Result<(), ErrorKind> {
    // SAFETY: no other code uses those pages until they are refilled.
    unsafe { OS.purge_dual(mapping, offset, len) }.map_err(|error| error.kind())
}

fn refill(mapping: &DualMapping, offset: usize, len: usize) -> Result<(), ErrorKind> {
    // SAFETY: the mapping is ours.
    unsafe { OS.refill_dual(mapping, offset, len) }.map_err(|error| error.kind())
}

/// Returns where a byte of a view is.
fn at(view: PageRange, offset: usize) -> *mut u8 {
    view.start().as_ptr().wrapping_add(offset)
}

/// Writes every page of a mapping, and reads it through the other view.
fn use_all(mapping: &DualMapping) {
    for offset in (0..mapping.len_bytes()).step_by(4096) {
        // SAFETY: inside the view, which is writable and ours alone.
        unsafe { at(mapping.rw(), offset).write(7) };
        // SAFETY: inside the view, which is readable.
        assert_eq!(unsafe { at(mapping.rx(), offset).read() }, 7);
    }
}

fn refuse(calls: &[libc::c_long], errno: i32) -> Option<()> {
    or_skip(seccomp::refuse(calls, errno))
}

fn fill(jit: &Jit, len: usize) -> Span {
    let mut span = jit.alloc(len).expect("there is memory");
    jit.write(&mut span, 0, &vec![0x90; len]).expect("ours");
    span
}

#[test]
fn both_views_go_and_nothing_beside_them() {
    isolated!("both_views_go_and_nothing_beside_them", || {
        for (rw, rx) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
            let whole = OS.reserve(&Request::bytes(3 * LEN)).expect("addresses");
            let part = |n: usize| {
                let part = whole.part(n * LEN, LEN, OS.page_size());
                part.expect("whole pages of the reservation")
            };
            let request = DualRequest {
                rw: Target::Into(part(rw)),
                rx: Target::Into(part(rx)),
                ..DualRequest::bytes(LEN)
            };
            // SAFETY: both are parts of what was reserved just now, and no other code uses them.
            let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
            use_all(&mapping);
            unmap_dual(&OS, mapping);
            let mapped = |n: usize| {
                let at = maps::find(part(n).addr()).expect("there is /proc");
                at.is_some()
            };
            let beside = 3 - rw - rx;
            assert!(!mapped(rw) && !mapped(rx), "views at {rw} and {rx}");
            assert!(mapped(beside), "what is beside views at {rw} and {rx}");
            // SAFETY: reserved above, and no other code uses it.
            unsafe { OS.release(part(beside)) }.expect("a whole mapping");
        }
    });
}

#[test]
fn readable_memory_that_is_executable_is_told_and_can_be_refused() {
    if skip_emulated("gives mappings a personality of its own") {
        return;
    }
    let test = "readable_memory_that_is_executable_is_told_and_can_be_refused";
    isolated!(test, || {
        let explicit = Capabilities::EXEC_ONLY_WHERE_ASKED;
        let strict = JitConfig::new().strict(true);
        assert!(OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::Off);
        allocator(OS, strict);
        // SAFETY: nothing but the accesses of later mappings changes.
        let before = unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) };
        assert!(before >= 0, "it can be set");
        assert!(!OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::On);
        let refused = Jit::on(OS, OS, strict);
        assert!(matches!(refused, Err(JitError::Unsupported)));
        let jit = allocator(OS, JitConfig::new());
        let span = fill(&jit, 100);
        let found = maps::find(span.rw().addr().get()).expect("/proc is mounted");
        let perms = found.expect("it is mapped").perms;
        let both = (perms.write, perms.execute);
        assert_eq!(both, (true, true), "which is what is told");
        jit.release(span).expect("once");
        // SAFETY: sets back what was there; only the accesses of later mappings change.
        unsafe { libc::personality(before.cast_unsigned().into()) };
        allocator(OS, strict);
        // A question that is refused is no promise.
        if refuse(&[libc::SYS_personality], libc::EPERM).is_none() {
            return;
        }
        assert!(!OS.capabilities().contains(explicit));
        assert_eq!(OS.probe_now().read_implies_exec, Setting::Absent);
    });
}

#[test]
fn a_strict_allocator_is_never_writable_and_executable() {
    // SAFETY: nothing is written there.
    let both = Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() });
    let refused = Jit::on(OS, OS, JitConfig::new().strict(true).mapping(both));
    assert!(matches!(refused, Err(JitError::Config(_))));
}

/// Starts a child that is traced by this thread, and stops at once.
fn traced_child() -> libc::pid_t {
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a process can be forked");
    if child == 0 {
        // SAFETY: asks to be traced by its parent.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: stops, for the tracer to look.
        unsafe { libc::raise(libc::SIGSTOP) };
        // SAFETY: _exit has no precondition.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: status is a live int.
    let stopped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(stopped == child && libc::WIFSTOPPED(status), "{status:#x}");
    child
}

/// Writes a word as a debugger writes a breakpoint.
fn poke(child: libc::pid_t, at: *const u8, word: libc::c_long) -> Result<(), Option<i32>> {
    // SAFETY: writes to the memory of the child only.
    let result = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, child, at, word) };
    if result == -1 {
        return Err(io::Error::last_os_error().raw_os_error());
    }
    // SAFETY: reads the memory of the child only.
    let found = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child, at, 0) };
    assert_eq!(found, word, "it was written");
    Ok(())
}

#[test]
fn debuggers_write_into_code_that_is_mapped_once() {
    isolated!("debuggers_write_into_code_that_is_mapped_once", || {
        if skip_emulated("cannot trace") {
            return;
        }
        let dual = allocator(OS, JitConfig::new().fork(Fork::Share));
        let toggled = allocator(OS, JitConfig::new().mapping(Mapping::Toggle));
        let (twice, once) = (fill(&dual, 100), fill(&toggled, 100));
        let child = traced_child();
        let word = 0x0102_0304;
        let into_dual = poke(child, twice.rx().as_ptr(), word);
        let into_rw = poke(child, twice.rw().as_ptr(), word);
        let into_toggled = poke(child, once.rx().as_ptr(), word);
        // SAFETY: ends the child of this test.
        unsafe { libc::kill(child, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: status is a live int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(
            into_dual,
            Err(Some(libc::EIO)),
            "a view that is never writable"
        );
        assert_eq!(into_rw, Ok(()), "the other view is");
        assert_eq!(into_toggled, Ok(()), "private memory is copied for it");
        // SAFETY: the span is live, and no other code writes to it.
        let seen = unsafe { twice.rx().as_ptr().cast::<u32>().read() };
        assert_eq!(seen, 0x0102_0304, "views are shared, with this process too");
        for (jit, span) in [(&dual, twice), (&toggled, once)] {
            jit.release(span).expect("once");
        }
    });
}

/// Asserts that the kernel refuses to make the executable view writable.
fn expect_never_writable(mapping: &DualMapping) {
    let rx = mapping.rx();
    for access in [
        libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
    ] {
        let start = rx.start().as_ptr().cast();
        // SAFETY: a view of ours; that it cannot be changed is what is asked.
        let result = unsafe { libc::mprotect(start, rx.len_bytes(), access) };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((result, error), (-1, Some(libc::EACCES)), "{access:#x}");
    }
    // SAFETY: at least a page, and ours alone.
    unsafe { write_code(mapping, 128, 4711) };
    // SAFETY: published just now.
    let value = unsafe { call(rx.start().as_ptr().wrapping_add(128)) };
    assert_eq!(value, 4711, "code runs");
}

/// Makes a namespace for this thread in which there is no `/proc`.
fn lose_proc() -> Option<()> {
    or_skip(mounts::enter_namespace())?;
    or_skip(mounts::detach("/proc"))?;
    assert!(!fs::exists("/proc/self").expect("it can be asked"));
    Some(())
}

/// Asserts that a mapping is sealed: never writable, and not to be purged.
fn expect_sealed(mapping: &DualMapping) {
    expect_never_writable(mapping);
    assert!(!mapping.purges(), "{mapping:?}");
    let page = mapping.page_size().bytes();
    assert_eq!(purge(mapping, 0, page), Err(ErrorKind::Unsupported));
    assert_eq!(purge(mapping, 1, page), Err(ErrorKind::InvalidArgument));
    assert_eq!(refill(mapping, 0, page), Ok(()), "it has its memory");
    use_all(mapping);
}
