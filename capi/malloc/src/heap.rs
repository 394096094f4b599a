//! The heap behind the calls: on the operating system's memory, with its clock.

use crate::{ends, fatal, line, pass, settings, signals::without_signals, slot::Slot};
use hostmem::{
    OsLock, OsProvider,
    fork::ForkChild,
    heap::{GlobalHeap, Hardening, Heap, HeapConfig, HeapError, HeapOf, Return, State, StaticHeap},
    page::AddressRange,
    provider::{Clock, Within},
};

/// Describes the heap of the override.
#[derive(Debug)]
pub(crate) struct Override;

/// All calls are of this heap.
pub(crate) const HEAP: GlobalHeap<Override> = GlobalHeap::new();

// SAFETY: the state and the slot are this heap's alone, and no provider allocates.
unsafe impl StaticHeap for Override {
    type Pages = Within<OsProvider>;
    type Metadata = OsProvider;
    type Lock = OsLock;
    type Slot = Slot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let settings = settings::get();
        if settings.is_pass() {
            return Err(HeapError::Closed);
        }
        let range = if settings.is_low() {
            AddressRange::LOW_4G
        } else {
            AddressRange::ALL
        };
        let os = OsProvider::new();
        let purge = match settings.purge_ms() {
            0 => Return::Eager,
            period => Return::After(period),
        };
        let level = match settings.hardening() {
            2 => Hardening::Full,
            _ => Hardening::Checked,
        };
        let config = HeapConfig::new()
            .clock(|| OsProvider::new().now_ms())
            .memory_return(purge)
            .hardening(level);
        Heap::on(Within::new(os, range), os, config)
    }

    #[inline]
    fn state() -> &'static State<Self> {
        static STATE: State<Override> = State::new();
        &STATE
    }

    fn register() {
        line::look_at_stderr();
        ends::keep();
        pass::begin();
        // Where that fails for want of memory, a child must not use the heap.
        // SAFETY: the function stays as long as the program, as this is not unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    }

    fn refused(block: *mut u8, error: HeapError) {
        fatal::end("heap", block, &error);
    }
}

/// Is called on the only thread of a child of the C library's `fork`.
unsafe extern "C" fn forked() {
    // SAFETY: the C library calls this on the only thread of a forked child, before anything else
    // that the program has there. Where there is no memory for it, calls may wait without end;
    // there is nothing to tell that to.
    let _ = unsafe { HEAP.fork_child() };
}

/// Calls `f` with the heap, and without signals: `f` takes locks for which a handler on this thread
/// would wait without end. Returns `None` where the heap cannot be opened.
pub(crate) fn quietly<T>(f: impl FnOnce(&'static HeapOf<Override>) -> T) -> Option<T> {
    let heap = HEAP.heap().ok()?;
    Some(without_signals(|| f(heap)))
}
