//! Functions: code that is added as bytes and called by type.

use super::{CodeProvider, Func, FuncPtr, JitAllocator, JitConfig, JitError, Span};
use crate::{
    provider::PageProvider,
    sync::{RawMutex, Spin},
};
use core::{convert::Infallible, fmt, ptr::NonNull};

/// Functions in executable memory from `P`, with metadata from `M`. `R` is how
/// a thread waits for a contended lock.
///
/// Owns its allocator, so that one lifetime, a borrow of the runtime, stands for the memory of all
/// functions. [`JitRuntime::allocator`] lends it for everything else: spans that are no functions,
/// statistics, batches, fork hooks.
///
/// A function is called through a [`Func`], which borrows both the runtime and the function's
/// token. While one is alive, the function can therefore be neither released nor rewritten, nor the
/// runtime dropped:
///
/// ```
/// # use hostmem_core::jit::{CodeProvider, Function, JitError, JitRuntime, ReleaseError};
/// # fn run<P: CodeProvider>(runtime: &JitRuntime<P>, one: Function) -> Result<(), JitError> {
/// // SAFETY: `one` holds a whole function of this type.
/// let call = unsafe { runtime.typed::<extern "C" fn() -> u32>(&one)? };
/// assert_eq!(call.call(), 1);
/// let released: Result<(), ReleaseError> = runtime.release(one);
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0505
/// # use hostmem_core::jit::{CodeProvider, Function, JitError, JitRuntime, ReleaseError};
/// # fn run<P: CodeProvider>(runtime: &JitRuntime<P>, one: Function) -> Result<(), JitError> {
/// # // SAFETY: `one` holds a whole function of this type.
/// let call = unsafe { runtime.typed::<extern "C" fn() -> u32>(&one)? };
/// let released: Result<(), ReleaseError> = runtime.release(one);
/// assert_eq!(call.call(), 1); // The function is gone.
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0505
/// # use hostmem_core::jit::{CodeProvider, Function, JitError, JitRuntime};
/// # fn run<P: CodeProvider>(runtime: JitRuntime<P>, one: Function) -> Result<(), JitError> {
/// # // SAFETY: `one` holds a whole function of this type.
/// let call = unsafe { runtime.typed::<extern "C" fn() -> u32>(&one)? };
/// drop(runtime);
/// assert_eq!(call.call(), 1); // All functions are gone.
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0502
/// # use hostmem_core::jit::{CodeProvider, Function, JitError, JitRuntime};
/// # fn run<P: CodeProvider>(runtime: &JitRuntime<P>, mut one: Function) -> Result<(), JitError> {
/// # // SAFETY: `one` holds a whole function of this type.
/// let call = unsafe { runtime.typed::<extern "C" fn() -> u32>(&one)? };
/// runtime.allocator().write(one.span_mut(), 0, &[0xcc])?;
/// assert_eq!(call.call(), 1); // The function is another one.
/// # Ok(())
/// # }
/// ```
pub struct JitRuntime<P: CodeProvider, M: PageProvider + Copy = P, R = Spin> {
    jit: JitAllocator<P, M, R>,
}

