//! Signals, kept out of a map's lock where their handlers may want it.

use core::ffi::c_void;

/// Two functions that keep signals away from a thread that holds a map's lock, as
/// [`region::SignalHook`](crate::region::SignalHook) does for a region's, with a context.
///
/// # Examples
///
/// ```
/// use core::{ffi::c_void, ptr::null};
/// use hostmem_core::range_map::SignalHook;
///
/// unsafe fn enter(_context: *const c_void) -> usize {
///     0 // The signals that were blocked before.
/// }
/// unsafe fn leave(_context: *const c_void, _blocked_before: usize) {}
///
/// // SAFETY: neither uses the context.
/// let hook = unsafe { SignalHook::new(null(), enter, leave) };
/// # let _ = hook;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SignalHook {
    context: *const c_void,
    enter: unsafe fn(*const c_void) -> usize,
    leave: unsafe fn(*const c_void, usize),
}

// SAFETY: the context is only given to the two functions, which may be called on any thread.
unsafe impl Send for SignalHook {}
// SAFETY: the context is only given to the two functions, which several threads may call at a time.
unsafe impl Sync for SignalHook {}

impl SignalHook {
    /// Makes a hook. `enter` is called with the context before the lock is waited for or tried, on
    /// the thread that will hold it; what it returns, the signals blocked before for instance, goes
    /// to `leave`, which is called after the lock was given back, on the same thread.
    ///
    /// # Safety
    ///
    /// Both may be called with this context on any thread, by several at a time, as long as a map
    /// has the hook. They do not unwind, and do not call the map.
    #[must_use]
    pub const unsafe fn new(
        context: *const c_void,
        enter: unsafe fn(*const c_void) -> usize,
        leave: unsafe fn(*const c_void, usize),
    ) -> Self {
        Self {
            context,
            enter,
            leave,
        }
    }
}

/// Signals that are kept out until it is dropped.
pub(super) struct Deferred(Option<(SignalHook, usize)>);

impl Deferred {
    #[inline]
    pub(super) fn new(hook: Option<SignalHook>) -> Self {
        Self(hook.map(|hook| {
            // SAFETY: `SignalHook::new` asks that it may be called with this context on any thread,
            // as long as a map has the hook.
            let token = unsafe { (hook.enter)(hook.context) };
            (hook, token)
        }))
    }
}

impl Drop for Deferred {
    #[inline]
    fn drop(&mut self) {
        if let Some((hook, token)) = self.0 {
            // SAFETY: `SignalHook::new` asks that it may be called with this context on any thread,
            // as long as a map has the hook; the token is what `enter` returned on this thread.
            unsafe { (hook.leave)(hook.context, token) };
        }
    }
}
