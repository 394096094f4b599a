//! The plumbing of backends, for people who write providers for systems with `mmap`; programs that
//! use a provider have no need of it.
//!
//! A backend implements a few traits of system calls, one call a method: [`Calls`] and [`System`]
//! for pages, [`DualSystem`] for dual mappings, beside [`ProcessMap`](super::ProcessMap) and
//! [`CoreSync`](super::CoreSync). What follows from the calls stands here once: [`SystemProvider`]
//! makes a provider of them, and the functions answer the questions that every such system leaves
//! open. What the provider tells in its [probe](crate::probe) is a trait of that module.
//!
//! | file | answers |
//! |---|---|
//! | `system` | what is a system asked, and what do its answers mean? |
//! | `provider`, `dual` | what does a provider do with the calls? |
//! | `place` | where does a reservation go, and why was a place refused? |
//! | `keep` | whose is a range after a call that replaces it failed? |
//! | `views` | how are the views of a dual mapping made, and taken back? |
//! | `file` | what is a file without a name called in the moment that it has one? |
//! | `answers`, `numbers` | what is remembered of a system, and what do its numbers mean? |
//!
//! Nothing here makes a system call.

mod answers;
mod dual;
mod file;
mod keep;
mod numbers;
mod place;
mod provider;
mod system;
#[cfg(test)]
mod tests;
mod views;

#[doc(inline)]
pub use crate::errno_kind;
pub use answers::{Answer, order_for, register_and_sync, visit_others};
pub use dual::{DualSystem, MappedViews};
pub use file::{Text, check_file_limit, large_page_of, with_new_name, write_zeros};
pub use keep::{Call, Kept, Was, commit_over, keep, keep_after, reserve_over};
pub use numbers::{milliseconds, protection};
pub use place::{
    address_bits, can_map, last_mapped_address, map_at, mappable, pointer, range_at, refused,
    reserve, search_places, try_at,
};
pub use provider::SystemProvider;
pub use system::{At, Calls, System};
pub use views::{View, both_or_neither, map_both, undo, undone};
