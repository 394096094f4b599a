//! Other cores, time, and what a waiting thread does.
//!
//! `clock_gettime(2)`, `sched_yield(2)`. There is no call that synchronizes the instruction streams of
//! other cores.
