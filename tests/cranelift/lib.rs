//! The example in the documentation of `hostmem::cranelift` is a test of this crate.

#![cfg_attr(doctest, doc = include_str!("../../src/cranelift/example.md"))]
