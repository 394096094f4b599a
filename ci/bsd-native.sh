#!/usr/bin/env bash
# What a person on a BSD machine runs: everything that can run there.
source "$(dirname "$0")/lib.sh"

cargo test -p hostmem-core -p hostmem -p hostmem-conformance --all-features
cargo run --release --example expression -- 'x*x - 3*y + 7' x=6 y=5
cargo run --release --example expression -- --bench 10000
cargo run --release --example probe
