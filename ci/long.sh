#!/usr/bin/env bash
# The scenarios at full length, about a quarter of an hour: a hundred thousand spans in every
# configuration here and on a simulated host, eight threads with a million operations each, a
# million holes, and the models with their counter-checks. CI runs the same in short.
source "$(dirname "$0")/lib.sh"

export HOSTMEM_LONG=1
ci/loom.sh controls
cargo test --release -p hostmem-conformance --test os --all-features -- "long 100000"
cargo test --release -p hostmem --all-features --test jit_threads --test jit_steps
