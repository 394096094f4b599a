//! What a thread of the guest has that other threads reach.

use std::sync::{
    Arc, OnceLock,
    atomic::AtomicU32,
};

/// A thread's state beside its registers.
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Not zero where the thread has something else to do than to run guest code.
    pub(crate) interrupt: AtomicU32,
}

/// The first thread's, which is told of signals that come from outside.
static MAIN: OnceLock<Arc<Cpu>> = OnceLock::new();

impl Cpu {
    pub(crate) fn new() -> Self {
        Self {
            interrupt: AtomicU32::new(0),
        }
    }
}

/// Says which thread is the first.
pub(crate) fn set_main(cpu: Arc<Cpu>) {
    let _ = MAIN.set(cpu);
}

/// Returns the first thread's, once it is there. For handlers of signals.
pub(crate) fn of_main() -> Option<&'static Cpu> {
    MAIN.get().map(Arc::as_ref)
}
