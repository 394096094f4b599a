//! Dual mappings: the views.
//!
//! `mremap(MAP_REMAPDUP)` of a mapping made with `PROT_MPROTECT(PROT_EXEC)`, then `mprotect(2)` of the
//! duplicate. It cannot land on an existing mapping (`ENOMEM`), a reservation included, so a target
//! range is unmapped first and may be lost: `RangeLost`.
