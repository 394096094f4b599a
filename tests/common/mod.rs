//! What the tests on Linux share.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::allow_attributes,
    reason = "which part is unused differs from test to test"
)]

pub(crate) mod limits;
pub(crate) mod random;
pub(crate) mod signals;
#[cfg(target_arch = "x86_64")]
pub(crate) mod steps;
pub(crate) mod threads;

use core::{ffi::c_void, ptr::null_mut};
use hostmem::{
    OsProvider, arch,
    fork::{ForkChild, ForkHooks, around_fork},
    provider::{DualMapProvider, DualMapping, DualRequest, Leave, PageProvider},
};
use hostmem_test_support::isolate::skip;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// The heap of the tests themselves.
#[cfg(feature = "std")]
#[global_allocator]
static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();

/// Says whether a mapping may come and go with what the tests themselves allocate, or as their
/// stacks grow.
pub(crate) fn is_of_test(start: usize, path: &str) -> bool {
    #[cfg(feature = "std")]
    let allocated = HEAP.heap().is_ok_and(|heap| heap.owns(start));
    #[cfg(not(feature = "std"))]
    let allocated = path == "[heap]" && start != 0;
    allocated || path.starts_with('[')
}

/// Says whether an emulator stands in for the kernel, as `ci/aarch64.sh` tells by the environment.
pub(crate) fn emulated() -> bool {
    std::env::var_os("HOSTMEM_EMULATED").is_some()
}

/// Says whether what runs takes many times as long as elsewhere: under an emulator, or where every
/// access to memory is watched, as `ci/tsan.sh` tells by the environment.
pub(crate) fn is_slowed() -> bool {
    emulated() || std::env::var_os("HOSTMEM_WATCHED").is_some()
}

/// Says whether scenarios run at full length, as `ci/long.sh` tells by the environment.
pub(crate) fn at_length() -> bool {
    std::env::var_os("HOSTMEM_LONG").is_some()
}

/// Skips a test aloud where an emulator stands in for the kernel and lacks something of it.
pub(crate) fn skip_emulated(lack: &str) -> bool {
    if emulated() {
        skip(format!("the emulator {lack}"));
    }
    emulated()
}

/// Says whether the kernel, whatever it pretends to be, unmaps nothing before a map can succeed:
/// since Linux 6.12.
pub(crate) fn undoes_maps() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 12)
}

/// Bytes of a function that returns a constant.
pub(crate) const CODE_LEN: usize = 8;

/// Machine code of `extern "C" fn() -> u32` that returns `value`, which is below 65,536.
pub(crate) fn code_returning(value: u32) -> [u8; CODE_LEN] {
    assert!(value < 1 << 16, "one instruction loads it on every CPU");
    if cfg!(target_arch = "x86_64") {
        let [a, b, c, d] = value.to_le_bytes();
        [0xb8, a, b, c, d, 0xc3, 0xcc, 0xcc] // mov eax, value; ret; int3; int3
    } else {
        let [a, b, c, d] = (0x5280_0000 | value << 5).to_le_bytes(); // mov w0, value
        [a, b, c, d, 0xc0, 0x03, 0x5f, 0xd6] // ret
    }
}

/// Calls a function that [`code_returning`] made.
///
/// # Safety
///
/// Such code is published at `rx`, and stays until the call returns.
pub(crate) unsafe fn call(rx: *const u8) -> u32 {
    // SAFETY: the caller says that a whole function of this type is there.
    let function: extern "C" fn() -> u32 = unsafe { core::mem::transmute(rx) };
    function()
}

/// Writes a function through `rw` and publishes it through `rx`.
///
/// # Safety
///
/// The mapping is at least `offset + CODE_LEN` bytes long, and no other code uses those bytes.
pub(crate) unsafe fn write_code(mapping: &DualMapping, offset: usize, value: u32) {
    let code = code_returning(value);
    // SAFETY: inside the view.
    let rw = unsafe { mapping.rw().start().add(offset) };
    // SAFETY: inside the view, writable, the caller's alone.
    unsafe { rw.cast().write(code) };
    // SAFETY: inside the view.
    let rx = unsafe { mapping.rx().start().add(offset) };
    // SAFETY: mapped and readable.
    unsafe { arch::publish_code(rx.as_ptr(), CODE_LEN) };
}

/// Maps two pages twice, by whatever strategy works.
pub(crate) fn map_dual(os: &OsProvider) -> DualMapping {
    let len = 2 * os.page_size().bytes();
    // SAFETY: neither target is a range of ours.
    unsafe { os.map_dual(&DualRequest::bytes(len)) }.expect("a strategy works")
}

