//! Spans that wait, and forks.

use super::{Retire, executor::registered_at, hm_executor, hm_retire, hm_retire_statistics, queue};
use crate::{
    abi::{array, growing, place},
    jit::{hm_span, name_of},
    object::opened,
    status::{answer, hm_error, hm_status, invalid},
};
use hostmem::fork::ForkHooks;

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
            // SAFETY: the caller in C promises that it is null, zeros or registered.
            *place = unsafe { registered_at(*executor, object)? };
        }
        let all = all.get(..own.len()).unwrap_or_default();
        let hooks = found.queue.forking(all);
        // SAFETY: the caller in C promises that this is the only thread of a child of that fork.
        unsafe { hooks.fork_child()? };
        object.forget_users(own.len());
    })
}