impl<P: CodeProvider + Default, M: PageProvider + Copy + Default, R: RawMutex> JitRuntime<P, M, R> {
    /// Makes a runtime on providers that need no arguments, such as an operating system's.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::on`].
    pub fn new(config: JitConfig) -> Result<Self, JitError> {
        Self::on(P::default(), M::default(), config)
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R: RawMutex> JitRuntime<P, M, R> {
    /// Makes a runtime with an allocator of its own, on executable memory from `provider` and with
    /// metadata from `metadata`.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::on`].
    pub fn on(provider: P, metadata: M, config: JitConfig) -> Result<Self, JitError> {
        JitAllocator::on(provider, metadata, config).map(Self::from)
    }

    /// Returns the allocator.
    ///
    /// Its spans become functions by [`Function::from`], which is how several are written in one
    /// [`Batch`](super::Batch), and how functions that call each other learn each other's address
    /// before they are written:
    ///
    /// ```no_run
    /// # use hostmem_core::jit::{CodeProvider, Function, JitError, JitRuntime, SpanWriter};
    /// # fn even(to: &mut SpanWriter<'_>, odd: usize) {}
    /// # fn odd(to: &mut SpanWriter<'_>, even: usize) {}
    /// # fn pair<P: CodeProvider>(runtime: &JitRuntime<P>) -> Result<[Function; 2], JitError> {
    /// let jit = runtime.allocator();
    /// let (mut a, mut b) = (jit.alloc(100)?, jit.alloc(100)?);
    /// let (at_a, at_b) = (a.rx().addr().get(), b.rx().addr().get());
    /// let mut batch = jit.batch();
    /// batch.write_with(&mut a, |writer| even(writer, at_b))?;
    /// batch.write_with(&mut b, |writer| odd(writer, at_a))?;
    /// batch.finish()?;
    /// Ok([Function::from(a), Function::from(b)])
    /// # }
    /// ```
    pub const fn allocator(&self) -> &JitAllocator<P, M, R> {
        &self.jit
    }

    /// Adds the function whose code is `code`, which runs at any address.
    ///
    /// # Errors
    ///
    /// The errors of [`JitAllocator::alloc`] and [`JitAllocator::write`]; nothing stays allocated
    /// then.
    pub fn add(&self, code: &[u8]) -> Result<Function, JitError> {
        match self.add_with(code, |_, _| Ok::<(), Infallible>(())) {
            Ok(function) => Ok(function),
            Err(AddError::Jit(error)) => Err(error),
            Err(AddError::FixUp(never)) => match never {},
        }
    }

    /// Adds the function whose code is `code` once `fix_up` has made it fit its address.
    ///
    /// `fix_up` gets the copy of `code` in the writable view, to be changed in place, and where it
    /// will be executed. It runs as the closure of [`JitAllocator::write_with`] does; if it
    /// panics, the memory stays allocated until the runtime is dropped.
    ///
    /// # Errors
    ///
    /// [`AddError::FixUp`] with what `fix_up` returned, [`AddError::Jit`] as
    /// [`JitRuntime::add`] does; nothing stays allocated then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use hostmem_core::jit::{AddError, CodeProvider, Function, JitRuntime};
    /// # use core::num::TryFromIntError;
    /// # fn tail_call<P: CodeProvider>(runtime: &JitRuntime<P>, callee: &Function)
    /// #     -> Result<Function, AddError<TryFromIntError>> {
    /// // x86-64: jmp rel32, relative to the end of the instruction.
    /// let callee = callee.rx().addr().get().cast_signed();
    /// runtime.add_with(&[0xe9, 0, 0, 0, 0], |code, rx| {
    ///     let end = rx.addr().get().cast_signed() + 5;
    ///     let distance = i32::try_from(callee - end)?;
    ///     code[1..].copy_from_slice(&distance.to_le_bytes());
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn add_with<E>(
        &self,
        code: &[u8],
        fix_up: impl FnOnce(&mut [u8], NonNull<u8>) -> Result<(), E>,
    ) -> Result<Function, AddError<E>> {
        self.emit(code.len(), |bytes, rx| {
            bytes.copy_from_slice(code);
            fix_up(bytes, rx).map(|()| code.len())
        })
    }

    /// Adds a function of at most `capacity` bytes, which `write` generates in place: for
    /// generators that must know the address beforehand.
    ///
    /// `write` gets the bytes in the writable view, whatever they held before, and where they will
    /// be executed; it returns how many of them it used. The rest is given back.
    ///
    /// # Errors
    ///
    /// The errors of [`JitRuntime::add_with`]; [`JitError::InvalidSize`] where `write` used none,
    /// [`JitError::OutOfBounds`] where it says that it used more than there were.
    pub fn emit<E>(
        &self,
        capacity: usize,
        write: impl FnOnce(&mut [u8], NonNull<u8>) -> Result<usize, E>,
    ) -> Result<Function, AddError<E>> {
        let mut span = self.jit.alloc(capacity)?;
        let written = self.jit.write_with(&mut span, |writer| {
            let rx = writer.rx();
            match write(&mut writer.bytes_mut()[..capacity], rx).map_err(AddError::FixUp)? {
                0 => Err(JitError::InvalidSize.into()),
                used if used > capacity => Err(JitError::OutOfBounds.into()),
                used => {
                    writer.shrink_to(used);
                    Ok(())
                }
            }
        });
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => Ok(Function { span }),
            Err(error) => {
                // Allocated above, so it is the allocator's, unless a reset took it back already.
                let _ = self.jit.release(span);
                Err(error)
            }
        }
    }

    /// Returns `function` as something that can be called.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`] where the function belongs to another runtime, or to the time before
    /// a reset.
    ///
    /// # Safety
    ///
    /// As long as the result lives, with copies of it,
    /// - the memory of `function` holds the code of a whole function of type `F`, for this CPU, and
    ///   all of it is published: written by this runtime, or by a batch that has ended;
    /// - whatever that code calls, jumps to, reads or writes is there and may be used so, other
    ///   functions of this runtime included;
    /// - no call of the allocator that is itself unsafe takes or changes that memory.
    ///
    /// If `F` is a safe type, calling it does no harm, whatever the arguments. And when it is
    /// called,
    /// - the calling thread does not run what it fetched from that memory earlier, for which the
    ///   runtime cares where [`JitAllocator::syncs_cores`] says so, and else the caller;
    /// - with [`Mapping::Toggle`](super::Mapping::Toggle), nothing is written through the allocator
    ///   until the call has returned, by any thread.
    pub unsafe fn typed<'rt, F: FuncPtr>(
        &'rt self,
        function: &'rt Function,
    ) -> Result<Func<'rt, F>, JitError> {
        // SAFETY: the memory of `function` holds a function of type F from its first byte on, by
        // this function's `# Safety`.
        unsafe { self.typed_at(function, 0) }
    }

    /// Returns the code `offset` bytes into `function` as something that can be called: a second
    /// entry, or one of several functions that were assembled together.
    ///
    /// # Errors
    ///
    /// The errors of [`JitRuntime::typed`]; [`JitError::OutOfBounds`] where `offset` lies outside.
    ///
    /// # Safety
    ///
    /// The promises of [`JitRuntime::typed`], for a function that begins at `offset`.
    pub unsafe fn typed_at<'rt, F: FuncPtr>(
        &'rt self,
        function: &'rt Function,
        offset: usize,
    ) -> Result<Func<'rt, F>, JitError> {
        self.jit.check_owner(&function.span)?;
        if offset >= function.len_bytes() {
            return Err(JitError::OutOfBounds);
        }
        // SAFETY: the offset lies in the span, which is live by its token.
        let entry = unsafe { function.rx().add(offset) };
        // SAFETY: Func needs a function of type F for the lifetime.
        // - it is one: the first item of this function's `# Safety`;
        // - it stays: giving the span back or writing to it takes the token, which is borrowed for
        //   the lifetime, or is unsafe, and excluded by the third item; dropping the allocator
        //   takes the runtime, which is borrowed too, and is the function's, as checked.
        Ok(unsafe { Func::new(entry) })
    }

    /// Gives the memory of a function back.
    ///
    /// Safe, because whoever calls code at an address answers for its being there: code that was
    /// given the address of this function, by fix-ups, is such a caller.
    ///
    /// # Errors
    ///
    /// [`JitError::NotOwned`], with the function, where [`JitAllocator::release`] says so.
    #[expect(
        clippy::result_large_err,
        reason = "the token comes back, and nothing here can box it"
    )]
    pub fn release(&self, function: Function) -> Result<(), ReleaseError> {
        self.jit
            .release(function.span)
            .map_err(|refused| ReleaseError {
                function: refused.span.into(),
                error: refused.error,
            })
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R> From<JitAllocator<P, M, R>>
    for JitRuntime<P, M, R>
{
    fn from(jit: JitAllocator<P, M, R>) -> Self {
        Self { jit }
    }
}

impl<P: CodeProvider, M: PageProvider + Copy, R> fmt::Debug for JitRuntime<P, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JitRuntime").field(&self.jit).finish()
    }
}

