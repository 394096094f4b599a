//! What stands for the heap of a program where the standard library is off: a name that says so
//! where it is used.

/// Has what the standard library gives. Nothing implements it.
#[diagnostic::on_unimplemented(
    message = "hostmem's `GlobalHeap` needs the standard library: enable hostmem's feature `std`, \
               or put a heap of your own into a static by `heap::StaticHeap`",
    label = "needs hostmem's feature `std`"
)]
pub trait Std {
    type GlobalHeap;
}

pub struct WithoutStd;

/// Nothing, with a `new`, so that the compiler finds one and does not guess at others.
pub struct Absent<T>(T);

impl<T> Absent<T> {
    /// Is never called: the `T` of this crate does not exist.
    #[expect(
        clippy::new_ret_no_self,
        reason = "an unknown type keeps the compiler from further errors"
    )]
    pub const fn new() -> T {
        panic!("there is no standard library")
    }
}

/// The heap of the process, which needs the feature `std`: using this name is an error.
pub type GlobalHeap = Absent<<WithoutStd as Std>::GlobalHeap>;
