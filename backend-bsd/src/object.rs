//! Dual mappings: what the views show.
//!
//! `shm_open(SHM_ANON)` by libc (rustix takes a `&CStr`, which the address 1 is not), then
//! `memfd_create` by libc (static programs have no `dlsym`), then an unlinked file. OpenBSD:
//! `shm_mkstemp(3)`.
