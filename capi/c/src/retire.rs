//! Code that waits until no thread runs it.

use crate::{
    abi::{Grows, array, growing, place, read},
    jit::{Allocator, Jit, hm_jit, hm_span, name_of, or},
    object::{self, Here, Kind, List, Object, opened},
    source::Source,
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use hostmem::{
    OsLock,
    fork::ForkHooks,
    jit::{Executor, RetireConfig, RetireQueue},
};

/// A queue of spans that are released once no thread can be running them. Every call on it is
/// thread-safe.
pub struct hm_retire {
    _opaque: [u8; 0],
}

/// A thread that runs code, in the memory of the program: begin with zeros. It may go to another
/// thread, but one at a time uses it; a copy of it is refused.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_executor {
    /// Not for programs.
    pub opaque: [usize; 6],
}

/// The configuration of a retire queue. Begin with `HM_RETIRE_CONFIG_INIT`; in every field zero is
/// the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_retire_config {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// How many spans may wait, up to 1,048,576; 4096.
    pub waiting: usize,
    /// How many executors can be registered at a time, up to 1024; 64.
    pub executors: usize,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_retire_config {
    const FIRST: usize = 24;
}

const _: () = assert!(size_of::<hm_retire_config>() == 24);

/// What waits, and what came before. Begin with `HM_RETIRE_STATISTICS_INIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hm_retire_statistics {
    /// The size of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Spans that wait.
    pub waiting_spans: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Spans that were released so far.
    pub reclaimed_spans: u64,
    /// Their bytes.
    pub reclaimed_bytes: u64,
    /// Spans that were not taken back, because a reset or a fork had taken them.
    pub refused: u64,
    /// Executors that are registered.
    pub executors: u64,
    /// Executors that are online: those that spans can wait for.
    pub online: u64,
    /// Bytes of metadata that has memory.
    pub metadata: u64,
}

// SAFETY: the size is first, zeros are a value, and fields fill the struct.
unsafe impl Grows for hm_retire_statistics {
    const FIRST: usize = 72;
}

const _: () = assert!(size_of::<hm_retire_statistics>() == 72);

type Queue = RetireQueue<&'static Allocator, Source, OsLock>;

/// What is behind a handle.
pub(crate) struct Retire {
    queue: Queue,
    jit: &'static Jit,
    jit_object: &'static Object<Jit>,
}

impl Kind for Retire {
    const MAGIC: u32 = 0x686d_7231;

    fn list() -> &'static List<Self> {
        static ALL: List<Retire> = List::new();
        &ALL
    }
}

/// What is in an [`hm_executor`].
#[repr(C)]
struct Registered {
    here: Here,
    queue: &'static Object<Retire>,
    executor: Executor<'static>,
}

const _: () = assert!(size_of::<Registered>() <= size_of::<hm_executor>());
const _: () = assert!(align_of::<Registered>() <= align_of::<hm_executor>());

/// Finds what is in an executor from C.
///
/// # Safety
///
/// It is null, zeros, or was registered; no other call uses it until this one returns.
unsafe fn registered<'a>(executor: *mut hm_executor) -> Result<&'a Registered, Fault> {
    // SAFETY: the caller's promise: null, or six words.
    if !unsafe { Here::is_at(executor) } {
        return Err(invalid(
            c"an executor that is null, copied or not registered",
        ));
    }
    // SAFETY: the first word says that it was registered.
    Ok(unsafe { &*executor.cast::<Registered>() })
}

/// Finds an executor from C that was registered at one queue.
///
/// # Safety
///
/// As for [`registered`].
unsafe fn registered_at<'a>(
    executor: *mut hm_executor,
    queue: &Object<Retire>,
) -> Result<&'a Executor<'static>, Fault> {
    // SAFETY: the caller's promise.
    let found = unsafe { registered(executor)? };
    if core::ptr::eq(found.queue, queue) {
        Ok(&found.executor)
    } else {
        Err(invalid(c"an executor of another queue"))
    }
}

