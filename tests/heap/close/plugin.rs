//! Libraries that are loaded and unloaded, each with a heap of its own.

use super::{MIB, Meeting};
use crate::common::{at_length, bare_fork, copies_of, exit, skip_emulated, wait};
use core::{
    ffi::{CStr, c_void},
    mem::transmute,
    ptr::{NonNull, null_mut},
};
use hostmem_test_support::{isolate::isolated, maps};
use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    thread::Scope,
};

/// What `examples/plugin.rs` exports.
#[derive(Clone, Copy)]
struct Calls {
    alloc: extern "C" fn(usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8) -> bool,
    close: unsafe extern "C" fn() -> bool,
}

struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
        // SAFETY: a library whose constructors are the standard library's.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "{path:?} is loaded");
        Self(library)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library, and a string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?} is there");
        symbol
    }

    fn calls(&self) -> Calls {
        Calls {
            // SAFETY: the example exports a function of this type by this name.
            alloc: unsafe {
                transmute::<*mut c_void, extern "C" fn(usize) -> *mut u8>(
                    self.symbol(c"plugin_alloc"),
                )
            },
            // SAFETY: the example exports a function of this type by this name.
            free: unsafe {
                transmute::<*mut c_void, unsafe extern "C" fn(*mut u8) -> bool>(
                    self.symbol(c"plugin_free"),
                )
            },
            // SAFETY: the example exports a function of this type by this name.
            close: unsafe {
                transmute::<*mut c_void, unsafe extern "C" fn() -> bool>(
                    self.symbol(c"plugin_close"),
                )
            },
        }
    }

    fn unload(self) {
        // SAFETY: open, and used no more but by threads whose ends keep it.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

impl Calls {
    /// Allocates blocks of all kinds, and frees most.
    fn exercise(self) {
        for n in 0..100 {
            let size = [16, 300, 5000, 70_000, 3 * MIB][n % 5];
            let block = (self.alloc)(size);
            assert!(!block.is_null(), "memory for {size} bytes");
            // SAFETY: a live block of this size.
            unsafe { block.write_bytes(1, size) };
            if n % 7 != 0 {
                // SAFETY: live, and used no more.
                assert!(unsafe { (self.free)(block) });
            }
        }
    }

    fn check_closed(self) {
        assert_eq!((self.alloc)(100), null_mut());
        // SAFETY: no block.
        assert!(!unsafe { (self.free)(NonNull::<u8>::dangling().as_ptr()) });
        self.close();
    }

    fn close(self) {
        // SAFETY: the other threads wait, and blocks are used no more.
        assert!(unsafe { (self.close)() });
    }
}

fn is_loaded(path: &Path) -> bool {
    let mappings = maps::of_self().expect("/proc is mounted");
    mappings.iter().any(|m| Path::new(&m.path) == path)
}

/// A child runs what libraries registered for it, if they are still there.
fn check_fork() {
    let child = bare_fork();
    if child == 0 {
        exit(0);
    }
    assert_eq!(wait(child), 0);
}

/// Loads a plugin, uses it from a thread that ends, from one that goes on and from one that
/// comes after it was closed, and unloads it: before that one ends, if it `outlives` the
/// plugin.
fn cycle<'s>(scope: &'s Scope<'s, '_>, step: &'s Meeting, path: &Path, outlives: bool) {
    let library = Library::open(path);
    let calls = library.calls();
    let ended = scope.spawn(move || calls.exercise()).join();
    assert!(ended.is_ok(), "a thread that ended before");
    let other = scope.spawn(move || {
        calls.exercise();
        step.wait();
        step.wait();
        calls.check_closed();
        step.wait();
        step.wait();
    });
    step.wait();
    if outlives {
        calls.close();
    } else {
        let closed = scope.spawn(move || calls.close()).join();
        assert!(closed.is_ok(), "a thread that never allocated closes");
    }
    step.wait();
    step.wait();
    check_fork();
    if outlives {
        library.unload();
        assert!(
            is_loaded(path),
            "the thread is still to end by a call of it"
        );
        step.wait();
        assert!(other.join().is_ok(), "a thread that ends after");
    } else {
        step.wait();
        assert!(other.join().is_ok(), "a thread that goes on");
        library.unload();
        assert!(!is_loaded(path), "no thread is to end by it");
    }
    check_fork();
}

/// Returns the bytes of addresses of this process, those that are resident, and how many
/// mappings it has.
fn held() -> [usize; 3] {
    let mappings = maps::of_self().expect("/proc is mounted");
    let mapped = mappings.iter().map(|m| m.end - m.start).sum();
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let resident = text.split(' ').nth(1).and_then(|n| n.parse().ok());
    let resident: usize = resident.expect("a number of pages");
    [mapped, resident << 12, mappings.len()]
}

/// Builds the plugin example and returns where two copies of it lie, which are two libraries
/// for a loader.
fn plugins() -> [PathBuf; 2] {
    // With what the tests were built with, which is there then.
    let features = match cfg!(feature = "sim") {
        true => "--features=std,sim",
        false => "--features=std",
    };
    let copies = ["plugin-for-tests-1.so", "plugin-for-tests-2.so"];
    copies_of(&["plugin", features], "libplugin.so", copies)
}

#[test]
fn libraries_that_are_unloaded_leave_nothing() {
    if skip_emulated("runs programs without a dynamic linker") {
        return;
    }
    let paths = plugins();
    isolated!("libraries_that_are_unloaded_leave_nothing", || {
        let (warm, rounds) = (20, if at_length() { 1000 } else { 80 });
        let step = Meeting::new();
        let mut before = [0; 3];
        for n in 0..rounds {
            // One that outlived its plugin has that go when the next one is unloaded.
            thread::scope(|scope| cycle(scope, &step, &paths[n % 2], n % 2 == 0));
            assert!(n % 2 == 0 || paths.iter().all(|path| !is_loaded(path)));
            if n + 1 == warm {
                before = held();
            }
        }
        let after = held();
        println!("{before:?}, and {after:?} after {rounds} plugins");
        // Less than any two of them would leave: addresses for dozens of megabytes, one of
        // memory, and six mappings each.
        for (n, most) in [64 * MIB, 2 * MIB, 8].into_iter().enumerate() {
            assert!(after[n] <= before[n] + most, "{before:?}, then {after:?}");
        }
    });
}
