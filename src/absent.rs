//! What stands for the backend where none is active: names that say so where they are used.
//!
//! The compiler resolves a type alias where it is named. So this crate builds, and so does a
//! program with a provider of its own; one that names the backend's gets the sentence below as an
//! error.

/// Has what the backend of this target gives. Nothing implements it.
#[cfg_attr(
    target_os = "linux",
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `linux`, or \
                   supply your own provider, see docs/PORTING.md",
        label = "needs hostmem's feature `linux`"
    )
)]
#[cfg_attr(
    any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"),
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `bsd`, or \
                   supply your own provider, see docs/PORTING.md",
        label = "needs hostmem's feature `bsd`"
    )
)]
#[cfg_attr(
    target_os = "netbsd",
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `netbsd`, or \
                   supply your own provider, see docs/PORTING.md",
        label = "needs hostmem's feature `netbsd`"
    )
)]
#[cfg_attr(
    not(any(
        target_os = "linux",
        target_os = "freebsd",
        target_os = "dragonfly",
        target_os = "openbsd",
        target_os = "netbsd"
    )),
    diagnostic::on_unimplemented(
        message = "hostmem has no backend for this target: supply your own provider, see \
                   docs/PORTING.md",
        label = "no backend for this target"
    )
)]
pub trait Backend {
    type Provider;
    type OsLock;
    type GlobalHeap;
    type Made;
}

pub struct ThisTarget;

/// Nothing, with a `new`, so that the compiler finds one and does not guess at others.
pub struct Absent<T>(T);

impl<T> Absent<T> {
    /// Is never called: the `T` of this target does not exist.
    #[expect(
        clippy::new_ret_no_self,
        reason = "an unknown type keeps the compiler from further errors"
    )]
    pub const fn new() -> T {
        panic!("there is no backend")
    }
}

/// The provider of this target's backend, which is not active: using this name is an error.
pub type OsProvider = Absent<<ThisTarget as Backend>::Provider>;

/// The lock of this target's backend, which is not active: using this name is an error.
pub type OsLock = <ThisTarget as Backend>::OsLock;

/// The heap of the process, on this target's backend, which is not active: using this name is an
/// error.
pub type GlobalHeap = Absent<<ThisTarget as Backend>::GlobalHeap>;

/// What is made on a backend, by so many arguments.
pub struct Made<T, const ARGUMENTS: usize>(T);

impl<T> Made<T, 1> {
    /// Is never called.
    #[expect(clippy::new_ret_no_self, reason = "as above")]
    pub fn new<A>(_: A) -> T {
        unreachable!("there is no backend")
    }
}

impl<T> Made<T, 2> {
    /// Is never called.
    #[expect(clippy::new_ret_no_self, reason = "as above")]
    pub fn new<A, B>(_: A, _: B) -> T {
        unreachable!("there is no backend")
    }
}

impl<T> Made<T, 3> {
    /// Is never called.
    #[expect(clippy::new_ret_no_self, reason = "as above")]
    pub fn new<A, B, C>(_: A, _: B, _: C) -> T {
        unreachable!("there is no backend")
    }
}

impl<T, const ARGUMENTS: usize> Made<T, ARGUMENTS> {
    /// Is never called.
    pub fn on<A, B, C>(_: A, _: B, _: C) -> T {
        unreachable!("there is no backend")
    }
}

/// Defines names that are errors where they are used.
macro_rules! absent {
    ($($Name:ident: $arguments:literal,)*) => {$(
        /// Needs this target's backend, which is not active: using this name is an error.
        pub type $Name = Made<<ThisTarget as Backend>::Made, $arguments>;
    )*};
}

absent! {
    CodeRange: 1,
    FuncCell: 2,
    Heap: 1,
    JitAllocator: 1,
    JitRuntime: 1,
    LocalHeap: 1,
    LowHeap: 1,
    RangeMap: 3,
    RegionAllocator: 1,
    RegionHeap: 1,
    RetireQueue: 2,
}
