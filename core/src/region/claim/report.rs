//! What became of a claim.

use super::list::Tally;
use crate::{page::AddressRange, provider::Error};

/// What became of [`ClaimRequest::block_break`](super::ClaimRequest::block_break).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakBlock {
    /// It was not asked for.
    NotAsked,
    /// A page lies behind the break now, and belongs to the claim.
    Blocked,
    /// Something lay there already, or the range claimed begins there.
    Already,
    /// The host does not tell where the break is, or has none.
    Unknown,
    /// No page could be put there.
    Failed(Error),
}

/// What a claim got, and what it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimReport {
    /// What the host has of the range asked for. `None`: it has no such addresses, so that nothing
    /// is claimed, and memory can only be had where the host chooses.
    pub range: Option<AddressRange>,
    /// The bits of an address of this process, where the host tells.
    pub address_bits: Option<u32>,
    /// How long growing mappings may become, in bytes.
    pub stack_room: usize,
    /// Free pieces of the range that could not be had in the last scan, but for what was to be left
    /// and what is too short. Without a map, all that was not claimed.
    pub missed: Tally,
    /// Why the first of them could not.
    pub error: Option<Error>,
    /// Whether there were too few slots.
    pub full: bool,
    /// Whether the process map could be read. Where it could not, every address not claimed was tried,
    /// down to pages as far as a bounded number of tries goes. Room is left below the main thread's stack
    /// where the host [tells](crate::provider::AddressSpace::stack) of it, else below the caller's.
    pub map: Result<(), Error>,
    /// How often the range was scanned.
    pub scans: u32,
    /// Whether the last scan, by a map, took nothing: nothing more was to be had.
    pub settled: bool,
    /// What became of the break.
    pub block_break: BreakBlock,
}
