//! System calls of Linux for 32-bit RISC-V: numbers of the generic table
//! (`include/uapi/asm-generic/unistd.h`), without those that take 32-bit times.
//!
//! The guest's pointers are the host's, so that most calls pass them on as they are: the kernel
//! looks where they lead, and says `EFAULT` where the guest may not.

pub(crate) mod files;
mod memory;
mod system;
pub(crate) mod threads;
mod time;

pub(crate) use memory::load;

use crate::{
    access::{Identity, for_kernel},
    gdb,
    interpret::Fault,
    machine::{End, Thread},
    space::USER_END,
    sys::{self, say},
};
use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use hostmem::provider::{Error, ErrorKind};
use syscalls::{Errno, Sysno, riscv32};

/// What a call returns, or the number of an error.
pub(crate) type Answer = Result<u32, Errno>;

/// How the guest goes on after a call.
pub(crate) enum Flow {
    /// With a value in `a0`.
    Return(u32),
    /// With registers as they are.
    Resume,
    End(End),
}

/// A system call of a guest.
pub(crate) struct Call {
    number: u32,
    args: [u32; 6],
}

/// Makes an answer of what the host's call returned.
fn host(result: Result<usize, Errno>) -> Answer {
    // What does not fit is nothing that this emulator asks for.
    result.map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

/// The number of the error that is nearest to one of hostmem's.
fn number_of(error: Error) -> Errno {
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::OutsideRange => Errno::EINVAL,
        ErrorKind::Taken => Errno::EEXIST,
        ErrorKind::Denied => Errno::EACCES,
        _ => Errno::ENOMEM,
    }
}

fn fault(_: Fault) -> Errno {
    Errno::EFAULT
}

/// Reads a number of the guest's memory.
fn word(addr: u32) -> Result<u32, Errno> {
    Identity.bytes(addr).map(u32::from_le_bytes).map_err(fault)
}

/// Reads a number of 64 bits.
fn double(addr: u32) -> Result<u64, Errno> {
    Identity.bytes(addr).map(u64::from_le_bytes).map_err(fault)
}

/// Writes to the guest's memory.
fn put(addr: u32, bytes: &[u8]) -> Answer {
    Identity.write(addr, bytes).map(|()| 0).map_err(fault)
}

/// Checks that bytes which the kernel is to be told of are below what is the guest's.
fn within(addr: u32, len: u32) -> Result<usize, Errno> {
    let end = addr.checked_add(len).filter(|end| *end <= USER_END);
    end.map(|_| for_kernel(addr)).ok_or(Errno::EFAULT)
}

/// Reads a string that ends with zero.
fn string(addr: u32) -> Result<Vec<u8>, Errno> {
    /// The longest path of Linux.
    const MOST: u32 = 4096;
    let mut bytes = Vec::new();
    for offset in 0..MOST {
        match Identity.bytes(addr.wrapping_add(offset)).map_err(fault)? {
            [0] => return Ok(bytes),
            [byte] => bytes.push(byte),
        }
    }
    Err(Errno::ENAMETOOLONG)
}

/// Makes the call that the registers ask for.
pub(crate) fn call(thread: &mut Thread) -> Flow {
    let x = &thread.hart.x;
    let call = Call {
        number: x[17],
        args: [x[10], x[11], x[12], x[13], x[14], x[15]],
    };
    let strace = thread.machine.options.strace;
    if strace && ends(call.number) {
        say!("[{}] {}\n", thread.peer.tid, shown(&call));
    }
    let flow = answer(thread, &call);
    if let Flow::Return(value) = flow
        && strace
    {
        let value = match value.cast_signed() {
            error @ -4095..=-1 => Errno::new(-error).to_string(),
            _ => format!("{value:#x}"),
        };
        say!("[{}] {} = {value}\n", thread.peer.tid, shown(&call));
    }
    flow
}

/// Says whether a call does not return.
fn ends(number: u32) -> bool {
    matches!(number, 93 | 94 | 139)
}

fn shown(call: &Call) -> String {
    let name = match riscv32::Sysno::new(call.number as usize) {
        Some(known) => known.name().to_owned(),
        None => format!("syscall_{}", call.number),
    };
    let [a, b, c, d, e, f] = call.args;
    format!("{name}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x})")
}

