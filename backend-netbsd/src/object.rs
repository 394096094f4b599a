//! Dual mappings: what the views show.
//!
//! Fallbacks: `memfd_create` (system call 500, NetBSD 10 and newer only: older kernels raise `SIGSYS`),
//! `shm_open(3)`, an unlinked file.