/// Code that the caller owns: the token of it. Given back by [`JitRuntime::release`].
#[derive(Debug)]
#[must_use = "dropping a function leaks its memory until the runtime is dropped"]
pub struct Function {
    span: Span,
}

impl Function {
    /// Returns where the code is executed.
    #[must_use]
    pub fn rx(&self) -> NonNull<u8> {
        self.span.rx()
    }

    /// Returns the length in bytes, in whole granules.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.span.len_bytes()
    }

    /// Returns the memory of the code, to change it by calls of the
    /// [allocator](JitRuntime::allocator).
    pub const fn span_mut(&mut self) -> &mut Span {
        &mut self.span
    }

    /// Returns the memory of the code as what it also is.
    pub fn into_span(self) -> Span {
        self.span
    }
}

impl From<Span> for Function {
    fn from(span: Span) -> Self {
        Self { span }
    }
}

/// Why a function was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError<E> {
    /// What the allocator said.
    Jit(JitError),
    /// What the fix-up said.
    FixUp(E),
}

impl<E> From<JitError> for AddError<E> {
    fn from(error: JitError) -> Self {
        Self::Jit(error)
    }
}

impl<E: fmt::Display> fmt::Display for AddError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jit(e) => write!(f, "function not added: {e}"),
            Self::FixUp(e) => write!(f, "function not added, since it cannot be fixed up: {e}"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for AddError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(match self {
            Self::Jit(e) => e,
            Self::FixUp(e) => e,
        })
    }
}

/// A function that its runtime refused to take back, and why.
#[derive(Debug)]
pub struct ReleaseError {
    /// The function, still the caller's.
    pub function: Function,
    /// Why.
    pub error: JitError,
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function not released: {}", self.error)
    }
}

impl core::error::Error for ReleaseError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}
