//! Pages: reserve, commit, protect, decommit, release.
//!
//! `PROT_NONE` or `MAP_GUARD` reservations; exact places by `MAP_FIXED|MAP_EXCL`, whose `EEXIST`,
//! `EINVAL` and `ENOMEM` all mean that the place is taken; alignment by `MAP_ALIGNED`. Decommitting
//! maps over: `MADV_FREE` and `MADV_DONTNEED` leave the contents of shared objects intact.