/// Finds the queue of a handle from C.
macro_rules! queue {
    ($handle:expr) => {
        opened!(Retire, $handle).1
    };
}

/// Makes a queue in front of executable memory. A null configuration stands for the defaults.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_create(
    jit: *mut hm_jit,
    config: *const hm_retire_config,
    retire: *mut *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(retire);
        let (jit_object, jit) = opened!(Jit, jit);
        let from: hm_retire_config = read!(config);
        let defaults = RetireConfig::new();
        let config = defaults
            .waiting(or(from.waiting, defaults.max_waiting()))
            .executors(or(from.executors, defaults.max_executors()));
        config.check()?;
        let made = object::open(|| {
            let queue = RetireQueue::on(&jit.allocator, Source::OS, config)?;
            Ok(Retire {
                queue,
                jit,
                jit_object,
            })
        })?;
        jit_object.enter();
        to.write(made.cast().as_ptr());
    })
}

/// Releases all that waits, and closes the queue. Returns `HM_BUSY` while executors are registered.
///
/// Not thread-safe for this object; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_close(
    retire: *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let end = |retire: Retire| {
            let jit = retire.jit_object;
            drop(retire);
            jit.leave();
        };
        // SAFETY: the caller in C promises that it is null, or a handle that no other call uses.
        unsafe { object::close::<Retire, _>(retire, false, end)? };
    })
}

/// Registers the calling thread as one that runs code. It is online: spans that are retired from
/// now on wait for its quiescent points.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_executor_register(
    retire: *mut hm_retire,
    executor: *mut hm_executor,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let to = place!(executor.cast::<Registered>());
        let (object, found) = opened!(Retire, retire);
        let executor = found.queue.register()?;
        object.enter();
        to.write(Registered {
            here: Here::at(to.as_ptr()),
            queue: object,
            executor,
        });
    })
}

/// Unregisters an executor: nothing waits for it any more. Its memory is zeros then.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_executor_unregister(
    executor: *mut hm_executor,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        // SAFETY: the caller in C promises that it is null, zeros or registered.
        unsafe { registered(executor)? };
        // SAFETY: registered, as just checked, and zeros from the next line on.
        let was = unsafe { executor.cast::<Registered>().read() };
        // SAFETY: the caller in C promises that it can be written.
        unsafe { executor.write(hm_executor { opaque: [0; 6] }) };
        drop(was.executor);
        was.queue.leave();
    })
}

/// Says that the executor is not within any code, and will not use an address of code that it
/// looked up before: between two pieces of code. Two loads, and a store if anything was retired.
/// Null, and one that is not registered, is passed by.
///
/// On the executor's thread; also in a signal handler there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_executor_quiescent(executor: *mut hm_executor) {
    // SAFETY: the caller in C promises that it is null, zeros or registered.
    if let Ok(registered) = unsafe { registered(executor) } {
        registered.executor.quiescent();
    }
}

/// As `hm_executor_quiescent`, and nothing waits for the executor until `hm_executor_online`: for
/// the way into a blocking system call.
///
/// On the executor's thread; also in a signal handler there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_executor_offline(executor: *mut hm_executor) {
    // SAFETY: the caller in C promises that it is null, zeros or registered.
    if let Ok(registered) = unsafe { registered(executor) } {
        registered.executor.offline();
    }
}

/// Says that the executor will run code again, whose addresses it looks up after this call.
///
/// On the executor's thread; also in a signal handler there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_executor_online(executor: *mut hm_executor) {
    // SAFETY: the caller in C promises that it is null, zeros or registered.
    if let Ok(registered) = unsafe { registered(executor) } {
        registered.executor.online();
    }
}

