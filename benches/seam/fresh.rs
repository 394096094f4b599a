//! Processes of their own: what their first calls cost in system calls, addresses and memory.
//!
//! The benchmark starts itself with a variable set. A child that counts system calls stops between
//! two marks, which the parent sees by ptrace; one that counts memory says what it has itself.

use hostmem::{
    GlobalHeap, OsLock, OsProvider,
    jit::{JitAllocator, JitConfig},
};
use hostmem_bench::{asmjit::AsmJit, subject::Subject};
use std::{
    alloc::{GlobalAlloc, Layout},
    env, fs,
    hint::black_box,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    str::FromStr,
};

/// The variable that makes a process such a child: what it does.
const VARIABLE: &str = "HOSTMEM_BENCH_SEAM_CHILD";

const OS: OsProvider = OsProvider::new();

static HEAP: GlobalHeap = GlobalHeap::new();

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The first JIT allocation of a process.
    FirstJit,
    /// The first allocation of another JIT allocator.
    LaterJit,
    /// Ten functions.
    TenFunctions,
    /// A hundred objects.
    Objects,
    /// A hundred objects in a process that locks its memory.
    ObjectsLocked,
}

const TASKS: [(&str, Task); 5] = [
    ("first-jit", Task::FirstJit),
    ("later-jit", Task::LaterJit),
    ("ten-functions", Task::TenFunctions),
    ("objects", Task::Objects),
    ("objects-locked", Task::ObjectsLocked),
];

/// On whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// hostmem.
    Ours,
    /// AsmJit, or the C library's malloc.
    Peer,
}

/// Does what a child does, if this is one; says whether it is.
pub fn be_a_child() -> bool {
    let Ok(asked) = env::var(VARIABLE) else {
        return false;
    };
    let (task, on) = asked.split_once(' ').expect("what the parent said");
    let (_, task) = TASKS
        .into_iter()
        .find(|(name, _)| *name == task)
        .expect("a task");
    let on = if on == "ours" { On::Ours } else { On::Peer };
    match task {
        Task::FirstJit | Task::LaterJit => mark_calls(task, on),
        Task::TenFunctions => ten_functions(on),
        Task::Objects | Task::ObjectsLocked => objects(task, on),
    }
    true
}

fn start(task: Task, on: On) -> Command {
    let (name, _) = TASKS
        .into_iter()
        .find(|(_, known)| *known == task)
        .expect("a task");
    let program = env::current_exe().expect("the program's own path");
    let mut command = Command::new(program);
    let who = if on == On::Ours { "ours" } else { "peer" };
    command.env(VARIABLE, format!("{name} {who}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs a child that counts memory; returns the numbers that it says.
pub fn memory<const N: usize>(task: Task, on: On) -> [f64; N] {
    let output = start(task, on).output().expect("a child process");
    assert!(output.status.success(), "{task:?} on {on:?} failed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = said.split_whitespace().map(f64::from_str);
    std::array::from_fn(|_| {
        let number = numbers.next().expect("as many numbers");
        number.expect("a number")
    })
}

/// Ends and begins what is counted: a call that nothing else makes.
fn mark() {
    // SAFETY: the call only returns a number.
    unsafe { libc::getppid() };
}

fn mark_calls(task: Task, on: On) {
    if task == Task::LaterJit {
        one_function(on, || ());
    }
    one_function(on, mark);
}

/// Makes an allocator and allocates once, between two calls of `mark`.
fn one_function(on: On, mark: impl Fn()) {
    match on {
        On::Ours => {
            mark();
            let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, JitConfig::new());
            let jit = jit.expect("the defaults are valid");
            let span = jit.alloc(64);
            mark();
            black_box(&span);
        }
        On::Peer => {
            mark();
            let peer = AsmJit::bare();
            let piece = peer.as_ref().map(|jit| jit.alloc(64));
            mark();
            black_box(&piece);
        }
    }
}

/// Runs a child to its end and counts its system calls between the marks.
pub fn calls(task: Task, on: On) -> f64 {
    let mut command = start(task, on);
    let trace_me = || {
        // SAFETY: the child asks to be traced by its parent; no memory is read or changed.
        let failed = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        if failed == -1 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(trace_me) };
    let child = command.spawn().expect("a child process that may be traced");
    count_between_marks(child) as f64
}

/// What `PTRACE_GET_SYSCALL_INFO` says (`ptrace(2)`): words, of which the first byte is the kind of
/// stop, and the fourth word the call's number.
type CallInfo = [u64; 11];

/// The kind of stop at a call's entry.
const ENTRY: u64 = 1;

/// Returns the number of the call at whose entry the child is stopped, if it is at one.
fn entered(pid: libc::pid_t) -> Option<u64> {
    let mut info: CallInfo = [0; 11];
    let (len, info_at) = (size_of::<CallInfo>(), &raw mut info);
    // SAFETY: the child is traced by this thread and stopped; at most `len` bytes are written.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, len, info_at) };
    (got > 0 && info[0] & 0xff == ENTRY).then_some(info[3])
}

fn count_between_marks(mut child: Child) -> usize {
    let pid = child.id().cast_signed();
    let (mut options_set, mut between, mut count) = (false, false, 0);
    loop {
        let mut status = 0;
        // SAFETY: waits for the child and writes its status to `status`.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if waited != pid || !libc::WIFSTOPPED(status) {
            break;
        }
        if !options_set {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            // SAFETY: the child is traced by this thread, and stopped after its exec.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
            options_set = true;
        } else if let Some(number) = entered(pid) {
            if number == libc::SYS_getppid.cast_unsigned() {
                between = !between;
            } else if between {
                count += 1;
            }
        }
        let signal = match libc::WSTOPSIG(status) & !0x80 {
            libc::SIGTRAP => 0,
            signal => signal,
        };
        // SAFETY: as above: it is stopped.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) };
    }
    // It was waited for above.
    let _ = child.wait();
    count
}

/// Addresses and resident memory of this process in bytes, but for executable views, programs and
/// libraries, whose pages come as they are run, and the stack.
#[derive(Clone, Copy)]
struct Size {
    addresses: usize,
    resident: usize,
}

impl Size {
    /// Reads `/proc/self/smaps` into `text`, which has room for it.
    fn read(text: &mut String) -> Self {
        use std::io::Read;
        text.clear();
        let mut file = fs::File::open("/proc/self/smaps").expect("there is /proc");
        file.read_to_string(text).expect("it is text");
        let mut size = Self {
            addresses: 0,
            resident: 0,
        };
        let mut counts = false;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(first), second) = (words.next(), words.next().unwrap_or("")) else {
                continue;
            };
            let path = words.nth(3).unwrap_or("");
            if let Some((start, end)) = first.split_once('-') {
                let at = |text| usize::from_str_radix(text, 16);
                if let (Ok(start), Ok(end)) = (at(start), at(end)) {
                    // A view of shared memory that is executable shows pages of the other view.
                    let of_program = path.starts_with('/') && !path.starts_with("/memfd:");
                    counts = second != "r-xs" && !of_program && path != "[stack]";
                    size.addresses += if counts { end - start } else { 0 };
                }
            } else if first == "Rss:" && counts {
                size.resident += 1024 * second.parse::<usize>().expect("a number");
            }
        }
        size
    }
}