pub(crate) fn unmap_dual(os: &OsProvider, mapping: DualMapping) {
    // SAFETY: the tests that call this use the mapping no more.
    unsafe { os.unmap_dual(mapping, Leave::Hole) }.expect("whole mappings can be unmapped");
}

/// P4 in short: what is written through one view runs through the other.
pub(crate) fn check_that_code_runs(os: &OsProvider) {
    let mapping = map_dual(os);
    // SAFETY: two pages, and ours alone.
    unsafe { write_code(&mapping, 64, 4242) };
    // SAFETY: published just now.
    let value = unsafe { call(mapping.rx().start().as_ptr().wrapping_add(64)) };
    assert_eq!(value, 4242);
    unmap_dual(os, mapping);
}

/// Builds the expression example, once, and returns where a copy of it lies: beside the tests,
/// which is where a test in a mount namespace of its own still sees it.
pub(crate) fn expression() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let [copy] = copies_of(&["expression"], "expression", ["expression-for-tests"]);
        copy
    };
    BUILT.get_or_init(build).clone()
}

/// Builds an example, of which cargo makes `file`, and returns where copies of it lie.
pub(crate) fn copies_of<const N: usize>(
    example: &[&str],
    file: &str,
    names: [&str; N],
) -> [PathBuf; N] {
    let test = std::env::current_exe().expect("a test has a path");
    let copies = names.map(|name| test.with_file_name(name));
    // A test that isolated itself was started by one that has built it.
    if std::env::var_os(hostmem_test_support::isolate::ENV).is_none() {
        build_example(&test, example, file, &copies);
    }
    copies
}

fn build_example(test: &Path, example: &[&str], file: &str, copies: &[PathBuf]) {
    let profile = test.ancestors().nth(2).expect("tests lie in PROFILE/deps");
    let target = profile.parent().expect("PROFILE lies in a target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example"]).args(example);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    if emulated() {
        // PROFILE lies in a folder of the target's name.
        cargo.args([
            "--target",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ]);
        cargo
            .arg("--target-dir")
            .arg(target.parent().expect("cross builds lie deeper"));
    } else {
        cargo.arg("--target-dir").arg(target);
    }
    assert!(
        cargo.status().expect("cargo runs").success(),
        "the example is built"
    );
    // Renamed into place, since another test may be running it.
    for copy in copies {
        let new = copy.with_extension(std::process::id().to_string());
        std::fs::copy(profile.join("examples").join(file), &new).expect("the example is there");
        std::fs::rename(&new, copy).expect("a file of ours");
    }
}

/// Runs the README's main job.
pub(crate) fn run_expression() -> Output {
    let mut command = Command::new(expression());
    command
        .args(["x*x - 3*y + 7", "x=6", "y=5"])
        .output()
        .expect("the example runs")
}

/// Checks that the README's main job computes.
pub(crate) fn check_expression() {
    let output = run_expression();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.starts_with("value  28\n"), "{text}");
}

/// Runs a function in a thread of its own, on this stack, and returns what it returns.
///
/// # Safety
///
/// `len` bytes from `base` are mapped, writable, and no other code's until this returns; the
/// function may be called with null.
pub(crate) unsafe fn run_on_stack(
    base: *mut u8,
    len: usize,
    function: extern "C" fn(*mut c_void) -> *mut c_void,
) -> *mut c_void {
    let mut attributes = core::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: initialises the attributes, which outlive their use.
    let made = unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
    assert_eq!(made, 0);
    // SAFETY: initialised above; the caller vouches for the stack.
    let set = unsafe { libc::pthread_attr_setstack(attributes.as_mut_ptr(), base.cast(), len) };
    assert_eq!(set, 0);
    let mut thread = 0;
    // SAFETY: the caller vouches for the function; the stack outlives the thread.
    let made =
        unsafe { libc::pthread_create(&raw mut thread, attributes.as_ptr(), function, null_mut()) };
    assert_eq!(made, 0);
    let mut returned = null_mut();
    // SAFETY: made above, joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut returned) }, 0);
    returned
}

/// A place for a core file of this process: made ahead, as it changes the working directory.
pub(crate) struct CoreFile(PathBuf);

