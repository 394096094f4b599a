//! The threads that run code.

use super::{Retire, hm_executor, hm_retire};
use crate::{
    abi::place,
    object::{Here, Object, opened},
    status::{Fault, answer, hm_error, hm_status, invalid},
};
use hostmem::jit::Executor;

/// The contents of an [`hm_executor`].
#[repr(C)]
pub(super) struct Registered {
    here: Here,
    queue: &'static Object<Retire>,
    executor: Executor<'static>,
}

const _: () = assert!(size_of::<Registered>() <= size_of::<hm_executor>());
const _: () = assert!(align_of::<Registered>() <= align_of::<hm_executor>());

/// Finds the contents of an executor from C.
///
/// # Safety
///
/// It is null, zeros, or was registered; no other call uses it until this one returns.
unsafe fn registered<'a>(executor: *mut hm_executor) -> Result<&'a Registered, Fault> {
    // SAFETY: null, or six words that the caller in C has, by this function's condition; the first
    // can be read.
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
/// It is null, zeros, or was registered; no other call uses it until this one returns.
pub(super) unsafe fn registered_at<'a>(
    executor: *mut hm_executor,
    queue: &Object<Retire>,
) -> Result<&'a Executor<'static>, Fault> {
    // SAFETY: null, zeros or registered, and used by no other call, by this function's condition.
    let found = unsafe { registered(executor)? };
    if core::ptr::eq(found.queue, queue) {
        Ok(&found.executor)
    } else {
        Err(invalid(c"an executor of another queue"))
    }
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