fn answer(thread: &mut Thread, call: &Call) -> Flow {
    let [a, b, c, d, e, f] = call.args;
    let machine = thread.machine;
    let files = &machine.files;
    let blocking = blocks(call.number);
    if blocking && call.number != 133 && thread.has_pending() {
        // Signals come first, and the call is made when their handlers have returned.
        thread.hart.pc = thread.hart.pc.wrapping_sub(4);
        return Flow::Resume;
    }
    if blocking && let Some(runner) = &thread.runner {
        runner.offline();
    }
    let debugger = gdb::debugger().filter(|_| blocking);
    if let Some(debugger) = debugger {
        debugger.calls(thread, true);
    }
    let answer = match call.number {
        17 => files.getcwd(a, b),
        23 => files.dup(a),
        24 => files.dup3(a, b, c),
        25 => files.fcntl(a, b, c),
        29 => files.ioctl(a, b, c),
        34 => files.named(Sysno::mkdirat, a, b, c),
        35 => files.named(Sysno::unlinkat, a, b, c),
        36 => files.symlinkat(a, b, c),
        37 => files.linkat(a, b, c, d, e),
        43 => files.statfs(a, b, c),
        44 => files.fstatfs(a, b, c),
        46 => files.ftruncate(a, b, c),
        47 => files.fallocate(a, b, (c, d), (e, f)),
        48 | 439 => files.faccessat(a, b, c),
        49 => files.chdir(a),
        52 => files.fchmod(a, b),
        56 => files.openat(a, b, c, d),
        57 => files.close(a),
        59 => files.pipe2(a, b),
        61 => files.getdents(a, b, c),
        62 => files.llseek(a, b, c, d, e),
        63 => files.read(a, b, c),
        64 => files.write(a, b, c),
        65 => files.vector(Sysno::readv, a, b, c, None),
        66 => files.vector(Sysno::writev, a, b, c, None),
        67 => files.positioned(Sysno::pread64, a, b, c, (d, e)),
        68 => files.positioned(Sysno::pwrite64, a, b, c, (d, e)),
        69 => files.vector(Sysno::preadv, a, b, c, Some((d, e))),
        70 => files.vector(Sysno::pwritev, a, b, c, Some((d, e))),
        78 => files.readlinkat(a, b, c, d),
        82 | 83 => files.sync(a),
        // Advice on how a file will be read.
        223 => Ok(0),
        276 => files.renameat2(a, b, c, d, e),
        291 => files.statx(a, b, c, d, e),
        412 => files.utimensat(a, b, c, d),
        413 => files.pselect(a, [b, c, d], e),
        414 => files.ppoll(a, b, c),
        93 => {
            return Flow::End(End::Thread(a.cast_signed()));
        }
        94 => return Flow::End(End::Program(a.cast_signed())),
        96 => threads::set_tid_address(thread, a),
        // The robust list is for programs that are killed, which takes all threads here.
        99 => Ok(0),
        422 => threads::futex(a, b, c, d, e, f),
        123 => threads::getaffinity(b, c),
        124 => threads::yield_now(),
        129..=131 => threads::kill(thread, call.number, a, b, c),
        132 => threads::sigaltstack(thread, a, b),
        133 => threads::sigsuspend(thread, a),
        134 => threads::sigaction(thread, a, b, c, d),
        135 => threads::sigprocmask(thread, a, b, c, d),
        136 => threads::sigpending(thread, a),
        139 => match thread.pop_frame() {
            Ok(()) => return Flow::Resume,
            Err(_) => return Flow::End(End::Killed(crate::signals::SIGSEGV)),
        },
        220 => threads::clone(thread, a, b, c, d, e),
        103 => time::setitimer(a, b, c),
        403 => time::clock_gettime(a, b),
        406 => time::clock_getres(a, b),
        407 => time::clock_nanosleep(a, b, c, d),
        153 => time::times(a),
        160 => system::uname(a),
        165 => system::getrusage(a, b),
        166 => system::umask(a),
        172 | 173 => Ok(sys::process()),
        174..=177 => Ok(system::identity()),
        178 => Ok(thread.peer.tid),
        179 => system::sysinfo(a),
        261 => system::prlimit(files, b, c, d),
        278 => system::getrandom(a, b, c),
        214 => Ok(memory::brk(machine, a)),
        215 => memory::munmap(machine, a, b),
        216 => memory::mremap(machine, a, b, c, d),
        222 => memory::mmap(machine, [a, b, c, d, e, f]),
        226 => memory::mprotect(machine, a, b, c),
        227 => memory::msync(a, b, c),
        233 => memory::madvise(machine, a, b, c),
        259 => {
            machine.invalidate_writable();
            Ok(0)
        }
        _ => Err(Errno::ENOSYS),
    };
    if blocking && let Some(runner) = &thread.runner {
        runner.online();
    }
    if let Some(debugger) = debugger {
        debugger.calls(thread, false);
    }
    if answer == Err(Errno::EINTR) && may_restart(call.number) && thread.restarts() {
        // The instruction is run again once the handler has returned.
        thread.hart.pc = thread.hart.pc.wrapping_sub(4);
        return Flow::Resume;
    }
    Flow::Return(answer.unwrap_or_else(|error| (-error.into_raw()).cast_unsigned()))
}

/// Says whether a call may wait for long, so that no block should wait for its thread.
fn blocks(number: u32) -> bool {
    matches!(
        number,
        25 | 47 | 56 | 63..=70 | 82 | 83 | 133 | 220 | 227 | 407 | 413 | 414 | 422
    )
}

/// Says whether a call that was interrupted can be made again as it was.
fn may_restart(number: u32) -> bool {
    matches!(number, 63..=70 | 56 | 422)
}
