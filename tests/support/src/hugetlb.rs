//! Reserves huge pages of the default size for the length of a closure.

use std::fs::{self, File};
use std::io;

use crate::Unavailable;

/// Holds the number of huge pages of the default size (`proc_sys_vm(5)`).
const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Is locked while the number is changed.
const LOCK: &str = "/sys/kernel/mm/hugepages";
/// Is how many pages there are for others.
const SPARE: usize = 16;

/// Runs `body` with at least `count` huge pages in the pool of the host and returns its result.
///
/// `body` is told how many of them the kernel gave: fewer than `count` if memory is fragmented.
/// Other processes may take a page for a moment (whoever probes what a host can do takes one), so
/// there are some more, if the kernel has them; a body that wants the pool empty takes what is in
/// it. Zero is a legal count, for what happens without any; then there are none for others either.
/// The former number is restored afterwards, also after a panic; not, however, if the process is
/// killed. Calls exclude each other, in all processes of the host; they do not nest.
///
/// # Errors
///
/// The user may not change the pool, or the kernel gave not a single page of those asked for.
pub fn with_huge_pages<R>(count: usize, body: impl FnOnce(usize) -> R) -> Result<R, Unavailable> {
    let refused = |e: io::Error| Unavailable::new("resizing the pool of huge pages", e);
    let _lock = lock().map_err(|e| Unavailable::new("locking the pool of huge pages", e))?;
    let _restore = Restore {
        count: read().map_err(refused)?,
    };
    let spare = if count > 0 { SPARE } else { 0 };
    write(count + spare).map_err(refused)?;
    let given = read().map_err(refused)?.min(count);
    if given == 0 && count > 0 {
        return Err(Unavailable::new(
            "resizing the pool of huge pages",
            "the kernel gave none",
        ));
    }
    Ok(body(given))
}

/// Reads the current number of pages.
fn read() -> io::Result<usize> {
    let text = fs::read_to_string(NR_HUGEPAGES)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Asks for another number of pages.
fn write(count: usize) -> io::Result<()> {
    fs::write(NR_HUGEPAGES, count.to_string())
}

/// Takes the lock, which ends with the file.
fn lock() -> io::Result<File> {
    // A directory can be locked as well as a file (flock(2)). This one is there already, for every
    // user, and the same in all mount and pid namespaces.
    let file = File::open(LOCK)?;
    file.lock()?;
    Ok(file)
}

/// Restores the number of pages.
struct Restore {
    count: usize,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // What could be set could be set back; and a drop has no one to report to.
        let _ = write(self.count);
    }
}
