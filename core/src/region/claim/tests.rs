//! The policy, on an address space that is nothing but a list.

extern crate std;

mod changing;
mod gaps;
mod host;
mod limits;
mod program_break;
mod random;
mod room;
