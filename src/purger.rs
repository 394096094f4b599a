//! A thread that gives memory of a heap back while the program's own threads are idle.

extern crate std;

use crate::{
    OsProvider,
    heap::{GlobalHeap, StaticHeap},
    provider::Clock,
};
use std::{
    fmt, io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{Builder, JoinHandle},
    time::Duration,
};

/// The thread that [`spawn_purger`] started. Dropping this ends it, and waits until it has ended.
pub struct Purger {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a thread that [ticks](crate::heap::Heap::tick) a heap each `period`, so that free memory
/// goes back although no other thread calls the heap. Off unless it is started: it wakes the CPU
/// each time.
///
/// Blocks that idle threads have cached stay with them; see
/// [`HeapStatistics::cached`](crate::heap::HeapStatistics::cached). Memory goes back that was free
/// for as long as [`HeapConfig::memory_return`](crate::heap::HeapConfig::memory_return) says, so
/// that a period as long is enough.
///
/// ```
/// use std::time::Duration;
///
/// #[global_allocator]
/// static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let purger = hostmem::spawn_purger(HEAP, Duration::from_secs(1))?;
///     // The program runs.
///     drop(purger);
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// The system's where it starts no thread, and one where the heap cannot be opened.
pub fn spawn_purger<C: StaticHeap>(heap: GlobalHeap<C>, period: Duration) -> io::Result<Purger> {
    // Without a message, which would have to be allocated.
    let opened = heap
        .heap()
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let (stop, stopped) = channel();
    let thread = Builder::new()
        .name("hostmem-purger".into())
        .spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                if let Some(now_ms) = OsProvider::new().now_ms() {
                    opened.tick(now_ms);
                }
            }
        })?;
    Ok(Purger {
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Drop for Purger {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing to be done about it here.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Purger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purger").finish_non_exhaustive()
    }
}
