//! Functions that are replaced while other threads run them.

use super::{Executor, Func, FuncPtr, Function, JitError, ReleaseError, Releases, RetireQueue};
use crate::{
    provider::PageProvider,
    sync::{Lock, RawMutex, Spin},
};
use core::{
    fmt,
    marker::PhantomData,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicPtr, Ordering},
};

/// A place for a function of type `F`, which can be replaced while other threads call it.
///
/// Each thread that calls has an [`Executor`] of the queue. [`FuncCell::get`] borrows it
/// exclusively as long as the function may be called, so that the executor has no quiescent point
/// in between; [`FuncCell::replace`] retires the function that was there. So in safe code no
/// function is called after its memory was released. What a function is made of is promised once,
/// when it is put into the cell.
///
/// ```no_run
/// # use hostmem_core::jit::{CodeProvider, FuncCell, Function, JitError, JitRuntime};
/// # use hostmem_core::jit::{JitAllocator, ReleaseError, RetireQueue};
/// # type Queue<'a, P> = RetireQueue<&'a JitAllocator<P>, P>;
/// # type Cell<'a, P> = FuncCell<'a, extern "C" fn() -> u32, &'a JitAllocator<P>, P>;
/// # fn run<P: CodeProvider>(queue: &Queue<'_, P>, one: Function, two: Function)
/// #     -> Result<(), JitError> {
/// // SAFETY: `one` is a whole function of this type, and does no harm.
/// let cell = unsafe { FuncCell::new(queue, one) };
/// let cell: Cell<'_, P> = cell.map_err(|refused| refused.error)?;
/// // Each thread that calls it:
/// let mut me = queue.register()?;
/// let answer = cell.get(&mut me)?.call();
/// me.quiescent();
/// // The thread that replaces it:
/// // SAFETY: `two` is one of the same type, and does no harm.
/// unsafe { cell.replace(two) }.map_err(|refused| refused.error)?;
/// let released = queue.reclaim();
/// # let _ = (answer, released);
/// # Ok(())
/// # }
/// ```
///
/// A function cannot be called after the executor's quiescent point:
///
/// ```compile_fail,E0502
/// # use hostmem_core::jit::{CodeProvider, Executor, FuncCell, JitAllocator, JitError};
/// # type Cell<'a, P> = FuncCell<'a, extern "C" fn() -> u32, &'a JitAllocator<P>, P>;
/// # fn run<P: CodeProvider>(cell: &Cell<'_, P>, mut me: Executor<'_>) -> Result<(), JitError> {
/// let function = cell.get(&mut me)?;
/// me.quiescent();
/// assert_eq!(function.call(), 1); // It may be gone.
/// # Ok(())
/// # }
/// ```
///
/// Dropping the cell gives its function back: all that was got from it borrows it, so no thread
/// runs that any more.
pub struct FuncCell<'queue, F, A: Releases, M: PageProvider + Copy, R: RawMutex = Spin> {
    queue: &'queue RetireQueue<A, M, R>,
    entry: AtomicPtr<u8>,
    /// The token of what is at the entry. There is none once the cell is dropped.
    function: Lock<Option<Function>, R>,
    function_type: PhantomData<F>,
}

impl<'queue, F: FuncPtr, A: Releases, M: PageProvider + Copy, R: RawMutex>
    FuncCell<'queue, F, A, M, R>
{
    /// Makes a cell with a first function in it, of the allocator that the queue stands before.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], with the function, where it belongs to another allocator.
    ///
    /// # Safety
    ///
    /// From now on until the function is replaced and all executors of the queue had a quiescent
    /// point, the promises of [`JitRuntime::typed`](super::JitRuntime::typed) hold for it, with
    /// every call of it on any thread. In particular the allocator does not map code once and
    /// toggle it ([`Mapping::Toggle`](super::Mapping::Toggle)), if code is written meanwhile.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    pub unsafe fn new(
        queue: &'queue RetireQueue<A, M, R>,
        function: Function,
    ) -> Result<Self, ReleaseError> {
        let cell = Self {
            queue,
            entry: AtomicPtr::new(null_mut()),
            function: Lock::new(None),
            function_type: PhantomData,
        };
        // SAFETY: replace asks of the function what this function's `# Safety` does.
        unsafe { cell.replace(function)? };
        Ok(cell)
    }

    /// Returns the function that is in the cell now, to be called as long as the executor is
    /// borrowed. An executor that is offline comes online.
    ///
    /// A few loads; takes no lock.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`] where the executor belongs to another queue, or is not registered any
    /// more in a forked child.
    #[inline]
    pub fn get<'cell>(
        &'cell self,
        executor: &'cell mut Executor<'_>,
    ) -> Result<Func<'cell, F>, JitError> {
        if !self.queue.protects(executor) {
            return Err(JitError::NotOwned);
        }
        executor.online();
        let entry = NonNull::new(self.entry.load(Ordering::Acquire)).ok_or(JitError::NotLive)?;
        // SAFETY: Func needs a function of type F that stays for the lifetime.
        // - it is one: the `# Safety` of replace;
        // - it stays: it was found by an executor of the queue that is online, and has no quiescent
        //   point, and goes neither offline nor away, while it is borrowed exclusively. What
        //   `replace` takes out goes through the queue, which waits for that. The cell itself is
        //   borrowed as well, and so is not dropped.
        Ok(unsafe { Func::new(entry) })
    }

    /// Puts another function into the cell, and retires the one that was there: it is released by
    /// [`RetireQueue::reclaim`], once no executor can be running it.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], with the new function and nothing changed, where it belongs to
    /// another allocator. [`JitError::QueueFull`], with the old function, where as many wait as the
    /// queue takes: the new one is in the cell, and the old one is to be
    /// [retired](RetireQueue::retire) later.
    ///
    /// # Safety
    ///
    /// The promises of [`FuncCell::new`], for the new function.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    pub unsafe fn replace(&self, function: Function) -> Result<(), ReleaseError> {
        let span = function.into_span();
        if let Err(error) = self.queue.allocator().check(&span) {
            let function = span.into();
            return Err(ReleaseError { function, error });
        }
        let function = Function::from(span);
        let entry = function.rx().as_ptr();
        let mut current = self.function.lock();
        self.entry.store(entry, Ordering::Release);
        let Some(old) = current.replace(function) else {
            return Ok(());
        };
        drop(current);
        self.queue
            .retire(old.into_span())
            .map_err(|refused| ReleaseError {
                function: refused.span.into(),
                error: refused.error,
            })
    }
}

impl<F, A: Releases, M: PageProvider + Copy, R: RawMutex> Drop for FuncCell<'_, F, A, M, R> {
    fn drop(&mut self) {
        if let Some(function) = self.function.get_mut().take() {
            // A span that the allocator refuses is no longer its own.
            let _ = self.queue.allocator().release(function.into_span());
        }
    }
}

impl<F, A: Releases, M: PageProvider + Copy, R: RawMutex> fmt::Debug for FuncCell<'_, F, A, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FuncCell")
            .field(&self.entry.load(Ordering::Relaxed))
            .finish()
    }
}
