//! Address space that belongs to the host alone.
//!
//! ```text
//!   0          4 GiB       8 GiB                                             top
//!   ├───────────┼───────────┼────────┬──────┬───────────────┬──────┬─────┬────┤
//!   │ the guest │   hole    │ usable │ .so  │    usable     │ room │stack│ .. │
//!   └───────────┴───────────┴────────┴──────┴───────────────┴──────┴─────┴────┘
//!                 claimed     claimed          claimed        left
//! ```
//!
//! An emulator with a 32-bit guest [claims](claim()) every gap above 4 GiB, so that what anybody
//! maps without asking for a place can land nowhere but below, where the guest knows of it; all
//! host memory is then placed in what was claimed, stacks of [threads](GuardedStack) too.
//!
//! In the order in which a request passes through them:
//!
//! | module | what it has |
//! |---|---|
//! | `claim` | every gap of a range becomes a reservation |
//! | `config` | the configuration of an allocator, and its statistics |
//! | `allocator` | the allocator, and the addresses that it is given |
//! | `provide` | the allocator as a provider |
//! | `map`, `resize`, `stack` | the calls of `mmap` and its kin, on pages and on mappings; stacks |
//! | `lock` | the lock, and when signals may come in |
//! | `choose` | which free pages are taken |
//! | `record` | the record of every page |
//! | `query` | the state of pages, gaps, statistics |
//! | `units` | addresses, bytes and pages |
//! | `fork` | repairs in a forked child |

mod allocator;
mod choose;
mod claim;
mod config;
mod fork;
mod lock;
mod map;
mod provide;
mod query;
mod record;
mod resize;
mod stack;
mod units;

pub use allocator::RegionAllocator;
pub use claim::{
    BreakBlock, Claim, ClaimReport, ClaimRequest, Claimed, Others, Purpose, Tally, claim, survey,
};
pub use config::{MappingPressure, Order, RegionConfig, RegionStatistics};
pub use lock::SignalHook;
pub use record::{PageState, RegionRange};
pub use stack::GuardedStack;
