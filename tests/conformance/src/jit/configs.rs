//! The configurations that every test of spans runs in.

use super::{OPS, STRESS, check, random_ops, stress, unable};
use crate::{Case, Outcome};
use hostmem_core::{
    jit::{Fill, JitConfig, LargePages, Mapping, SyncCores},
    page::RwxOptIn,
    provider::Provider,
};

// SAFETY: what is written to such memory is patterns of the tests, and functions of their own.
pub(super) const RWX: Mapping = Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() });

/// What x86-64 and AArch64 hosts have beside pages of 4 KiB.
const LARGE: usize = 2 << 20;

const fn new() -> JitConfig {
    JitConfig::new()
}

/// A configuration and its name.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The name.
    pub name: &'static str,
    /// The configuration.
    pub config: JitConfig,
}

/// Makes [`configurations`], and for each of them cases of its own, so that one that a provider
/// cannot have is skipped by itself.
macro_rules! setups {
    ($($name:literal: $config:expr,)+) => {
        /// Yields every configuration that tests run in.
        pub fn configurations() -> impl Iterator<Item = Setup> {
            [$(Setup { name: $name, config: $config }),+].into_iter()
        }

        /// Yields the cases that run in every configuration.
        pub(super) fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
            let random = [$(Case::new(
                concat!("jit::random_operations (", $name, ")"),
                |p: P| run_random(p, Setup { name: $name, config: $config }),
            )),+];
            let stress = [$(Case::new(
                concat!("jit::stress (", $name, ")"),
                |p: P| run_stress(p, Setup { name: $name, config: $config }),
            )),+];
            random.into_iter().chain(stress)
        }
    };
}

setups! {
    "default": new(),
    "granules of 16": new().granularity(16),
    "granules of 128": new().granularity(128),
    "granules of 256": new().granularity(256),
    "granules of 4096": new().granularity(4096),
    "blocks of 64 KiB": new().block_size(64 << 10, 64 << 10),
    "blocks of 16 MiB": new().block_size(16 << 20, 16 << 20),
    "small blocks, granules of 4096": new().granularity(4096).block_size(64 << 10, 64 << 10),
    "blocks up to 1 MiB, granules of 16": new().granularity(16).block_size(128 << 10, 1 << 20),
    "no synchronization": new().sync_cores(SyncCores::Never),
    "one shard": new().shards(1),
    "two pools": new().pools(2),
    "three pools, granules of 16": new().pools(3).granularity(16),
    "three pools, granules above a page": new().pools(3).granularity(2048),
    "no padding": new().padding(false),
    "immediate release": new().immediate_release(true).block_size(64 << 10, 128 << 10),
    "immediate release, three pools": new().immediate_release(true).pools(3),
    "a limit": new().limit(512 << 10),
    "a limit, three pools": new().limit(512 << 10).pools(3),
    "filled with traps": new().fill(Fill::Trap),
    "filled with a pattern, granules of 16": new()
        .fill(Fill::Pattern(0x1bad_c0de))
        .granularity(16),
    "filled, three pools, small blocks, no padding, immediate release": new()
        .fill(Fill::Trap)
        .pools(3)
        .block_size(64 << 10, 64 << 10)
        .padding(false)
        .immediate_release(true),
    "large pages wished": new()
        .large_pages(LargePages::Wish { bytes: LARGE })
        .block_size(1 << 20, 4 << 20),
    "large pages aligned": new().large_pages(LargePages::Align { bytes: LARGE }),
    "large pages aligned, filled": new()
        .large_pages(LargePages::Align { bytes: LARGE })
        .fill(Fill::Trap),
    "toggled": new().mapping(Mapping::Toggle),
    "toggled, filled": new().mapping(Mapping::Toggle).fill(Fill::Trap),
    "mapped by what the host can": new().mapping(Mapping::Auto),
    "writable and executable": new().mapping(RWX),
    "writable and executable, filled, three pools": new()
        .mapping(RWX)
        .fill(Fill::Trap)
        .pools(3),
}

fn run_random<P: Provider + Copy>(p: P, setup: Setup) -> Outcome {
    if let Some(reason) = unable(p, &setup.config) {
        return Outcome::Skipped(reason);
    }
    check(p, setup.config, &random_ops(seed(setup), OPS), setup.name);
    Outcome::Passed
}

fn run_stress<P: Provider + Copy>(p: P, setup: Setup) -> Outcome {
    if let Some(reason) = unable(p, &setup.config) {
        return Outcome::Skipped(reason);
    }
    stress(p, setup.config, STRESS, seed(setup), setup.name);
    Outcome::Passed
}

/// A seed that differs between configurations.
fn seed(setup: Setup) -> u64 {
    setup.name.bytes().fold(0, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    })
}