/// Says how much `act` made the process grow.
fn grown<T>(act: impl FnOnce() -> T) {
    // Touched before, so that reading makes nothing grow.
    let mut text = "x".repeat(4 << 20);
    let before = Size::read(&mut text);
    let kept = act();
    let after = Size::read(&mut text);
    black_box(&kept);
    let more = |after: usize, before: usize| after.saturating_sub(before);
    println!(
        "{} {}",
        more(after.addresses, before.addresses),
        more(after.resident, before.resident)
    );
}

fn ten_functions(on: On) {
    const COUNT: usize = 10;
    // `ret`, or on other CPUs what is not run.
    const CODE: [u8; 1] = [0xc3];
    match on {
        On::Ours => grown(|| {
            let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, JitConfig::new());
            let jit = jit.expect("the defaults are valid");
            let spans: [_; COUNT] = std::array::from_fn(|_| {
                let mut span = jit.alloc(64).expect("memory");
                jit.write(&mut span, 0, &CODE).expect("room for the code");
                span
            });
            (jit, spans)
        }),
        On::Peer => grown(|| {
            let peer = AsmJit::bare();
            let written = |jit: &AsmJit| [(); COUNT].map(|()| jit.alloc_written(64, &CODE));
            let pieces = peer.as_ref().map(written);
            (peer, pieces)
        }),
    }
}

fn objects(task: Task, on: On) {
    const COUNT: usize = 100;
    if task == Task::ObjectsLocked {
        // SAFETY: the call locks this process's memory and changes none.
        let failed = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
        assert_eq!(failed, 0, "this process may lock its memory");
    }
    let layout = |n: usize| Layout::from_size_align(16 + n * 8 % 256, 8).expect("a size");
    grown(|| -> [*mut u8; COUNT] {
        std::array::from_fn(|n| {
            let layout = layout(n);
            let object: *mut u8 = match on {
                // SAFETY: the size is not zero.
                On::Ours => unsafe { HEAP.alloc(layout) },
                // SAFETY: any size may be asked for.
                On::Peer => unsafe { libc::malloc(layout.size()) }.cast(),
            };
            assert!(!object.is_null(), "memory");
            // SAFETY: allocated just now, this long.
            unsafe { object.write_bytes(1, layout.size()) };
            object
        })
    });
}
