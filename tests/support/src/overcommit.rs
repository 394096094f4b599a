//! Strict accounting of memory (`vm.overcommit_memory` = 2), and a process that may have no more.

use core::ptr;
use std::fs::{self, File};
use std::io;

use crate::Unavailable;

const MODE: &str = "/proc/sys/vm/overcommit_memory";
/// How much of what is left a large process may not have, in KiB (`proc_sys_vm(5)`): a 32nd of its
/// address space, and this at most.
const RESERVE: &str = "/proc/sys/vm/user_reserve_kbytes";
/// Is locked while the settings are changed.
const LOCK: &str = "/sys/kernel/mm";
/// More than the memory of the hosts that tests run on, in KiB.
const MUCH: u64 = 400 << 20;
/// An address space of which a 32nd is more than that, in bytes.
const VAST: usize = 1 << 44;

/// Runs `body` on a host that accounts strictly; the former settings are restored afterwards, also
/// after a panic; not, however, if the process is killed, so let `body` start the one that may be.
/// Calls exclude each other, in all processes of the host; they do not nest.
///
/// # Errors
///
/// The user may not change the settings, or the host has too much memory to be used up.
pub fn strictly<R>(body: impl FnOnce() -> R) -> Result<R, Unavailable> {
    let refused = |e: io::Error| Unavailable::new("accounting strictly", e);
    let lock = File::open(LOCK).map_err(refused)?;
    lock.lock().map_err(refused)?;
    if commit_limit().map_err(refused)? >= MUCH {
        return Err(Unavailable::new(
            "accounting strictly",
            "this host has too much memory",
        ));
    }
    let _reserve = Setting::change(RESERVE, &MUCH.to_string()).map_err(refused)?;
    let _mode = Setting::change(MODE, "2").map_err(refused)?;
    Ok(body())
}

/// Returns how much may be charged on this host, in KiB.
fn commit_limit() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("CommitLimit:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("no CommitLimit in /proc/meminfo"))
}

/// While this lives, no byte of memory is charged to this process, under [`strictly`]. Whatever
/// allocates meanwhile may fail.
#[derive(Debug)]
pub struct Starved(*mut libc::c_void);

impl Starved {
    /// Begins.
    ///
    /// # Panics
    ///
    /// If that many addresses cannot be reserved.
    #[must_use]
    pub fn begin() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let at = unsafe { libc::mmap(ptr::null_mut(), VAST, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "addresses can be reserved");
        Self(at)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // SAFETY: mapped by `begin`, and never touched.
        unsafe { libc::munmap(self.0, VAST) };
    }
}

/// Restores a setting.
struct Setting {
    path: &'static str,
    former: String,
}

impl Setting {
    fn change(path: &'static str, value: &str) -> io::Result<Self> {
        let former = fs::read_to_string(path)?;
        fs::write(path, value)?;
        Ok(Self { path, former })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // What could be set could be set back; and a drop has no one to report to.
        let _ = fs::write(self.path, self.former.trim());
    }
}
