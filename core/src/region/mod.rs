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
//! An emulator with a 32-bit guest [claims](claim()) every gap above 4 GiB, so that what anybody maps
//! without asking for a place can land nowhere but below, where the guest knows of it; all host memory
//! is then placed in what was claimed, stacks of [threads](GuardedStack) too.

mod allocator;
mod claim;
mod fork;
mod lock;
mod map;
mod provide;
mod record;
mod resize;
mod stack;

pub use allocator::{MappingPressure, Order, RegionAllocator, RegionConfig, RegionStatistics};
pub use claim::{
    BreakBlock, Claim, ClaimReport, ClaimRequest, Claimed, Others, Purpose, Tally, claim, survey,
};
pub use lock::SignalHook;
pub use record::{PageState, RegionRange};
pub use stack::GuardedStack;
