//! Functions by type.

use core::{fmt, marker::PhantomData, ptr::NonNull};

mod sealed {
    /// A type that a code address can be made into.
    pub trait Sealed: Copy {
        /// Makes a function pointer.
        ///
        /// # Safety
        ///
        /// A function of this type begins at `entry`.
        unsafe fn from_entry(entry: core::ptr::NonNull<u8>) -> Self;
    }
}

use sealed::Sealed;

/// The type of a function in generated code: `extern "C" fn` and `unsafe extern "C" fn` of up to
/// eight arguments. Types with a lifetime of their own, as `for<'a> extern "C" fn(&'a u8)`, are
/// none of them; a pointer does instead.
pub trait FuncPtr: Sealed + fmt::Pointer {}

/// A function of type `F` that is there as long as `'rt`, made by
/// [`JitRuntime::typed`](super::JitRuntime::typed).
///
/// It is called by `call`, with the arguments of `F`, and where `F` is an unsafe type that is too.
/// There is no safe way to the function pointer inside: a copy of that could be called when the
/// function is gone.
///
/// Copies can be sent to other threads: whoever made the first one has vouched for that.
#[derive(Clone, Copy)]
pub struct Func<'rt, F> {
    function: F,
    rt: PhantomData<&'rt ()>,
}

impl<F: FuncPtr> Func<'_, F> {
    /// Takes the code at `entry` for a function.
    ///
    /// # Safety
    ///
    /// It is one of type `F`, and stays for the lifetime of the result. If `F` is a safe type,
    /// calling it does no harm.
    pub(super) unsafe fn new(entry: NonNull<u8>) -> Self {
        Self {
            // SAFETY: the code at `entry` is a function of type F, by this function's `# Safety`.
            function: unsafe { F::from_entry(entry) },
            rt: PhantomData,
        }
    }

    /// Returns the function pointer.
    ///
    /// # Safety
    ///
    /// It is not called after the lifetime of this value, which nothing but the caller's care
    /// prevents; nor is it given to anybody who could.
    pub unsafe fn get(self) -> F {
        self.function
    }
}

impl<F: FuncPtr> fmt::Debug for Func<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Func({:p})", self.function)
    }
}

/// Implements everything for functions of these arguments.
macro_rules! functions {
    ($($(#[$lint:meta])* ($($T:ident $t:ident),*))+) => {$(
        impl<Ret, $($T),*> Sealed for extern "C" fn($($T),*) -> Ret {
            unsafe fn from_entry(entry: NonNull<u8>) -> Self {
                // SAFETY: a code address and a function pointer are the same bits, and the caller
                // promises a function of this type.
                unsafe { core::mem::transmute::<NonNull<u8>, Self>(entry) }
            }
        }

        impl<Ret, $($T),*> FuncPtr for extern "C" fn($($T),*) -> Ret {}

        impl<Ret, $($T),*> Func<'_, extern "C" fn($($T),*) -> Ret> {
            /// Calls the function.
            $(#[$lint])*
            pub fn call(&self, $($t: $T),*) -> Ret {
                (self.function)($($t),*)
            }
        }

        impl<Ret, $($T),*> Sealed for unsafe extern "C" fn($($T),*) -> Ret {
            unsafe fn from_entry(entry: NonNull<u8>) -> Self {
                // SAFETY: a code address and a function pointer are the same bits, and the caller
                // promises a function of this type.
                unsafe { core::mem::transmute::<NonNull<u8>, Self>(entry) }
            }
        }

        impl<Ret, $($T),*> FuncPtr for unsafe extern "C" fn($($T),*) -> Ret {}

        impl<Ret, $($T),*> Func<'_, unsafe extern "C" fn($($T),*) -> Ret> {
            /// Calls the function.
            ///
            /// # Safety
            ///
            /// What the function asks of its callers.
            $(#[$lint])*
            pub unsafe fn call(&self, $($t: $T),*) -> Ret {
                // SAFETY: the caller does what the function asks, by this method's `# Safety`; the
                // function is there, by the lifetime.
                unsafe { (self.function)($($t),*) }
            }
        }
    )+};
}

functions! {
    ()
    (A a)
    (A a, B b)
    (A a, B b, C c)
    (A a, B b, C c, D d)
    (A a, B b, C c, D d, E e)
    (A a, B b, C c, D d, E e, F f)
    #[expect(clippy::too_many_arguments, reason = "as many as the function has")]
    (A a, B b, C c, D d, E e, F f, G g)
    #[expect(clippy::too_many_arguments, reason = "as many as the function has")]
    (A a, B b, C c, D d, E e, F f, G g, H h)
}
