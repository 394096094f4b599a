//! A process: its CPU time, its peak of resident memory, and what it prints.

use std::{
    io::{self, Read},
    mem::MaybeUninit,
    process::{Command, Stdio},
};

/// What a process took, its children included that it waited for.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Milliseconds of CPU time, the kernel's included.
    pub cpu_ms: f64,
    /// Millions of bytes that the largest of them had at its peak.
    pub peak_mb: f64,
}

/// Runs a process; returns what it took, and what it printed.
pub fn run(command: &mut Command) -> io::Result<(Cost, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: there is room for both, and the child is this process's own, which has not waited for
    // it.
    if unsafe { libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr()) } != id {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it initialised the value.
    let usage = unsafe { usage.assume_init() };
    if status != 0 {
        return Err(io::Error::other(format!("{command:?}: status {status:#x}")));
    }
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    let cost = Cost {
        cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
        peak_mb: usage.ru_maxrss as f64 * 1024.0 / 1e6,
    };
    Ok((cost, said))
}
