//! The outcome of a claim.

use super::list::Tally;
use crate::{page::AddressRange, provider::Error};

/// The outcome of [`ClaimRequest::block_break`](super::ClaimRequest::block_break).
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

/// Where a mapping can land whose place the host chooses, tried after the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Others {
    /// It was not tried: nothing is claimed.
    NotTried,
    /// Outside of what is claimed.
    Outside,
    /// In the range, where this was left to them: the host chooses no other places. So it is in
    /// Linux's legacy layout (`setarch -L`, and on some CPUs without a limit of stacks).
    Room(AddressRange),
    /// Nowhere: they are refused with this error, by a limit or since no address is left.
    Nowhere(Error),
}

/// Reports how complete a claim is, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimReport {
    /// The part of the requested range that the host has. `None`: it has no such addresses, so that
    /// nothing is claimed, and memory can only be had where the host chooses.
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
    /// Whether the process map could be read. Where it could not, every address not claimed was
    /// tried, down to pages as far as a bounded number of tries goes. Room is left below the main
    /// thread's stack where the host [tells](crate::provider::AddressSpace::stack) of it, else
    /// below the caller's.
    pub map: Result<(), Error>,
    /// How often the range was scanned.
    pub scans: u32,
    /// Whether the last scan, by a map, took nothing: nothing more was to be had.
    pub settled: bool,
    /// Whether the break is blocked.
    pub block_break: BreakBlock,
    /// Where others' mappings go now.
    pub others: Others,
    /// How many bytes of the memory that `brk` gave lie in the range. The C library's heap keeps
    /// serving from there what it has, and will ever free: blocks from it lie in the range though
    /// the claim does not hold them.
    pub heap_bytes: usize,
}

impl ClaimReport {
    /// Says whether all of the range is the claim's now that was to be claimed: nothing was missed,
    /// by a map that could be read. A range without such addresses on this host is complete with
    /// nothing, if the host tells where its addresses end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Some(_) = self.range else {
            return self.address_bits.is_some();
        };
        let all = self.settled && self.missed.bytes == 0 && !self.full;
        self.map.is_ok() && all && !matches!(self.block_break, BreakBlock::Failed(_))
    }
}