/// Puts a span aside that no thread comes to any more, and that is released once each executor has
/// had a quiescent point. Its name is refused from now on. Returns `HM_BUSY` where as many wait as
/// the configuration allows; the span is the caller's then.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_span(
    retire: *mut hm_retire,
    span: *const hm_span,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let found = queue!(retire);
        // SAFETY: the caller in C promises that it is null or a name.
        let name = unsafe { name_of(span) }?;
        let allocator = &found.jit.allocator;
        // SAFETY: the caller in C promises that it owns the span, if that is live.
        let taken = unsafe { allocator.take_numbered(name.rx.addr(), name.number)? };
        if let Err(refused) = found.queue.retire(taken) {
            // Where a fork took the span away it has no number to be given.
            let _ = allocator.set_number(&refused.span, name.number);
            return Err(refused.error.into());
        }
    })
}

/// Releases all that can be released now; stores through `spans`, unless that is null, how many
/// spans those were.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_reclaim(
    retire: *mut hm_retire,
    spans: *mut u64,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let tally = queue!(retire).queue.reclaim();
        if !spans.is_null() {
            place!(spans).write(tally.spans);
        }
    })
}

/// Stores what waits, and what came before.
///
/// Thread-safe; not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_get_statistics(
    retire: *mut hm_retire,
    to: *mut hm_retire_statistics,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let (to, found) = (growing!(to), queue!(retire));
        let held = found.queue.statistics();
        to.write(hm_retire_statistics {
            size: 0,
            reserved: 0,
            waiting_spans: held.waiting.spans,
            waiting_bytes: held.waiting.bytes,
            reclaimed_spans: held.reclaimed.spans,
            reclaimed_bytes: held.reclaimed.bytes,
            refused: held.refused,
            executors: held.executors as u64,
            online: held.online as u64,
            metadata: held.metadata as u64,
        });
    })
}

/// Locks the queue for a fork by this thread: before `hm_jit_fork_prepare` of its executable
/// memory. Answered by `hm_retire_fork_parent` or `hm_retire_fork_child`.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_fork_prepare(
    retire: *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        queue!(retire).queue.forking(&[]).fork_prepare()?;
    })
}

/// Unlocks in the parent what this thread's `hm_retire_fork_prepare` locked; after
/// `hm_jit_fork_parent`.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_fork_parent(
    retire: *mut hm_retire,
    error: *mut hm_error,
) -> hm_status {
    answer!(error, {
        let hooks = queue!(retire).queue.forking(&[]);
        // SAFETY: the caller in C promises that it has prepared the fork.
        unsafe { hooks.fork_parent() };
    })
}

/// Unlocks in the child, on its only thread, after `hm_jit_fork_child`. Of all executors, `own`, an
/// array of `count` pointers, stay: those of the thread that forked. The others are gone.
///
/// Not for signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_retire_fork_child(
    retire: *mut hm_retire,
    own: *const *mut hm_executor,
    count: usize,
    error: *mut hm_error,
) -> hm_status {
    /// Executors of one thread.
    const MOST: usize = 16;
    answer!(error, {
        let (object, found) = opened!(Retire, retire);
        let own = array!(own, count);
        let Some((first, rest)) = own.split_first() else {
            let hooks = found.queue.forking(&[]);
            // SAFETY: the caller in C promises that this is the only thread of a child of that
            // fork.
            unsafe { hooks.fork_child()? };
            object.forget_users(0);
            return Ok(());
        };
        if own.len() > MOST {
            return Err(invalid(c"more executors than one thread has"));
        }
        // SAFETY: the caller in C promises that they are null, zeros or registered.
        let first = unsafe { registered_at(*first, object)? };
        let mut all = [first; MOST];
        for (place, executor) in all.iter_mut().skip(1).zip(rest) {
            // SAFETY: as above.
            *place = unsafe { registered_at(*executor, object)? };
        }
        let all = all.get(..own.len()).unwrap_or_default();
        let hooks = found.queue.forking(all);
        // SAFETY: the caller in C promises that this is the only thread of a child of that fork.
        unsafe { hooks.fork_child()? };
        object.forget_users(own.len());
    })
}
