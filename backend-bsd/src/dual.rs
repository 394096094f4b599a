//! Dual mappings: the views.
//!
//! Two shared views of one object, with `PROT_MAX` set to the least that each view needs, and
//! `minherit(2)` for what a forked child sees.
