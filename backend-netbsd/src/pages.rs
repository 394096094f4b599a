//! Pages: reserve, commit, protect, decommit, release.
//!
//! Under PaX MPROTECT memory that was mapped inaccessible may not become writable by `mprotect(2)`,
//! so committing maps over the reservation. Decommitting maps over too: `MADV_FREE` leaves contents.
//! Exact places by `MAP_TRYFIXED` or by a hint whose result is verified.