impl CoreFile {
    /// Gets ready where this host writes core files into the working directory, and says so aloud
    /// where it does not.
    pub(crate) fn prepare() -> Option<Self> {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern");
        let pattern = pattern.unwrap_or_default();
        if !pattern.starts_with("core") || pattern.contains('/') {
            skip(format!("core files go elsewhere: {pattern}"));
            return None;
        }
        let directory = std::env::temp_dir().join(format!("hostmem-core-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a new directory");
        std::env::set_current_dir(&directory).expect("made above");
        Some(Self(directory))
    }

    /// Ends a copy of this process with a core file; returns how long that is, if there is one.
    pub(crate) fn len_bytes(self) -> Option<u64> {
        // SAFETY: the child makes two calls that are safe after a fork, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let limit = libc::rlimit {
                rlim_cur: libc::RLIM_INFINITY,
                rlim_max: libc::RLIM_INFINITY,
            };
            // SAFETY: the structure outlives the call.
            unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
            // SAFETY: ends the process, and writes the core file.
            unsafe { libc::abort() };
        }
        assert!(child > 0, "a fork");
        let mut status = 0;
        // SAFETY: the status outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        let files = std::fs::read_dir(&self.0).expect("made above").flatten();
        let sizes: Vec<_> = files.map(|f| f.metadata().expect("a file").len()).collect();
        std::env::set_current_dir("/").expect("there is a root");
        std::fs::remove_dir_all(&self.0).expect("made above");
        assert!(libc::WIFSIGNALED(status));
        let &[len] = &sizes[..] else {
            skip("this host writes no core file here");
            return None;
        };
        eprintln!("a core file of {len} bytes");
        assert!(len > 4096, "it has the process in it");
        Some(len)
    }
}

/// Forks without any hooks.
pub(crate) fn bare_fork() -> i32 {
    // SAFETY: the children make system calls, use what has hooks or needs none, and exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    child
}

/// Makes a child by the system call alone, which runs no handlers.
pub(crate) fn raw_clone() -> i32 {
    // SAFETY: without a stack and any flag, clone is fork; the child makes system calls, uses what
    // has hooks, and exits.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    i32::try_from(child).expect("numbers of processes are ints")
}

pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Waits for a child and returns its exit code; a signal counts as 128 and more, as in a shell.
pub(crate) fn wait(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: status is a live int.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    }
}

/// Forks with the hooks of an object around it; in the child, runs `child` and exits with its code.
pub(crate) fn hooked_fork(object: &dyn ForkHooks, child: impl FnOnce() -> i32) -> i32 {
    fork_around(&[object], &[], bare_fork, child)
}

/// As [`hooked_fork`]; the child does something `first`, as handlers of `pthread_atfork` do.
pub(crate) fn hooked_fork_after(
    object: &dyn ForkHooks,
    first: impl FnOnce(),
    child: impl FnOnce() -> i32,
) -> i32 {
    let fork = || {
        let pid = bare_fork();
        if pid == 0 {
            first();
        }
        pid
    };
    fork_around(&[object], &[], fork, child)
}

/// As [`hooked_fork`], by the system call alone.
pub(crate) fn raw_fork(object: &dyn ForkHooks, child: impl FnOnce() -> i32) -> i32 {
    raw_fork_around(&[object], child)
}

/// As [`raw_fork`], with the hooks of several objects around it.
pub(crate) fn raw_fork_around(objects: &[&dyn ForkHooks], child: impl FnOnce() -> i32) -> i32 {
    fork_around(objects, &[], raw_clone, child)
}

/// Forks without a word to the parent's objects, by the C library or by the system call alone; in
/// the child, repairs them, runs `child` and exits with its code. The outermost object comes first.
pub(crate) fn repaired_fork(
    objects: &[&dyn ForkChild],
    raw: bool,
    child: impl FnOnce() -> i32,
) -> i32 {
    fork_around(&[], objects, if raw { raw_clone } else { bare_fork }, child)
}

/// `fork` is [`bare_fork`] or [`raw_clone`], or begins with one.
fn fork_around(
    objects: &[&dyn ForkHooks],
    children: &[&dyn ForkChild],
    fork: impl FnOnce() -> i32,
    child: impl FnOnce() -> i32,
) -> i32 {
    let mut pid = 0;
    let fork = || {
        pid = fork();
        pid == 0
    };
    // SAFETY: either clones the process once, and its child has one thread.
    match unsafe { around_fork(objects, children, fork) } {
        Ok(true) => exit(child()),
        Ok(false) => pid,
        Err(error) if error.in_child => exit(99),
        Err(error) => panic!("{error}"),
    }
}
