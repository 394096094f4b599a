//! Runs tests under the conditions of a hardened Linux, and observes every mapping call they make.
//!
//! | module | what it does |
//! |---|---|
//! | [`isolate`] | runs the body of a test in a process of its own |
//! | [`seccomp`] | makes chosen system calls fail with a chosen errno |
//! | [`harden`] | MDWE, `vm.memfd_noexec` in a pid namespace, `noexec` mounts |
//! | [`hugetlb`] | reserves huge pages for the length of a closure |
//! | [`mounts`] | changes what the calling thread sees mounted |
//! | [`overcommit`] | strict accounting of memory, and a process that may have no more |
//! | [`trace`] | records, and can refuse, every mapping call of a process and its descendants |
//! | [`maps`] | reads `/proc/PID/maps`, `smaps` and the table of file descriptors |
//! | [`fault`] | says whether a closure faults, and where |
//! | [`steps`] | counts the instructions of a closure, and looks at the state between any two |
//!
//! What the host does not permit is reported as [`Unavailable`], so that a test can say aloud that
//! it is skipped. Everything here is for tests: a wrong use panics.
#![cfg(target_os = "linux")]

pub mod fault;
pub mod harden;
pub mod hugetlb;
pub mod isolate;
pub mod maps;
pub mod mounts;
pub mod overcommit;
pub mod seccomp;
pub mod steps;
pub mod trace;

mod sys;
mod unavailable;

pub use unavailable::Unavailable;
