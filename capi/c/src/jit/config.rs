//! How values from C become a configuration.

use super::types::*;
use crate::{
    status::{Fault, invalid},
    types::{name, placement},
};
use hostmem::{
    jit::{Fill, JitConfig, LargePages, Mapping, SyncCores, Words},
    page::RwxOptIn,
    provider::Fork,
};

pub(crate) fn mapping(from: hm_mapping) -> Result<Mapping, Fault> {
    Ok(match from {
        HM_MAPPING_DUAL => Mapping::Dual,
        HM_MAPPING_TOGGLE => Mapping::Toggle,
        HM_MAPPING_AUTO => Mapping::Auto,
        // SAFETY: the caller in C has asked for it by a name that says so.
        HM_MAPPING_READ_WRITE_EXEC => Mapping::ReadWriteExec(unsafe { RwxOptIn::accept() }),
        _ => return Err(invalid(c"no such mapping")),
    })
}

pub(crate) const fn of_mapping(mapping: Mapping) -> hm_mapping {
    match mapping {
        Mapping::Toggle => HM_MAPPING_TOGGLE,
        Mapping::Auto => HM_MAPPING_AUTO,
        Mapping::ReadWriteExec(_) => HM_MAPPING_READ_WRITE_EXEC,
        _ => HM_MAPPING_DUAL,
    }
}

pub(crate) fn fork_of(from: hm_fork) -> Result<Fork, Fault> {
    Ok(match from {
        HM_FORK_DETACH => Fork::Detach,
        HM_FORK_LOSES_RW => Fork::ChildLosesRw,
        HM_FORK_LOSES_BOTH => Fork::ChildLosesBoth,
        HM_FORK_SHARE => Fork::Share,
        _ => return Err(invalid(c"no such thing for a forked child to see")),
    })
}

pub(crate) const fn of_fork(fork: Fork) -> hm_fork {
    match fork {
        Fork::ChildLosesRw => HM_FORK_LOSES_RW,
        Fork::ChildLosesBoth => HM_FORK_LOSES_BOTH,
        Fork::Share => HM_FORK_SHARE,
        _ => HM_FORK_DETACH,
    }
}

/// Returns a value, or the default where it is zero.
pub(crate) const fn or(value: usize, default: usize) -> usize {
    if value == 0 { default } else { value }
}

pub(super) fn configuration(from: &hm_jit_config) -> Result<JitConfig, Fault> {
    let defaults = JitConfig::new();
    let first = or(from.block_size, defaults.block_size_bytes());
    let most = or(
        from.max_block_size,
        defaults.max_block_size_bytes().max(first),
    );
    let large_pages = match (from.large_pages, from.align_large_pages) {
        (0, _) => LargePages::Never,
        (bytes, 0) => LargePages::Wish { bytes },
        (bytes, _) => LargePages::Align { bytes },
    };
    let fill = match from.fill {
        HM_FILL_KEEP => Fill::Keep,
        HM_FILL_TRAP => Fill::Trap,
        HM_FILL_PATTERN => Fill::Pattern(from.fill_pattern),
        _ => return Err(invalid(c"no such fill")),
    };
    let sync = match from.sync_cores {
        HM_SYNC_WHEN_REUSED => SyncCores::WhenReused,
        HM_SYNC_REQUIRED => SyncCores::Required,
        HM_SYNC_DEFERRED => SyncCores::Deferred,
        HM_SYNC_NEVER => SyncCores::Never,
        _ => return Err(invalid(c"no such way to synchronize cores")),
    };
    let words = match from.word_bits {
        0 => Words::None,
        32 => Words::Bits32,
        64 => Words::Bits64,
        _ => return Err(invalid(c"word_bits is 0, 32 or 64")),
    };
    let config = defaults
        .granularity(or(from.granularity, defaults.granularity_bytes()))
        .block_size(first, most)
        .rx(placement(&from.rx)?)
        .rw(placement(&from.rw)?)
        .landing_pads(from.landing_pads != 0)
        .fork(fork_of(from.fork)?)
        .sync_cores(sync)
        .metadata(or(from.metadata, defaults.metadata_bytes()))
        .pools(or(from.pools as usize, defaults.pool_count()))
        .shards(or(from.shards as usize, defaults.max_shards()))
        .fill(fill)
        .mapping(mapping(from.mapping)?)
        .large_pages(large_pages)
        .immediate_release(from.immediate_release != 0)
        .padding(from.no_padding == 0)
        .limit(or(from.limit, usize::MAX))
        .strict(from.strict != 0)
        .words(words)
        .groups(from.groups != 0)
        .numbers(true);
    config.check()?;
    // SAFETY: the caller in C promises that the name stays as long as the object.
    match unsafe { name(from.name) } {
        Some(name) => Ok(config.name(name)),
        None => Ok(config),
    }
}
