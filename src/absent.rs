//! What stands for the backend where none is active: names that say so where they are used.
//!
//! The compiler resolves a type alias where it is named. So this crate builds, and so does a program
//! with a provider of its own; one that names the backend's gets the sentence below as an error.

/// Has what the backend of this target gives. Nothing implements it.
#[cfg_attr(
    target_os = "linux",
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `linux`, or supply your own provider, see docs/PORTING.md",
        label = "needs hostmem's feature `linux`"
    )
)]
#[cfg_attr(
    any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd"),
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `bsd`, or supply your own provider, see docs/PORTING.md",
        label = "needs hostmem's feature `bsd`"
    )
)]
#[cfg_attr(
    target_os = "netbsd",
    diagnostic::on_unimplemented(
        message = "hostmem's backend for this target is off: enable its feature `netbsd`, or supply your own provider, see docs/PORTING.md",
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
        message = "hostmem has no backend for this target: supply your own provider, see docs/PORTING.md",
        label = "no backend for this target"
    )
)]
pub trait Backend {
    type Provider;
    type OsLock;
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
