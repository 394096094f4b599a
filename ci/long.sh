#!/usr/bin/env bash
# The scenarios at full length, about half an hour: a hundred thousand spans in every configuration here
# and on a simulated host, eight threads with a million operations each, a million holes, a million
# calls of a region for each page size, without and with faults, millions of calls of heaps by up to eight
# threads, millions of changes of range maps, the models with their counter-checks, LuaJIT in memory of
# this project, foreign programs on the malloc override and on the emulator, an AArch64 kernel with
# pages of 16 KiB, five minutes of each fuzz target, and all targets. CI runs the same in short.
source "$(dirname "$0")/lib.sh"

export HOSTMEM_LONG=1
# Here, where everything was installed, a skip is a failure; a fresh machine may lack tools.
be_strict
ci/loom.sh controls
cargo test --release -p hostmem-core --lib --features sim range_map
cargo test --release -p hostmem-conformance --test os --all-features -- \
    "long 100000 spans" "long 1000000 calls" "long 10000000 calls" "long 100000 handles"
cargo test --release -p hostmem --all-features --test jit -- threads:: steps::
# Ten thousand forks each, a thousand at steps of each call, and a hundred thousand signals.
cargo test --release -p hostmem --all-features --test heap -- \
    fork:: program_fork:: signals:: steps::
# Accounts memory strictly, on the whole host, for a moment.
cargo test --release -p hostmem --all-features --test dual_promises
ci/miri.sh long
ci/tsan.sh long
ci/luajit.sh long
ci/preload.sh long
ci/preload-aarch64.sh
ci/strangers.sh
ci/aarch64-pages.sh
ci/fuzz.sh 300
ci/targets.sh all
