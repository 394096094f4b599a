//! The range map, with metadata from the provider.
//!
//! [`check`] takes the operations, so that fuzzers call the same code as the cases here.

mod model;
mod ops;
mod oracle;

pub use ops::{FAR, NEAR, Op, Place, Setup, Tally, check, random_ops};

use crate::{Case, report};
use hostmem_core::provider::Provider;

/// Yields the cases.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("range_map", P:
        model::random_changes_match_a_plain_map,
        model::without_metadata_nothing_changes,
    )
}
