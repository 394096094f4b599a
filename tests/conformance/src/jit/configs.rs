//! The configurations that every test of spans runs in.

use hostmem_core::jit::{JitConfig, SyncCores};

/// Yields configurations with their names: granules from the smallest to the largest, blocks that
/// are small, large, and grow.
pub fn configurations() -> impl Iterator<Item = (&'static str, JitConfig)> {
    let new = JitConfig::new;
    [
        ("default", new()),
        ("granules of 16", new().granularity(16)),
        ("granules of 128", new().granularity(128)),
        ("granules of 256", new().granularity(256)),
        ("granules of 4096", new().granularity(4096)),
        ("blocks of 64 KiB", new().block_size(64 << 10, 64 << 10)),
        ("blocks of 16 MiB", new().block_size(16 << 20, 16 << 20)),
        (
            "small blocks, granules of 4096",
            new().granularity(4096).block_size(64 << 10, 64 << 10),
        ),
        (
            "blocks up to 1 MiB, granules of 16",
            new().granularity(16).block_size(128 << 10, 1 << 20),
        ),
        ("no synchronization", new().sync_cores(SyncCores::Never)),
    ]
    .into_iter()
}
